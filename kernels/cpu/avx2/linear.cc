#include "kernels/cpu/simd/avx2.h"
//
#include "kernels/cpu/simd/linear_float.h"
#include "kernels/cpu/simd/linear_int8.h"

namespace tessera::kernels::cpu {

// In the order of DType.
const LinearKernels kAvx2Linear = {
    .run = {FloatLinear<Avx2, DType::kF32>::Call, FloatLinear<Avx2, DType::kF16>::Call,
            FloatLinear<Avx2, DType::kBF16>::Call, Int8Linear<Avx2, DType::kQ8_0>::Call,
            Int8Linear<Avx2, DType::kQ4_0>::Call, Int8Linear<Avx2, DType::kQ4_1>::Call,
            FloatLinear<Avx2, DType::kF8Channel>::Call, FloatLinear<Avx2, DType::kF8Block128>::Call,
            FloatLinear<Avx2, DType::kI8Channel>::Call, FloatLinear<Avx2, DType::kI4G128>::Call,
            FloatLinear<Avx2, DType::kI4G64>::Call, FloatLinear<Avx2, DType::kI4G128Zero>::Call,
            FloatLinear<Avx2, DType::kI4G64Zero>::Call}};

}  // namespace tessera::kernels::cpu
