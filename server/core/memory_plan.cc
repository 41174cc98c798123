#include "server/core/memory_plan.h"

#include <algorithm>
#include <fstream>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace tessera::server {
namespace {

std::string ReadText(const char* path) {
  const std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

uint64_t NumberIn(const char* path, uint64_t otherwise) {
  uint64_t value = 0;
  const std::string text = ReadText(path);
  return absl::SimpleAtoi(absl::StripAsciiWhitespace(text), &value) ? value : otherwise;
}

}  // namespace

uint64_t MeminfoBytes(absl::string_view meminfo, absl::string_view key) {
  for (absl::string_view line : absl::StrSplit(meminfo, '\n')) {
    if (!absl::ConsumePrefix(&line, key) || !absl::ConsumePrefix(&line, ":")) continue;
    absl::ConsumeSuffix(&line, "kB");
    uint64_t kib = 0;
    if (absl::SimpleAtoi(absl::StripAsciiWhitespace(line), &kib)) return kib << 10;
  }
  return 0;
}

uint64_t FreeMemoryBytes() {
  const uint64_t machine = MeminfoBytes(ReadText("/proc/meminfo"), "MemAvailable");
  // A file that says "max", or is missing, bounds nothing.
  const uint64_t limit = NumberIn("/sys/fs/cgroup/memory.max", UINT64_MAX);
  const uint64_t used = NumberIn("/sys/fs/cgroup/memory.current", 0);
  return std::min(machine, limit > used ? limit - used : 0);
}

uint64_t FreeMemoryBytes(const kernels::Backend& backend) {
  const kernels::Memory& memory = backend.memory();
  return memory.host_addressable() ? FreeMemoryBytes() : memory.free_bytes();
}

MemoryPlan PlanMemory(const EngineSettings& settings, uint64_t free_bytes) {
  MemoryPlan plan;
  plan.free_bytes = free_bytes;
  const auto planned =
      static_cast<uint64_t>(static_cast<double>(free_bytes) * settings.memory_fraction);
  if (settings.memory.bytes > 0) {
    plan.cache_bytes = static_cast<uint64_t>(settings.memory.bytes);
    plan.weight_bytes = planned;
  } else {
    plan.cache_bytes = planned / 2;
    plan.weight_bytes = planned - plan.cache_bytes;
  }
  return plan;
}

std::string MemoryPlan::Describe() const {
  constexpr double kMiB = 1 << 20;
  return absl::StrFormat("memory: %.0f MiB free, KV cache up to %.0f MiB, weights up to %.0f MiB",
                         static_cast<double>(free_bytes) / kMiB,
                         static_cast<double>(cache_bytes) / kMiB,
                         static_cast<double>(weight_bytes) / kMiB);
}

}  // namespace tessera::server
