// The products of one family of weight types on one instruction set.
#pragma once

#include "kernels/cpu/simd/linear_float.h"
#include "kernels/cpu/simd/linear_int8.h"

namespace tessera::kernels::cpu {

template <class S, LinearFamily kFamily, int kIndex = 0>
constexpr LinearKernels LinearOf(LinearKernels kernels = {}) {
  if constexpr (kIndex < kWeightTypeCount) {
    constexpr auto kType = static_cast<DType>(kIndex);
    if constexpr (FamilyOf(kType) == kFamily) {
      if constexpr (kFamily == LinearFamily::kFloats) {
        kernels.run[kIndex] = FloatLinear<S, kType>::Call;
      } else {
        kernels.run[kIndex] = Int8Linear<S, kType>::Call;
      }
    }
    return LinearOf<S, kFamily, kIndex + 1>(kernels);
  }
  return kernels;
}

}  // namespace tessera::kernels::cpu
