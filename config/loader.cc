#include "config/loader.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "config/environment.h"
#include "config/foundation/text.h"
#include "config/rules.h"

namespace tessera {
namespace {

constexpr char kEnvPrefix[] = "TESSERA_";

Override FromEnvironment(absl::string_view name, absl::string_view value) {
  const std::string path = absl::AsciiStrToLower(name.substr(sizeof(kEnvPrefix) - 1));
  return {absl::StrCat("env ", name), absl::StrSplit(path, "__"), std::string(value)};
}

void ApplyOverrides(const Overrides& overrides, Node* root, std::vector<Problem>* problems) {
  for (const auto& [name, value] : overrides.environment) {
    if (!absl::StartsWith(name, kEnvPrefix) || !absl::StrContains(name, "__")) continue;
    ApplyOverride(FromEnvironment(name, value), root, problems);
  }
  for (const std::string& flag : overrides.flags) {
    const size_t equals = flag.find('=');
    if (equals == std::string::npos || equals == 0) {
      problems->push_back({absl::StrCat("flag ", Quoted(flag)), {}, "", "must be NAME=VALUE", ""});
      continue;
    }
    const std::string path = flag.substr(0, equals);
    ApplyOverride({absl::StrCat("flag ", path), SplitPath(path), flag.substr(equals + 1)}, root,
                  problems);
  }
}

// Rules see only settings whose fields are in order: a rule about a value that could not be read
// would speak of its default.
void ApplyRules(const Settings& settings, LoadOutcome* outcome) {
  for (const SettingsRule& rule : SettingsRules()) {
    rule.check(settings, [&](const std::string& field, const std::string& message,
                             const std::string& hint) {
      for (const Problem& known : outcome->problems) {
        if (known.field == field) return;
      }
      if (outcome->problems.size() >= kMaxProblems) return;
      const Origin origin = NearestOrigin(outcome->origins, field);
      outcome->problems.push_back({origin.source, origin.position, field, message, hint});
    });
  }
}

LoadOutcome FromTree(Node root, absl::string_view name, const Overrides& overrides) {
  LoadOutcome outcome;
  ApplyOverrides(overrides, &root, &outcome.problems);
  auto settings = std::make_shared<Settings>();
  BindTree(SettingsTable(), root, name, settings.get(), &outcome.problems, &outcome.origins);
  ApplyRules(*settings, &outcome);
  SortProblems(&outcome.problems);
  if (outcome.problems.empty()) outcome.settings = std::move(settings);
  return outcome;
}

}  // namespace

Status LoadOutcome::status() const { return ProblemsStatus("settings are not valid", problems); }

std::vector<std::pair<std::string, std::string>> EnvironmentOverrides() {
  return EnvironmentWithPrefix(kEnvPrefix);
}

LoadOutcome LoadSettingsText(absl::string_view text, TextFormat format, absl::string_view name,
                             const Overrides& overrides) {
  std::vector<Problem> problems;
  std::optional<Node> root = ReadTree(text, format, name, &problems);
  if (!root) {
    LoadOutcome outcome;
    outcome.problems = std::move(problems);
    return outcome;
  }
  return FromTree(std::move(*root), name, overrides);
}

LoadOutcome LoadSettings(const std::string& path, const Overrides& overrides) {
  if (path.empty()) {
    Node root;
    root.kind = NodeKind::kMap;
    return FromTree(std::move(root), "", overrides);
  }
  StatusOr<std::string> text = ReadSettingsFile(path);
  if (!text.ok()) {
    const ErrorParts parts = PartsOf(text.status());
    LoadOutcome outcome;
    outcome.problems.push_back(
        {path, {}, "", absl::StrCat(parts.what, ": ", parts.why), parts.fix});
    return outcome;
  }
  return LoadSettingsText(*text, FormatOfName(path), path, overrides);
}

StatusOr<std::string> ReadSettingsFile(const std::string& path) {
  const auto fail = [&](absl::StatusCode code, const std::string& why, const std::string& fix) {
    return Error(code, {.what = "cannot read the settings", .where = path, .why = why, .fix = fix});
  };
  std::error_code code;
  const std::filesystem::file_status kind = std::filesystem::status(path, code);
  if (kind.type() == std::filesystem::file_type::not_found) {
    return fail(absl::StatusCode::kNotFound, "there is no such file", "check the path");
  }
  if (std::filesystem::is_directory(kind)) {
    return fail(absl::StatusCode::kInvalidArgument, "it is a folder", "name the file in it");
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    const int error = errno;
    return fail(error == EACCES ? absl::StatusCode::kPermissionDenied : absl::StatusCode::kUnknown,
                std::strerror(error), "check who may read it");
  }
  // One byte more than is accepted tells a file that is too large, and bounds what is read from a
  // pipe or a device.
  std::string text(kMaxTextBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  if (file.bad()) return fail(absl::StatusCode::kUnknown, "the file could not be read", "");
  if (text.size() > kMaxTextBytes) {
    return fail(absl::StatusCode::kInvalidArgument,
                absl::StrCat("it has more than ", kMaxTextBytes, " bytes"),
                "a settings file holds settings only");
  }
  return text;
}

std::string Dump(const Settings& settings, const Origins& origins) {
  return DumpYaml(SettingsTable(), &settings, origins);
}

std::vector<Change> Diff(const Settings& before, const Settings& after) {
  return DiffStructs(SettingsTable(), &before, &after);
}

std::string SettingsReference() {
  Settings defaults;
  return ReferencePage(SettingsTable(), &defaults);
}

}  // namespace tessera
