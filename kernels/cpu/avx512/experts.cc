#include "kernels/cpu/simd/avx512.h"
//
#include "kernels/cpu/simd/experts.h"

namespace tessera::kernels::cpu {

const ExpertKernels kAvx512Expert = {.clamped_swiglu = ExpertOps<Avx512>::ClampedSwiglu};

}  // namespace tessera::kernels::cpu
