// Subcommands of `tessera zoo` that make chains out of others or out of nothing, or files of them.
#pragma once

#include <memory>
#include <string>

#include "blockzoo/zoo_progress.h"
#include "server/cli/command_line.h"
#include "server/cli/settings_flags.h"

namespace tessera::server::cli {

// `flags` name the zoo.
void AddSynth(Command& zoo, const std::shared_ptr<SettingsFlags>& flags);
void AddExport(Command& zoo, const std::shared_ptr<SettingsFlags>& flags);
void AddQuantize(Command& zoo, const std::shared_ptr<SettingsFlags>& flags);

// Runs `work` with a progress display on stderr.
template <typename Work>
auto WithProgress(absl::string_view title, const Work& work,
                  blockzoo::ProgressUnit unit = blockzoo::ProgressUnit::kBytes) {
  blockzoo::ProgressPrinter printer(std::string(title), stderr, blockzoo::ProgressStyleOf(stderr),
                                    SystemClock(), unit);
  return work([&printer](uint64_t done, uint64_t total) { printer.Update(done, total); });
}

}  // namespace tessera::server::cli
