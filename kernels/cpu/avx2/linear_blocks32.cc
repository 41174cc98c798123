#include "kernels/cpu/simd/avx2.h"
//
#include "kernels/cpu/simd/linear.h"

namespace tessera::kernels::cpu {

const LinearKernels kAvx2LinearBlocks32 = LinearOf<Avx2, LinearFamily::kBlocks32>();

}  // namespace tessera::kernels::cpu
