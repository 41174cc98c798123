// The kernels on tile registers (simd/linear_tiles.h, simd/tile_attention.h) over tiles in memory,
// whose arithmetic is written out: what the kernels compute, on a machine that has none.
#pragma once

#include "kernels/cpu/micro.h"

namespace tessera::kernels::cpu {

extern const LinearKernels kEmulatedTileLinear;
void EmulatedTileAttend(const AttentionCall& call);

}  // namespace tessera::kernels::cpu
