// Weights of every type, read as float32 from their canonical bytes. Device code, and the host
// function that finds the planes.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cstddef>
#include <cstdint>

#include "kernels/weight_planes.h"

namespace tessera::kernels::cuda {

struct WeightView {
  const uint8_t* codes = nullptr;
  const uint8_t* scales = nullptr;
  const uint8_t* zeros = nullptr;
  int32_t in = 0;
};

inline WeightView ViewWeight(DType dtype, const std::byte* weight, int64_t out, int32_t in) {
  WeightView view;
  view.codes = reinterpret_cast<const uint8_t*>(weight);
  view.in = in;
  if (HasPlanes(dtype)) {
    const WeightPlanes planes =
        PlanesOf(dtype, static_cast<uint64_t>(out), static_cast<uint64_t>(in));
    view.scales = view.codes + planes.scales_offset;
    view.zeros = view.codes + planes.zeros_offset;
  }
  return view;
}

// `in` of a weight is a multiple of this; every decoder reads eight neighbours.
[[nodiscard]] constexpr int32_t InMultiple(DType dtype) {
  switch (dtype) {
    case DType::kQ8_0:
    case DType::kQ4_0:
    case DType::kQ4_1:
      return 32;
    case DType::kI4G128:
    case DType::kI4G128Zero:
      return 128;
    case DType::kI4G64:
    case DType::kI4G64Zero:
      return 64;
    default:
      return 8;
  }
}

// Calls use(DTypeTag<type>{}) for a weight type; false for another.
template <DType kType>
struct DTypeTag {
  static constexpr DType value = kType;
};
template <typename Use>
bool WithWeightType(DType dtype, Use use) {
  switch (dtype) {
#define TESSERA_WEIGHT_TYPE(type) \
  case DType::type:               \
    use(DTypeTag<DType::type>{}); \
    return true;
    TESSERA_WEIGHT_TYPE(kF32)
    TESSERA_WEIGHT_TYPE(kF16)
    TESSERA_WEIGHT_TYPE(kBF16)
    TESSERA_WEIGHT_TYPE(kQ8_0)
    TESSERA_WEIGHT_TYPE(kQ4_0)
    TESSERA_WEIGHT_TYPE(kQ4_1)
    TESSERA_WEIGHT_TYPE(kF8Channel)
    TESSERA_WEIGHT_TYPE(kF8Block128)
    TESSERA_WEIGHT_TYPE(kI8Channel)
    TESSERA_WEIGHT_TYPE(kI4G128)
    TESSERA_WEIGHT_TYPE(kI4G64)
    TESSERA_WEIGHT_TYPE(kI4G128Zero)
    TESSERA_WEIGHT_TYPE(kI4G64Zero)
#undef TESSERA_WEIGHT_TYPE
    default:
      return false;
  }
}

// As a constant, because device code calls no host function.
template <DType kType>
inline constexpr int kScaleGroupOf = static_cast<int>(ScaleGroup(kType));

#ifdef __CUDACC__

__device__ __forceinline__ float2 Bf16Pair(uint32_t bits) {
  return make_float2(__uint_as_float(bits << 16), __uint_as_float(bits & 0xffff0000u));
}
__device__ __forceinline__ float2 F16Pair(uint32_t bits) {
  return __half22float2(*reinterpret_cast<const __half2*>(&bits));
}
__device__ __forceinline__ float F16At(const uint8_t* p) {
  return __half2float(*reinterpret_cast<const __half*>(p));
}

template <DType kType>
__device__ __forceinline__ void DecodeFloats8(const WeightView& w, int64_t row, int32_t k,
                                              float (&v)[8]) {
  const int64_t at = row * w.in + k;
  if constexpr (kType == DType::kF32) {
    const float4* p = reinterpret_cast<const float4*>(w.codes) + at / 4;
    const float4 low = __ldg(p), high = __ldg(p + 1);
    v[0] = low.x, v[1] = low.y, v[2] = low.z, v[3] = low.w;
    v[4] = high.x, v[5] = high.y, v[6] = high.z, v[7] = high.w;
  } else {
    const uint4 raw = __ldg(reinterpret_cast<const uint4*>(w.codes) + at / 8);
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 pair = kType == DType::kBF16 ? Bf16Pair(words[i]) : F16Pair(words[i]);
      v[2 * i] = pair.x;
      v[2 * i + 1] = pair.y;
    }
  }
}

