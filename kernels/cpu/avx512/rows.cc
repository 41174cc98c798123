#include "kernels/cpu/simd/avx512.h"
//
#include "kernels/cpu/simd/rows.h"
#include "kernels/cpu/simd/sample.h"

namespace tessera::kernels::cpu {

const RowKernels kAvx512Row = {
    .rms_norm = RowOps<Avx512>::RmsNorm,
    .quantize = RowOps<Avx512>::Quantize,
    .gated = {RowOps<Avx512>::Gated<false>, RowOps<Avx512>::Gated<true>}};

const SampleKernels kAvx512Sample = {.chunk_max = SampleOps<Avx512>::ChunkMax,
                                     .weights = SampleOps<Avx512>::Weights,
                                     .count_greater = SampleOps<Avx512>::CountGreater};

}  // namespace tessera::kernels::cpu
