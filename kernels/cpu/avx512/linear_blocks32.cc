#include "kernels/cpu/simd/avx512.h"
//
#include "kernels/cpu/simd/linear.h"

namespace tessera::kernels::cpu {

const LinearKernels kAvx512LinearBlocks32 = LinearOf<Avx512, LinearFamily::kBlocks32>();

}  // namespace tessera::kernels::cpu
