// Float32 to blocks of GGUF's formats.
//
// Every scale is found by least squares: for several ways to round the values of a sub-block to
// codes the best scale (and minimum) follows, and the way with the least squared error is taken.
// Integer scales round to the nearest, then those beside it and their codes are tried as well. What
// a format cannot hold (a scale past float16) is bounded; a scale of 0 has codes that mean 0.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/dtype.h"

namespace tessera::kernels {

// `values` are finite, `count` a multiple of the type's block.
void EncodeBlocks(DType dtype, uint64_t count, const float* values, std::byte* blocks);

}  // namespace tessera::kernels
