#include "kernels/cpu/simd/avx512.h"
//
#include "kernels/cpu/simd/amx.h"
#include "kernels/cpu/simd/tile_attention.h"

namespace tessera::kernels::cpu {

void AmxAttend(const AttentionCall& call) { TileAttention<Avx512, Amx>::Attend(call); }

}  // namespace tessera::kernels::cpu
