// Random weights of every type in canonical bytes, and what they mean in float64.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels/dtype.h"
#include "kernels/weight_planes.h"
#include "tests/kernels/cuda/check_util.cuh"

namespace tessera::check {

inline constexpr kernels::DType kWeightTypes[] = {
    kernels::DType::kF32,       kernels::DType::kF16,        kernels::DType::kBF16,
    kernels::DType::kQ8_0,      kernels::DType::kQ4_0,       kernels::DType::kQ4_1,
    kernels::DType::kF8Channel, kernels::DType::kF8Block128, kernels::DType::kI8Channel,
    kernels::DType::kI4G128,    kernels::DType::kI4G64,      kernels::DType::kI4G128Zero,
    kernels::DType::kI4G64Zero};

inline const char* TypeName(kernels::DType dtype) {
  static const char* const kNames[] = {"f32",    "f16",      "bf16",    "q8_0", "q4_0",
                                       "q4_1",   "f8",       "f8_128",  "i8",   "i4_g128",
                                       "i4_g64", "i4_g128z", "i4_g64z", "f8_kv"};
  return kNames[static_cast<int>(dtype)];
}

inline uint16_t Bf16Bits(float value) {
  const __nv_bfloat16 b = __float2bfloat16(value);
  uint16_t bits;
  std::memcpy(&bits, &b, 2);
  return bits;
}
inline uint16_t F16Bits(float value) {
  const __half h = __float2half(value);
  uint16_t bits;
  std::memcpy(&bits, &h, 2);
  return bits;
}
inline float F16Value(const uint8_t* p) {
  __half h;
  std::memcpy(&h, p, 2);
  return __half2float(h);
}
inline float E4m3Value(uint8_t code) {
  __nv_fp8_e4m3 e;
  e.__x = code;
  return float(e);
}

// Writes `value` as an element of a float type; returns what it became.
inline float EncodeElement(kernels::DType dtype, float value, uint8_t* to) {
  if (dtype == kernels::DType::kF32) {
    std::memcpy(to, &value, 4);
    return value;
  }
  if (dtype == kernels::DType::kF8E4M3) {
    const __nv_fp8_e4m3 e(value);
    *to = e.__x;
    return float(e);
  }
  const uint16_t bits = dtype == kernels::DType::kF16 ? F16Bits(value) : Bf16Bits(value);
  std::memcpy(to, &bits, 2);
  return dtype == kernels::DType::kF16 ? F16Value(to) : BitsToFloat(bits);
}

inline std::vector<uint8_t> RandomWeight(kernels::DType dtype, int out, int in, Rng& rng) {
  using kernels::DType;
  std::vector<uint8_t> bytes;
  const size_t count = size_t(out) * in;
  if (dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16) {
    const size_t element = dtype == DType::kF32 ? 4 : 2;
    bytes.resize(count * element);
    for (size_t i = 0; i < count; ++i) EncodeElement(dtype, rng.Normal(), &bytes[i * element]);
    return bytes;
  }
  if (!kernels::HasPlanes(dtype)) {
    const size_t block = dtype == DType::kQ8_0 ? 34 : dtype == DType::kQ4_0 ? 18 : 20;
    bytes.resize(count / 32 * block);
    for (auto& b : bytes) b = uint8_t(rng.Next());
    for (size_t i = 0; i < bytes.size(); i += block) {
      const uint16_t d = F16Bits(0.01f + 0.05f * rng.Uniform()), m = F16Bits(rng.Normal());
      std::memcpy(&bytes[i], &d, 2);
      if (dtype == DType::kQ4_1) std::memcpy(&bytes[i + 2], &m, 2);
    }
    return bytes;
  }
  const kernels::WeightPlanes planes = kernels::PlanesOf(dtype, out, in);
  bytes.assign(planes.bytes, 0);
  for (size_t i = 0; i < planes.codes_bytes; ++i) {
    uint8_t code = uint8_t(rng.Next());
    if (dtype == DType::kF8Channel || dtype == DType::kF8Block128) {
      code = (code & 0x7f) == 0x7f ? 0 : code;
    }
    if (dtype == DType::kI8Channel && code == 0x80) code = 0x81;
    bytes[i] = code;
  }
  const bool f16_scales = dtype >= DType::kI4G128;
  for (size_t i = 0; i < planes.scales_bytes; i += f16_scales ? 2 : 4) {
    EncodeElement(f16_scales ? DType::kF16 : DType::kF32, 0.01f + 0.05f * rng.Uniform(),
                  &bytes[planes.scales_offset + i]);
  }
  for (size_t i = 0; i < planes.zeros_bytes; ++i) bytes[planes.zeros_offset + i] = rng.Below(16);
  return bytes;
}

// Row-major [out, in].
inline std::vector<double> DecodeReference(kernels::DType dtype, const std::vector<uint8_t>& bytes,
                                           int out, int in) {
  using kernels::DType;
  std::vector<double> w(size_t(out) * in);
  const kernels::WeightPlanes planes = kernels::PlanesOf(dtype, out, in);
  const uint8_t* scales = bytes.data() + planes.scales_offset;
  for (size_t i = 0; i < w.size(); ++i) {
    const int row = int(i / in), k = int(i % in);
    const auto f32 = [](const uint8_t* p) {
      float v;
      std::memcpy(&v, p, 4);
      return double(v);
    };
    switch (dtype) {
      case DType::kF32:
        w[i] = f32(&bytes[4 * i]);
        break;
      case DType::kF16:
        w[i] = F16Value(&bytes[2 * i]);
        break;
      case DType::kBF16:
        w[i] = BitsToFloat(uint16_t(bytes[2 * i] | bytes[2 * i + 1] << 8));
        break;
      case DType::kQ8_0: {
        const uint8_t* b = &bytes[i / 32 * 34];
        w[i] = double(F16Value(b)) * int8_t(b[2 + i % 32]);
        break;
      }
      case DType::kQ4_0:
      case DType::kQ4_1: {
        const int header = dtype == DType::kQ4_0 ? 2 : 4;
        const uint8_t* b = &bytes[i / 32 * (16 + header)];
        const int nibble = i % 32 < 16 ? b[header + i % 32] & 15 : b[header + i % 16] >> 4;
        w[i] = dtype == DType::kQ4_0 ? double(F16Value(b)) * (nibble - 8)
                                     : double(F16Value(b)) * nibble + F16Value(b + 2);
        break;
      }
      case DType::kF8Channel:
        w[i] = f32(scales + 4 * row) * E4m3Value(bytes[i]);
        break;
      case DType::kF8Block128:
        w[i] = f32(scales + 4 * (row / 128 * ((in + 127) / 128) + k / 128)) * E4m3Value(bytes[i]);
        break;
      case DType::kI8Channel:
        w[i] = f32(scales + 4 * row) * int8_t(bytes[i]);
        break;
      default: {
        const size_t group = i / kernels::ScaleGroup(dtype);
        const int zero = planes.zeros_bytes > 0 ? bytes[planes.zeros_offset + group] : 8;
        const int nibble = i % 2 == 0 ? bytes[i / 2] & 15 : bytes[i / 2] >> 4;
        w[i] = double(F16Value(scales + 2 * group)) * (nibble - zero);
      }
    }
  }
  return w;
}

}  // namespace tessera::check
