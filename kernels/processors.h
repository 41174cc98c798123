// How many processors the control groups of this process allow.
#pragma once

#include <optional>

#include "absl/strings/string_view.h"

namespace tessera::kernels {

// The smallest CPU quota on the way from the process's group to the root, in whole processors
// (rounded up); nullopt without a limit. `cgroup_file` is the text of /proc/self/cgroup, `root` the
// mount point (/sys/fs/cgroup). Reads version 2 (cpu.max) and version 1 (cpu.cfs_quota_us).
[[nodiscard]] std::optional<int> CgroupProcessors(absl::string_view cgroup_file,
                                                  absl::string_view root);

}  // namespace tessera::kernels
