// The part of `bench` that needs no daemon: a step's time by op.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config/foundation/status.h"
#include "server/cli/settings_flags.h"
#include "server/core/local_model.h"

namespace tessera::server::cli {

enum class ProfileForm : uint8_t { kTable, kJson };

// Runs `chain` of the zoo in this process, with each number of streams in turn, and prints for the
// prompts and for the decoding steps: each op's calls, time and share of a step, what it read and
// computed a second beside what the processor can, and the time that no kernel has.
// UNIMPLEMENTED on a device, whose kernels run on after their launch.
[[nodiscard]] Status ProfileInZoo(const SettingsFlags& flags, const std::string& chain,
                                  const std::vector<uint32_t>& streams,
                                  LocalModel::ProfileLoad load, ProfileForm form);

// The lines of one phase, for people. `read_gb_s`: what the threads can read at most.
[[nodiscard]] std::string ProfileTable(const scheduler::EngineProfile& profile, double read_gb_s);

}  // namespace tessera::server::cli
