// Which processors this process may use, and how they lie: cores, packages, memory nodes.
#pragma once

#include <optional>
#include <vector>

#include "absl/strings/string_view.h"

namespace tessera::kernels {

// The smallest CPU quota on the way from the process's group to the root, in whole processors
// (rounded up); nullopt without a limit. `cgroup_file` is the text of /proc/self/cgroup, `root` the
// mount point (/sys/fs/cgroup). Reads version 2 (cpu.max) and version 1 (cpu.cfs_quota_us).
[[nodiscard]] std::optional<int> CgroupProcessors(absl::string_view cgroup_file,
                                                  absl::string_view root);

// A logical processor. Hyper-threads of one core differ in `id` alone.
struct Processor {
  int id = 0;
  int package = 0;
  int core = 0;  // within its package
  int node = 0;  // of memory; 0 where the machine names none

  bool operator==(const Processor&) const = default;
};

// The numbers of "0-3,8,10-11" (as the kernel writes sets), rising; what is no number or range is
// left out, as are numbers above 65535.
[[nodiscard]] std::vector<int> ParseProcessorList(absl::string_view text);

// How `ids` lie, by id. `root` is /sys/devices/system. A processor of which nothing can be read is
// a core of its own.
[[nodiscard]] std::vector<Processor> ReadTopology(absl::string_view root, std::vector<int> ids);

// Distinct cores, and distinct memory nodes.
[[nodiscard]] int CountCores(const std::vector<Processor>& processors);
[[nodiscard]] int CountNodes(const std::vector<Processor>& processors);

// The processors of this process's affinity mask.
[[nodiscard]] std::vector<Processor> AllowedProcessors();
// What its control groups leave of them; nullopt without a limit.
[[nodiscard]] std::optional<int> ProcessorQuota();

}  // namespace tessera::kernels
