// Environment variables: this is the one place that reads them.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace tessera {

// The variable's value, or nothing if it is not set.
[[nodiscard]] std::optional<std::string> EnvironmentVariable(const std::string& name);

// All variables whose names begin with `prefix`, as (name, value), sorted by name.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> EnvironmentWithPrefix(
    absl::string_view prefix);

}  // namespace tessera
