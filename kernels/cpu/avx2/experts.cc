#include "kernels/cpu/simd/avx2.h"
//
#include "kernels/cpu/simd/experts.h"

namespace tessera::kernels::cpu {

const ExpertKernels kAvx2Expert = {.clamped_swiglu = ExpertOps<Avx2>::ClampedSwiglu};

}  // namespace tessera::kernels::cpu
