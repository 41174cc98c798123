// How e4m3 codes of activations are made. Device code.
#pragma once

#include <cuda_fp8.h>

#include <cstdint>

#include "kernels/cuda/ops/weight_decode.cuh"
#include "kernels/cuda/row_codes.h"

namespace tessera::kernels::cuda {

// scale = amax / 448, code = e4m3(value * (448 / amax)); below 1e-35 both are 0. What is no number
// or infinite makes the scale so.
struct CodeScale {
  float scale, factor;

  // `largest`: bits of the largest magnitude, ordered as integers.
  __device__ __forceinline__ explicit CodeScale(uint32_t largest) {
    constexpr float kSmallestAmax = 1e-35f;  // below this 448 / amax is no finite float
    constexpr float kLargestE4m3 = 448.0f;
    float amax = __uint_as_float(largest);
    if (amax < kSmallestAmax) amax = 0;
    scale = amax * (1.0f / kLargestE4m3);
    // Not divided: that takes longer than all else here.
    factor = amax == 0 ? 0.0f : kLargestE4m3 * __frcp_rn(amax);
  }
};

// The larger of two pairs of bf16, each by its bits without the sign; and the larger of a pair, as
// float32.
__device__ __forceinline__ uint32_t LargerBits(uint32_t largest, uint32_t pair) {
  return __vmaxu2(largest, pair & 0x7fff7fffu);
}
__device__ __forceinline__ uint32_t LargestOfPair(uint32_t pairs) {
  return max(pairs << 16, pairs & 0xffff0000u);
}

__device__ __forceinline__ uint16_t PackE4m3(float2 v, float factor) {
  return __nv_cvt_float2_to_fp8x2(make_float2(v.x * factor, v.y * factor), __NV_SATFINITE,
                                  __NV_E4M3);
}
__device__ __forceinline__ uint32_t PackE4m3(float4 v, float factor) {
  const uint32_t low = PackE4m3(make_float2(v.x, v.y), factor);
  const uint32_t high = PackE4m3(make_float2(v.z, v.w), factor);
  return low | high << 16;
}
// Of four elements of bf16, two a word.
__device__ __forceinline__ uint32_t PackE4m3(uint32_t low, uint32_t high, float factor) {
  const float2 a = Bf16Pair(low), b = Bf16Pair(high);
  return PackE4m3(make_float4(a.x, a.y, b.x, b.y), factor);
}

}  // namespace tessera::kernels::cuda
