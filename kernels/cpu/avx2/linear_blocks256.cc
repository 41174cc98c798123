#include "kernels/cpu/simd/avx2.h"
//
#include "kernels/cpu/simd/linear.h"

namespace tessera::kernels::cpu {

const LinearKernels kAvx2LinearBlocks256 = LinearOf<Avx2, LinearFamily::kBlocks256>();

}  // namespace tessera::kernels::cpu
