// What a daemon makes of its settings before it serves. `plan` and `doctor` make the same, so that
// they speak of what the daemon would do.
#pragma once

#include <memory>
#include <string>

#include "blockzoo/block_type.h"
#include "blockzoo/zoo.h"
#include "config/settings.h"
#include "kernels/backend.h"
#include "scheduler/engine.h"

namespace tessera::server {

// Where what was measured of the processor's kernels is kept.
[[nodiscard]] std::string ProcessorCostsFile(const StoreSettings& store);

[[nodiscard]] kernels::CpuIsa IsaOf(CpuIsa isa);
// The backend that engine.device names; `auto` takes a CUDA device where this build and machine
// have one that will do, and says in the log why one that is there is passed over. UNIMPLEMENTED,
// NOT_FOUND or FAILED_PRECONDITION where a device is asked for by name and there is none that will
// do. What is measured of a device's kernels is kept in the store's directory.
[[nodiscard]] StatusOr<std::shared_ptr<const kernels::Backend>> MakeBackend(
    const EngineSettings& settings, const StoreSettings& store);
// For the log: what decided which backend it was.
[[nodiscard]] std::string WhyDevice(const EngineSettings& settings);
// engine.max_batch_tokens, or what suits the backend.
[[nodiscard]] uint32_t BatchTokensOf(const EngineSettings& settings,
                                     const kernels::Backend& backend);
// What the settings say of the engine's threads and steps; memory and limits are left at their
// defaults.
[[nodiscard]] scheduler::EngineOptions EngineOptionsOf(const EngineSettings& settings,
                                                       const kernels::Backend& backend);
[[nodiscard]] blockzoo::CacheChoice CacheChoiceOf(const KvSettings& kv);

// Opens the zoo for serving: read-only, with a warning in the log, where it may not be written.
// NOT_FOUND when there is none.
[[nodiscard]] StatusOr<std::unique_ptr<blockzoo::Zoo>> OpenZooToServe(const StoreSettings& store);

}  // namespace tessera::server
