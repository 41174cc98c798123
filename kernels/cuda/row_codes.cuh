// How codes of activations are made. Device code.
#pragma once

#include <cuda_fp8.h>

#include <cstdint>

#include "kernels/cuda/ops/weight_decode.cuh"
#include "kernels/cuda/row_codes.h"

namespace tessera::kernels::cuda {

// The scale of codes, and what values are multiplied with; below an amax of 1e-35 both are 0. What
// is no number or infinite makes the scale so.
struct CodeScale {
  float scale, factor;

  // `largest`: bits of the largest magnitude, ordered as integers.
  __device__ __forceinline__ CodeScale(CodeKind kind, uint32_t largest) {
    constexpr float kSmallestAmax = 1e-35f;  // below this the factor is no finite float
    const float most = kind == CodeKind::kInt8Groups ? 127.0f : 448.0f;
    float amax = __uint_as_float(largest);
    if (amax < kSmallestAmax) amax = 0;
    scale = amax * (kind == CodeKind::kInt8Groups ? 1.0f / 127.0f : 1.0f / 448.0f);
    // Not divided: that takes longer than all else here.
    factor = amax == 0 ? 0.0f : most * __frcp_rn(amax);
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

__device__ __forceinline__ uint32_t PackE4m3(float4 v, float factor) {
  const uint32_t low =
      __nv_cvt_float2_to_fp8x2(make_float2(v.x * factor, v.y * factor), __NV_SATFINITE, __NV_E4M3);
  const uint32_t high =
      __nv_cvt_float2_to_fp8x2(make_float2(v.z * factor, v.w * factor), __NV_SATFINITE, __NV_E4M3);
  return low | high << 16;
}
// A word of int8 codes of four neighbouring columns, in CodeKind::kInt8Groups' order.
__device__ __forceinline__ uint32_t PackInt8(float4 v, float factor) {
  // The last bits of a float32 that 1.5 * 2^23 was added to are the rounded integer.
  constexpr float kMagic = 12582912.0f;
  const uint32_t x = __float_as_uint(fmaf(v.x, factor, kMagic));
  const uint32_t y = __float_as_uint(fmaf(v.y, factor, kMagic));
  const uint32_t z = __float_as_uint(fmaf(v.z, factor, kMagic));
  const uint32_t w = __float_as_uint(fmaf(v.w, factor, kMagic));
  return __byte_perm(__byte_perm(x, z, 0x0040), __byte_perm(y, w, 0x0040), 0x5410);
}
// Codes of four columns from `column`, a multiple of 4, on: into a row that begins at `row`.
__device__ __forceinline__ void StoreCodes(CodeKind kind, uint8_t* row, int column, float4 v,
                                           float factor) {
  int at = column;
  uint32_t word;
  if (kind == CodeKind::kInt8Groups) {
    at = (column & ~63) + (column >> 3 & 1) * 32 + (column >> 2 & 1) * 16 + (column >> 4 & 3) * 4;
    word = PackInt8(v, factor);
  } else {
    word = PackE4m3(v, factor);
  }
  *reinterpret_cast<uint32_t*>(row + at) = word;
}
// The same of bf16, two a word.
__device__ __forceinline__ void StoreCodes(CodeKind kind, uint8_t* row, int column, uint2 v,
                                           float factor) {
  const float2 a = Bf16Pair(v.x), b = Bf16Pair(v.y);
  StoreCodes(kind, row, column, make_float4(a.x, a.y, b.x, b.y), factor);
}

}  // namespace tessera::kernels::cuda
