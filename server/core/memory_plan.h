// How much memory the daemon plans with, decided once at start.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "config/settings.h"
#include "kernels/backend.h"

namespace tessera::server {

struct MemoryPlan {
  uint64_t free_bytes = 0;    // of the machine, the control group or the device, at start
  uint64_t cache_bytes = 0;   // KV cache; taken as pages are written
  uint64_t weight_bytes = 0;  // that live chains may map together

  // One line for people.
  [[nodiscard]] std::string Describe() const;
};

// engine.memory_fraction of what is free, half of it for the cache unless engine.memory says how
// much.
[[nodiscard]] MemoryPlan PlanMemory(const EngineSettings& settings, uint64_t free_bytes);

// The smaller of what the machine has available and what the control group leaves.
[[nodiscard]] uint64_t FreeMemoryBytes();
// The same of the memory that the backend computes in.
[[nodiscard]] uint64_t FreeMemoryBytes(const kernels::Backend& backend);
// The value of `key` ("MemAvailable") in the text of /proc/meminfo, in bytes; 0 when absent.
[[nodiscard]] uint64_t MeminfoBytes(absl::string_view meminfo, absl::string_view key);

}  // namespace tessera::server
