#include "kernels/cpu/simd/avx512.h"
//
#include "kernels/cpu/simd/linear.h"

namespace tessera::kernels::cpu {

const LinearKernels kAvx512LinearBlocks256 = LinearOf<Avx512, LinearFamily::kBlocks256>();

}  // namespace tessera::kernels::cpu
