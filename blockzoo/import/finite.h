// Whether weights are numbers: a file that was damaged or made wrongly often shows it here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "kernels/dtype.h"

namespace tessera::blockzoo {

// The offset in `bytes` of the first float that is infinite or not a number: elements of F32, F16
// and BF16, scales and offsets of block formats, whose other bytes are whole numbers. `bytes` are
// whole elements or blocks. Types with planes are looked at when they are made.
[[nodiscard]] std::optional<uint64_t> FirstNotFinite(kernels::DType dtype,
                                                     std::span<const std::byte> bytes);

}  // namespace tessera::blockzoo
