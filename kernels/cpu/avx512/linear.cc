#include "kernels/cpu/simd/avx512.h"
//
#include "kernels/cpu/simd/linear_float.h"
#include "kernels/cpu/simd/linear_int8.h"

namespace tessera::kernels::cpu {

// In the order of DType.
const LinearKernels kAvx512Linear = {
    .run = {FloatLinear<Avx512, DType::kF32>::Call, FloatLinear<Avx512, DType::kF16>::Call,
            FloatLinear<Avx512, DType::kBF16>::Call, Int8Linear<Avx512, DType::kQ8_0>::Call,
            Int8Linear<Avx512, DType::kQ4_0>::Call, Int8Linear<Avx512, DType::kQ4_1>::Call,
            FloatLinear<Avx512, DType::kF8Channel>::Call,
            FloatLinear<Avx512, DType::kF8Block128>::Call,
            FloatLinear<Avx512, DType::kI8Channel>::Call, FloatLinear<Avx512, DType::kI4G128>::Call,
            FloatLinear<Avx512, DType::kI4G64>::Call, FloatLinear<Avx512, DType::kI4G128Zero>::Call,
            FloatLinear<Avx512, DType::kI4G64Zero>::Call}};

}  // namespace tessera::kernels::cpu
