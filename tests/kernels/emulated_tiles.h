// The products on tile registers (simd/linear_tiles.h) over tiles in memory, whose arithmetic is
// written out: what the kernels compute, on a machine that has none.
#pragma once

#include "kernels/cpu/micro.h"

namespace tessera::kernels::cpu {

extern const LinearKernels kEmulatedTileLinear;

}  // namespace tessera::kernels::cpu
