// Weights of every type that the large products take, their rows and the float64 answer, on the
// host. For gemm_check.
#pragma once

#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels/weight_planes.h"
#include "tests/kernels/cuda/check_util.cuh"

namespace tessera::check {

using kernels::DType;

inline float E4m3ToFloat(uint8_t code) {
  return __half2float(__half(__nv_cvt_fp8_to_halfraw(code, __NV_E4M3)));
}
inline uint8_t FloatToE4m3(float value) {
  return __nv_cvt_float_to_fp8(value, __NV_SATFINITE, __NV_E4M3);
}

// Canonical bytes of a random weight [out, in].
struct HostWeight {
  DType dtype;
  int out, in;
  std::vector<uint8_t> bytes;

  HostWeight(DType type, int out_channels, int width, Rng& rng)
      : dtype(type), out(out_channels), in(width) {
    if (dtype == DType::kBF16) {
      bytes.resize(size_t{2} * out * in);
      auto* element = reinterpret_cast<uint16_t*>(bytes.data());
      for (size_t i = 0; i < size_t(out) * in; ++i) element[i] = ToBf16(0.05f * rng.Normal());
      return;
    }
    const kernels::WeightPlanes planes = kernels::PlanesOf(dtype, out, in);
    bytes.resize(planes.bytes);
    const bool e4m3 = dtype == DType::kF8Channel || dtype == DType::kF8Block128;
    for (size_t i = 0; i < planes.codes_bytes; ++i) {
      uint8_t code = static_cast<uint8_t>(rng.Next() >> 56);
      if (e4m3 && (code & 0x7f) == 0x7f) code = 0x30;
      if (dtype == DType::kI8Channel && code == 0x80) code = 0x81;
      bytes[i] = code;
    }
    const bool half = dtype >= DType::kI4G128;
    for (size_t i = 0; i < planes.scales_bytes / (half ? 2 : 4); ++i) {
      const float scale = (0.5f + rng.Uniform()) * (half ? 0.01f : 0.001f);
      const __half narrow = __float2half(scale);
      std::memcpy(&bytes[planes.scales_offset + i * (half ? 2 : 4)],
                  half ? static_cast<const void*>(&narrow) : &scale, half ? 2 : 4);
    }
    for (size_t i = 0; i < planes.zeros_bytes; ++i) {
      bytes[planes.zeros_offset + i] = static_cast<uint8_t>(rng.Below(16));
    }
  }

  // The row's elements, exactly.
  [[nodiscard]] std::vector<double> Row(int row) const {
    std::vector<double> values(in);
    const kernels::WeightPlanes planes = kernels::PlanesOf(dtype, out, in);
    for (int k = 0; k < in; ++k) {
      const size_t index = size_t(row) * in + k;
      if (dtype == DType::kBF16) {
        values[k] = BitsToFloat(reinterpret_cast<const uint16_t*>(bytes.data())[index]);
      } else if (dtype < DType::kI4G128) {
        const size_t scale = dtype == DType::kF8Block128
                                 ? size_t(row / 128) * ((in + 127) / 128) + k / 128
                                 : size_t(row);
        const double code = dtype == DType::kI8Channel ? static_cast<int8_t>(bytes[index])
                                                       : E4m3ToFloat(bytes[index]);
        values[k] = code * reinterpret_cast<const float*>(&bytes[planes.scales_offset])[scale];
      } else {
        const size_t group = index / kernels::ScaleGroup(dtype);
        const int code = bytes[index / 2] >> (index % 2 * 4) & 15;
        const int zero = planes.zeros_bytes == 0 ? 8 : bytes[planes.zeros_offset + group];
        const auto* scales = reinterpret_cast<const __half*>(&bytes[planes.scales_offset]);
        values[k] = (code - zero) * static_cast<double>(__half2float(scales[group]));
      }
    }
    return values;
  }
};

// A row of bf16, or what e4m3 keeps of it with a scale for each `group` elements.
inline std::vector<double> HostRow(const uint16_t* x, int in, int group) {
  std::vector<double> values(in);
  for (int begin = 0; begin < in; begin += group) {
    const int end = std::min(in, begin + group);
    float amax = 0;
    for (int k = begin; k < end; ++k) amax = std::fmax(amax, std::fabs(BitsToFloat(x[k])));
    for (int k = begin; k < end; ++k) {
      const float value = BitsToFloat(x[k]);
      values[k] = static_cast<double>(E4m3ToFloat(FloatToE4m3(value * (448.0f / amax)))) *
                  static_cast<double>(amax / 448.0f);
    }
  }
  return values;
}
inline std::vector<double> HostRow(const uint16_t* x, int in) {
  std::vector<double> values(in);
  for (int k = 0; k < in; ++k) values[k] = BitsToFloat(x[k]);
  return values;
}

inline double Dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace tessera::check
