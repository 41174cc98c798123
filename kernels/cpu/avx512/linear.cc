#include "kernels/cpu/simd/avx512.h"
//
#include "kernels/cpu/simd/linear.h"

namespace tessera::kernels::cpu {

const LinearKernels kAvx512Linear = AllLinear<Avx512>();

}  // namespace tessera::kernels::cpu