// Blocks of GGUF lie at multiples of 2 bytes only.
template <DType kType>
__device__ __forceinline__ void DecodeBlock8(const WeightView& w, int64_t row, int32_t k,
                                             float (&v)[8]) {
  constexpr int kBytes = kType == DType::kQ8_0 ? 34 : kType == DType::kQ4_0 ? 18 : 20;
  constexpr int kHeader = kType == DType::kQ4_1 ? 4 : 2;
  const uint8_t* block = w.codes + (row * (w.in / 32) + k / 32) * kBytes;
  const float d = F16At(block);
  const float m = kType == DType::kQ4_1 ? F16At(block + 2) : 0.0f;
  const int column = k % 32;
  const int first = kType == DType::kQ8_0 ? column : column % 16;
  const uint16_t* codes = reinterpret_cast<const uint16_t*>(block + kHeader + first);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t two = __ldg(codes + i);
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const uint32_t byte = two >> (8 * j) & 0xff;
      if constexpr (kType == DType::kQ8_0) {
        v[2 * i + j] = d * static_cast<float>(static_cast<int8_t>(byte));
      } else {
        const int nibble = static_cast<int>(column < 16 ? byte & 15 : byte >> 4);
        v[2 * i + j] = kType == DType::kQ4_0
                           ? d * static_cast<float>(nibble - 8)
                           : __fadd_rn(__fmul_rn(d, static_cast<float>(nibble)), m);
      }
    }
  }
}

template <DType kType>
__device__ __forceinline__ void DecodeBytes8(const WeightView& w, int64_t row, int32_t k,
                                             float (&v)[8]) {
  const float* scales = reinterpret_cast<const float*>(w.scales);
  const float s = kType == DType::kF8Block128
                      ? __ldg(scales + row / 128 * ((w.in + 127) / 128) + k / 128)
                      : __ldg(scales + row);
  const uint2 raw = __ldg(reinterpret_cast<const uint2*>(w.codes) + (row * w.in + k) / 8);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const uint32_t byte = (i < 4 ? raw.x : raw.y) >> (8 * (i % 4)) & 0xff;
    if constexpr (kType == DType::kI8Channel) {
      v[i] = s * static_cast<float>(static_cast<int8_t>(byte));
    } else {
      __nv_fp8_e4m3 code;
      code.__x = static_cast<__nv_fp8_storage_t>(byte);
      v[i] = s * static_cast<float>(code);
    }
  }
}

template <DType kType>
__device__ __forceinline__ void DecodeNibbles8(const WeightView& w, int64_t row, int32_t k,
                                               float (&v)[8]) {
  constexpr int kGroup = kScaleGroupOf<kType>;
  constexpr bool kZero = kType == DType::kI4G128Zero || kType == DType::kI4G64Zero;
  const int64_t group = row * (w.in / kGroup) + k / kGroup;
  const float s = F16At(w.scales + 2 * group);
  const int zero = kZero ? w.zeros[group] : 8;
  const uint32_t raw = __ldg(reinterpret_cast<const uint32_t*>(w.codes) + (row * w.in + k) / 8);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    v[i] = s * static_cast<float>(static_cast<int>(raw >> (4 * i) & 15) - zero);
  }
}

// Elements [row, k .. k + 7] as float32; k is a multiple of 8. One rounding where scale times code
// has more than 24 bits (a second one for Q4_1's minimum).
template <DType kType>
__device__ __forceinline__ void DecodeWeight8(const WeightView& w, int64_t row, int32_t k,
                                              float (&v)[8]) {
  if constexpr (kType == DType::kF32 || kType == DType::kF16 || kType == DType::kBF16) {
    DecodeFloats8<kType>(w, row, k, v);
  } else if constexpr (kType == DType::kQ8_0 || kType == DType::kQ4_0 || kType == DType::kQ4_1) {
    DecodeBlock8<kType>(w, row, k, v);
  } else if constexpr (kType == DType::kF8Channel || kType == DType::kF8Block128 ||
                       kType == DType::kI8Channel) {
    DecodeBytes8<kType>(w, row, k, v);
  } else {
    DecodeNibbles8<kType>(w, row, k, v);
  }
}

#endif  // __CUDACC__

}  // namespace tessera::kernels::cuda
