#include "kernels/cpu/simd/avx2.h"
//
#include "kernels/cpu/simd/attention.h"
#include "kernels/cpu/simd/bf16_attention.h"

namespace tessera::kernels::cpu {

// In the order of DType.
const AttentionKernels kAvx2Attention = {
    .attend = {Attention<Avx2, DType::kF32>::Run, Attention<Avx2, DType::kF16>::Run,
               Bf16Attention<Avx2>::Run},
    .fold = {Attention<Avx2, DType::kF32>::Fold, Attention<Avx2, DType::kF16>::Fold,
             Bf16Attention<Avx2>::Fold},
    .items = {kMaxItems, kMaxItems, kMaxItems},
    .rotate = Rope<Avx2>::Rotate,
    .store_kv = {KvPlane<Avx2, DType::kF32>::Store, KvPlane<Avx2, DType::kF16>::Store,
                 KvPlane<Avx2, DType::kBF16>::Store},
    .page_stats = {KvPlane<Avx2, DType::kF32>::Stats, KvPlane<Avx2, DType::kF16>::Stats,
                   KvPlane<Avx2, DType::kBF16>::Stats}};

}  // namespace tessera::kernels::cpu
