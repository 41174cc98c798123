// Rules that concern several settings at once, or that a range cannot say.
#pragma once

#include <functional>
#include <span>
#include <string>

#include "config/settings.h"

namespace tessera {

// What a rule found: the field to blame, what is wrong and what to do.
using RuleReport = std::function<void(const std::string& field, const std::string& message,
                                      const std::string& hint)>;

struct SettingsRule {
  absl::string_view name;
  void (*check)(const Settings& settings, const RuleReport& report);
};

// All rules, in the order in which they are asked.
[[nodiscard]] std::span<const SettingsRule> SettingsRules();

}  // namespace tessera
