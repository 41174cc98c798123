#include "config/snapshot.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "config/foundation/check.h"
#include "config/foundation/log.h"

namespace tessera {

Status ReloadOutcome::status() const {
  if (problems.empty()) return absl::OkStatus();
  const ErrorParts parts = PartsOf(ProblemsStatus("settings were not reloaded", problems));
  return Error(absl::StatusCode::kFailedPrecondition, parts);
}

SettingsStore::SettingsStore(std::shared_ptr<const Settings> settings, std::string path,
                             Overrides overrides)
    : path_(std::move(path)), overrides_(std::move(overrides)), current_(std::move(settings)) {
  TESSERA_CHECK(current_ != nullptr);
}

std::shared_ptr<const Settings> SettingsStore::Current() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return current_;
}

int64_t SettingsStore::generation() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return generation_;
}

void SettingsStore::AddListener(Listener listener) {
  const std::lock_guard<std::mutex> lock(reload_mutex_);
  listeners_.push_back(std::move(listener));
}

ReloadOutcome SettingsStore::ReloadFile(ReloadMode mode) {
  const std::lock_guard<std::mutex> lock(reload_mutex_);
  return Take(LoadSettings(path_, overrides_), mode);
}

ReloadOutcome SettingsStore::Reload(absl::string_view text, TextFormat format, ReloadMode mode) {
  const std::lock_guard<std::mutex> lock(reload_mutex_);
  return Take(LoadSettingsText(text, format, path_.empty() ? "settings" : path_, overrides_), mode);
}

ReloadOutcome SettingsStore::Take(LoadOutcome loaded, ReloadMode mode) {
  ReloadOutcome outcome;
  outcome.generation = generation();
  outcome.problems = std::move(loaded.problems);
  if (!outcome.problems.empty()) return outcome;
  outcome.changes = Diff(*Current(), *loaded.settings);
  for (const Change& change : outcome.changes) {
    if (change.reload == Reload::kLive) continue;
    const Origin origin = NearestOrigin(loaded.origins, change.field);
    outcome.problems.push_back({origin.source, origin.position, change.field,
                                absl::StrCat("cannot change from ", change.before, " to ",
                                             change.after, " while the server runs"),
                                "restart the server, or set it back"});
  }
  if (!outcome.problems.empty()) {
    SortProblems(&outcome.problems);
    return outcome;
  }
  outcome.accepted = true;
  if (mode == ReloadMode::kDryRun) return outcome;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    current_ = loaded.settings;
    outcome.generation = ++generation_;
  }
  for (const Listener& listener : listeners_) listener(*loaded.settings);
  return outcome;
}

void ApplyLogSettings(const Settings& settings) {
  SetLogLevel(settings.log.level);
  SetLogFormat(settings.log.format);
  SetLogInstance(settings.server.name);
}

}  // namespace tessera
