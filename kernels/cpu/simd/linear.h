// The products of every weight type on one instruction set.
#pragma once

#include "kernels/cpu/simd/linear_float.h"
#include "kernels/cpu/simd/linear_int8.h"

namespace tessera::kernels::cpu {

template <class S, int kIndex = 0>
consteval LinearKernels AllLinear(LinearKernels kernels = {}) {
  if constexpr (kIndex < kWeightTypeCount) {
    constexpr auto kType = static_cast<DType>(kIndex);
    if constexpr (IsBlockFormat(kType)) {
      kernels.run[kIndex] = Int8Linear<S, kType>::Call;
    } else {
      kernels.run[kIndex] = FloatLinear<S, kType>::Call;
    }
    return AllLinear<S, kIndex + 1>(kernels);
  }
  return kernels;
}

}  // namespace tessera::kernels::cpu
