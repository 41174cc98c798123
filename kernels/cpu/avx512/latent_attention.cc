#include "kernels/cpu/simd/avx512.h"
//
#include "kernels/cpu/simd/latent_attention.h"

namespace tessera::kernels::cpu {

// In the order of DType.
const LatentKernels kAvx512Latent = {
    .attend = {LatentAttention<Avx512, DType::kF32>::Run, LatentAttention<Avx512, DType::kF16>::Run,
               LatentAttention<Avx512, DType::kBF16>::Run},
    .store = {LatentAttention<Avx512, DType::kF32>::Store,
              LatentAttention<Avx512, DType::kF16>::Store,
              LatentAttention<Avx512, DType::kBF16>::Store}};

}  // namespace tessera::kernels::cpu
