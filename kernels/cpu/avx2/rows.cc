#include "kernels/cpu/simd/avx2.h"
//
#include "kernels/cpu/simd/rows.h"
#include "kernels/cpu/simd/sample.h"

namespace tessera::kernels::cpu {

const RowKernels kAvx2Row = {.rms_norm = RowOps<Avx2>::RmsNorm,
                             .quantize = RowOps<Avx2>::Quantize,
                             .gated = {RowOps<Avx2>::Gated<false>, RowOps<Avx2>::Gated<true>}};

const SampleKernels kAvx2Sample = {.chunk_max = SampleOps<Avx2>::ChunkMax,
                                   .weights = SampleOps<Avx2>::Weights,
                                   .count_greater = SampleOps<Avx2>::CountGreater};

}  // namespace tessera::kernels::cpu
