// The settings in force: one immutable snapshot, replaced as a whole.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "config/loader.h"

namespace tessera {

enum class ReloadMode { kApply, kDryRun };

// What a reload did. It was taken (`accepted`) if there are no problems; then `changes` are in
// force (nothing but problems and changes comes of a dry run). A refused reload changes nothing.
struct ReloadOutcome {
  bool accepted = false;
  int64_t generation = 0;  // the one in force afterwards
  std::vector<Change> changes;
  std::vector<Problem> problems;

  // OK, or FAILED_PRECONDITION with all problems.
  [[nodiscard]] Status status() const;
};

// Publishes settings. Thread-safe: readers take `Current()` once for each unit of work and keep it.
class SettingsStore {
 public:
  using Listener = std::function<void(const Settings& settings)>;

  // `settings` were loaded from `path` with `overrides`, which reloads apply again.
  SettingsStore(std::shared_ptr<const Settings> settings, std::string path, Overrides overrides);

  [[nodiscard]] std::shared_ptr<const Settings> Current() const;
  // From 1, one more with every accepted reload.
  [[nodiscard]] int64_t generation() const;

  // Called, one at a time, after each accepted reload; not for the settings of the start. A
  // listener must not reload.
  void AddListener(Listener listener);

  // Reads the file again. A change to a setting that needs a restart refuses the whole reload.
  ReloadOutcome ReloadFile(ReloadMode mode = ReloadMode::kApply);
  // The same from a text.
  ReloadOutcome Reload(absl::string_view text, TextFormat format,
                       ReloadMode mode = ReloadMode::kApply);

 private:
  ReloadOutcome Take(LoadOutcome loaded, ReloadMode mode);

  const std::string path_;
  const Overrides overrides_;
  std::mutex reload_mutex_;          // held over a whole reload, before `mutex_`
  std::vector<Listener> listeners_;  // guarded by reload_mutex_
  mutable std::mutex mutex_;
  std::shared_ptr<const Settings> current_;  // guarded by mutex_
  int64_t generation_ = 1;                   // guarded by mutex_
};

// Sets the log's level, format and instance name as `settings` say.
void ApplyLogSettings(const Settings& settings);

}  // namespace tessera
