// Rotation of heads, for the kernel that does only that (rope_append.cu) and for attention that
// rotates what it reads (decode_append.cuh): a value's bits do not depend on which of them made it.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/ptx.cuh"
#include "kernels/ops/rope_append.h"

namespace tessera::kernels::cuda {

// The pair (a, b) turned by an angle, in float32.
__device__ __forceinline__ float2 RotatePair(float a, float b, float cosine, float sine) {
  return make_float2(__fmaf_rn(a, cosine, -__fmul_rn(b, sine)),
                     __fmaf_rn(b, cosine, __fmul_rn(a, sine)));
}

// Angles of one row.
struct RowAngles {
  const float* cosine;
  const float* sine;
  int32_t rotary_dim;  // a multiple of 16
  RopeStyle style;
};

// Eight neighbouring elements.
struct HeadChunk {
  float value[8];

  __device__ __forceinline__ static HeadChunk Of(const __nv_bfloat16* from) {
    const uint4 bits = *reinterpret_cast<const uint4*>(from);
    const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
    HeadChunk chunk;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 pair = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&words[i]));
      chunk.value[2 * i] = pair.x;
      chunk.value[2 * i + 1] = pair.y;
    }
    return chunk;
  }
  __device__ __forceinline__ uint4 ToBf16() const {
    return make_uint4(PackBf16(value[0], value[1]), PackBf16(value[2], value[3]),
                      PackBf16(value[4], value[5]), PackBf16(value[6], value[7]));
  }
};

// Elements `dim` (a multiple of 8) and on of the rotated head at `source`.
__device__ __forceinline__ HeadChunk RotatedChunk(const __nv_bfloat16* source, int dim,
                                                  const RowAngles& angles) {
  HeadChunk own = HeadChunk::Of(source + dim);
  if (dim >= angles.rotary_dim) return own;
  if (angles.style == RopeStyle::kInterleaved) {
    const float4 cosine = *reinterpret_cast<const float4*>(angles.cosine + dim / 2);
    const float4 sine = *reinterpret_cast<const float4*>(angles.sine + dim / 2);
    const float c[4] = {cosine.x, cosine.y, cosine.z, cosine.w};
    const float s[4] = {sine.x, sine.y, sine.z, sine.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 pair = RotatePair(own.value[2 * i], own.value[2 * i + 1], c[i], s[i]);
      own.value[2 * i] = pair.x;
      own.value[2 * i + 1] = pair.y;
    }
    return own;
  }
  const int half = angles.rotary_dim / 2;
  const bool second = dim >= half;
  const HeadChunk other = HeadChunk::Of(source + (second ? dim - half : dim + half));
  const int first_angle = second ? dim - half : dim;
#pragma unroll
  for (int i = 0; i < 8; i += 4) {
    const float4 cosine = *reinterpret_cast<const float4*>(angles.cosine + first_angle + i);
    const float4 sine = *reinterpret_cast<const float4*>(angles.sine + first_angle + i);
    const float c[4] = {cosine.x, cosine.y, cosine.z, cosine.w};
    const float s[4] = {sine.x, sine.y, sine.z, sine.w};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      float& x = own.value[i + j];
      x = second ? RotatePair(other.value[i + j], x, c[j], s[j]).y
                 : RotatePair(x, other.value[i + j], c[j], s[j]).x;
    }
  }
  return own;
}

}  // namespace tessera::kernels::cuda
