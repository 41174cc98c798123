#include "kernels/cpu/simd/amx.h"
#include "kernels/cpu/simd/avx512.h"
//
#include "kernels/cpu/simd/linear_tiles.h"

namespace tessera::kernels::cpu {

const LinearKernels kAmxLinear = TileLinearOf<Avx512, Amx>();

}  // namespace tessera::kernels::cpu
