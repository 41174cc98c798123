// Settings from a file, the environment and flags, in rising precedence, with every problem at
// once.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "config/problem.h"
#include "config/schema.h"
#include "config/settings.h"
#include "config/tree.h"

namespace tessera {

// Values that outrank the file.
struct Overrides {
  // (name, value): `TESSERA_ADMISSION__MAX_WAIT` is admission.max_wait; two underscores part the
  // names, and a number is a list's entry. Names without two underscores are not settings and are
  // skipped.
  std::vector<std::pair<std::string, std::string>> environment;
  // "admission.max_wait=20s", "models[0].preload=true"; the last of equals wins.
  std::vector<std::string> flags;
};

// The process's environment as overrides.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> EnvironmentOverrides();

// What loading gave. `settings` is null exactly if there are problems.
struct LoadOutcome {
  std::shared_ptr<const Settings> settings;
  Origins origins;
  std::vector<Problem> problems;  // sorted by place

  [[nodiscard]] bool ok() const { return problems.empty(); }
  // OK, or INVALID_ARGUMENT with all problems.
  [[nodiscard]] Status status() const;
};

// Loads from the file `path`, read by its name's ending (`.json`, otherwise YAML); from the
// defaults if `path` is empty. A file that cannot be read is a problem like others.
[[nodiscard]] LoadOutcome LoadSettings(const std::string& path, const Overrides& overrides);

// The same from a text; `name` stands in for the file's name in problems and origins.
[[nodiscard]] LoadOutcome LoadSettingsText(absl::string_view text, TextFormat format,
                                           absl::string_view name, const Overrides& overrides);

// Reads a settings file of at most `kMaxTextBytes`. NOT_FOUND, PERMISSION_DENIED, INVALID_ARGUMENT
// (too large, not a file) or UNKNOWN.
[[nodiscard]] StatusOr<std::string> ReadSettingsFile(const std::string& path);

// The effective settings as YAML with each value's origin, for --print-config.
[[nodiscard]] std::string Dump(const Settings& settings, const Origins& origins);

// What differs between two settings.
[[nodiscard]] std::vector<Change> Diff(const Settings& before, const Settings& after);

// A markdown page of all settings.
[[nodiscard]] std::string SettingsReference();

}  // namespace tessera
