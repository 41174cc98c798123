#include "kernels/cpu/simd/avx2.h"
//
#include "kernels/cpu/simd/latent_attention.h"

namespace tessera::kernels::cpu {

// In the order of DType.
const LatentKernels kAvx2Latent = {
    .attend = {LatentAttention<Avx2, DType::kF32>::Run, LatentAttention<Avx2, DType::kF16>::Run,
               LatentAttention<Avx2, DType::kBF16>::Run},
    .store = {LatentAttention<Avx2, DType::kF32>::Store, LatentAttention<Avx2, DType::kF16>::Store,
              LatentAttention<Avx2, DType::kBF16>::Store}};

}  // namespace tessera::kernels::cpu
