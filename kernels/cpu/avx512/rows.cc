#include "kernels/cpu/simd/avx512.h"
//
#include "kernels/cpu/simd/rows.h"
#include "kernels/cpu/simd/sample.h"

namespace tessera::kernels::cpu {

// In the order of ActivationKind.
const RowKernels kAvx512Row = {.rms_norm = RowOps<Avx512>::RmsNorm,
                               .layer_norm = RowOps<Avx512>::LayerNorm,
                               .quantize = RowOps<Avx512>::Quantize,
                               .activation = {RowOps<Avx512>::Activation<ActivationKind::kSilu>,
                                              RowOps<Avx512>::Activation<ActivationKind::kGeluTanh>,
                                              RowOps<Avx512>::Activation<ActivationKind::kGelu>,
                                              RowOps<Avx512>::Activation<ActivationKind::kRelu>,
                                              RowOps<Avx512>::Activation<ActivationKind::kRelu2>},
                               .scale_and_cap = RowOps<Avx512>::ScaleAndCap};

const SampleKernels kAvx512Sample = {.chunk_max = SampleOps<Avx512>::ChunkMax,
                                     .weights = SampleOps<Avx512>::Weights,
                                     .count_greater = SampleOps<Avx512>::CountGreater};

}  // namespace tessera::kernels::cpu
