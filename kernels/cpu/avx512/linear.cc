#include "kernels/cpu/simd/avx512.h"
//
#include "kernels/cpu/simd/linear.h"

namespace tessera::kernels::cpu {

const LinearKernels kAvx512Linear = LinearOf<Avx512, LinearFamily::kFloats>();

}  // namespace tessera::kernels::cpu
