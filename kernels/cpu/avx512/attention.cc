#include "kernels/cpu/simd/avx512.h"
//
#include "kernels/cpu/simd/attention.h"
#include "kernels/cpu/simd/bf16_attention.h"

namespace tessera::kernels::cpu {

// In the order of DType.
const AttentionKernels kAvx512Attention = {
    .attend = {Attention<Avx512, DType::kF32>::Run, Attention<Avx512, DType::kF16>::Run,
               Bf16Attention<Avx512>::Run},
    .fold = {Attention<Avx512, DType::kF32>::Fold, Attention<Avx512, DType::kF16>::Fold,
             Bf16Attention<Avx512>::Fold},
    .items = {kMaxItems, kMaxItems, kMaxItems},
    .rotate = Rope<Avx512>::Rotate,
    .store_kv = {KvPlane<Avx512, DType::kF32>::Store, KvPlane<Avx512, DType::kF16>::Store,
                 KvPlane<Avx512, DType::kBF16>::Store},
    .page_stats = {KvPlane<Avx512, DType::kF32>::Stats, KvPlane<Avx512, DType::kF16>::Stats,
                   KvPlane<Avx512, DType::kBF16>::Stats}};

}  // namespace tessera::kernels::cpu
