#include "kernels/cpu/simd/avx2.h"
//
#include "kernels/cpu/simd/rows.h"
#include "kernels/cpu/simd/sample.h"

namespace tessera::kernels::cpu {

// In the order of ActivationKind.
const RowKernels kAvx2Row = {.rms_norm = RowOps<Avx2>::RmsNorm,
                             .layer_norm = RowOps<Avx2>::LayerNorm,
                             .quantize = RowOps<Avx2>::Quantize,
                             .activation = {RowOps<Avx2>::Activation<ActivationKind::kSilu>,
                                            RowOps<Avx2>::Activation<ActivationKind::kGeluTanh>,
                                            RowOps<Avx2>::Activation<ActivationKind::kGelu>,
                                            RowOps<Avx2>::Activation<ActivationKind::kRelu>,
                                            RowOps<Avx2>::Activation<ActivationKind::kRelu2>},
                             .scale_and_cap = RowOps<Avx2>::ScaleAndCap};

const SampleKernels kAvx2Sample = {.chunk_max = SampleOps<Avx2>::ChunkMax,
                                   .weights = SampleOps<Avx2>::Weights,
                                   .count_greater = SampleOps<Avx2>::CountGreater};

}  // namespace tessera::kernels::cpu
