#include "kernels/cpu/simd/avx2.h"
//
#include "kernels/cpu/simd/linear.h"

namespace tessera::kernels::cpu {

const LinearKernels kAvx2Linear = LinearOf<Avx2, LinearFamily::kFloats>();

}  // namespace tessera::kernels::cpu
