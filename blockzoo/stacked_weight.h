// Linear weights of one shape in one tensor, one after the other: the experts of a mixture, the
// heads of an up-projection.
#pragma once

#include <cstddef>
#include <cstdint>

#include "blockzoo/block_parts.h"

namespace tessera::blockzoo {

struct StackedWeight {
  BoundWeight all;      // [parts * out, in], with the kernel that reads each part
  int32_t out = 0;      // of a part
  uint64_t stride = 0;  // bytes from a part to the next
  [[nodiscard]] const std::byte* Part(int32_t part) const {
    return all.packed.data() + static_cast<uint64_t>(part) * stride;
  }
};

// The tensor of `role` [parts * out, in] as `parts` packed weights [out, in]. Errors of BindWeight;
// UNIMPLEMENTED when the backend cannot cut a packed weight every `out` rows.
[[nodiscard]] StatusOr<StackedWeight> BindStackedWeight(const BindContext& context,
                                                        const char* role, int32_t parts,
                                                        int32_t out, int32_t in);

}  // namespace tessera::blockzoo
