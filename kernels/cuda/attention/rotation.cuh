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

  // Of bf16.
  __device__ __forceinline__ static HeadChunk Of(const uint4& bits) {
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

// The angles of the eight elements from `dim` (a multiple of 8) on; not read past the rotary ones.
struct ChunkAngles {
  float cosine[8];
  float sine[8];

  __device__ __forceinline__ static ChunkAngles Of(const RowAngles& row, int dim) {
    ChunkAngles angles{};
    if (dim >= row.rotary_dim) return angles;
    const bool in_halves = row.style == RopeStyle::kHalf;
    const int half = row.rotary_dim / 2;
    const int first = in_halves ? (dim >= half ? dim - half : dim) : dim / 2;
#pragma unroll
    for (int i = 0; i < 8; i += 4) {
      if (i == 4 && !in_halves) continue;
      const float4 cosine = *reinterpret_cast<const float4*>(row.cosine + first + i);
      const float4 sine = *reinterpret_cast<const float4*>(row.sine + first + i);
      angles.cosine[i] = cosine.x, angles.cosine[i + 1] = cosine.y;
      angles.cosine[i + 2] = cosine.z, angles.cosine[i + 3] = cosine.w;
      angles.sine[i] = sine.x, angles.sine[i + 1] = sine.y;
      angles.sine[i + 2] = sine.z, angles.sine[i + 3] = sine.w;
    }
    return angles;
  }
};

// Where the other elements of the pairs of those from `dim` on begin.
__device__ __forceinline__ int PartnerOf(int32_t rotary_dim, RopeStyle style, int dim) {
  if (style == RopeStyle::kInterleaved || dim >= rotary_dim) return dim;
  const int half = rotary_dim / 2;
  return dim >= half ? dim - half : dim + half;
}

// The eight elements from `dim` on of a head, rotated. `bits` and `partner` are they and those
// from PartnerOf on, in bf16.
__device__ __forceinline__ HeadChunk Rotated(const uint4& bits, const uint4& partner,
                                             const ChunkAngles& angles, int32_t rotary_dim,
                                             RopeStyle style, int dim) {
  HeadChunk own = HeadChunk::Of(bits);
  if (dim >= rotary_dim) return own;
  if (style == RopeStyle::kInterleaved) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 pair =
          RotatePair(own.value[2 * i], own.value[2 * i + 1], angles.cosine[i], angles.sine[i]);
      own.value[2 * i] = pair.x;
      own.value[2 * i + 1] = pair.y;
    }
    return own;
  }
  const HeadChunk other = HeadChunk::Of(partner);
  const bool second = dim >= rotary_dim / 2;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    float& x = own.value[i];
    x = second ? RotatePair(other.value[i], x, angles.cosine[i], angles.sine[i]).y
               : RotatePair(x, other.value[i], angles.cosine[i], angles.sine[i]).x;
  }
  return own;
}

}  // namespace tessera::kernels::cuda
