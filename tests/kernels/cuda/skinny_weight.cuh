// Random weights for kernels/cuda/linear/skinny.h: their bytes and what they stand for.
#pragma once

#include <cuda_fp16.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "kernels/cuda/linear/skinny_int4.h"
#include "kernels/weight_planes.h"
#include "tests/kernels/cuda/check_util.cuh"

namespace tessera::check {

inline float HalfToFloat(uint16_t bits) {
  __half half;
  std::memcpy(&half, &bits, sizeof(half));
  return __half2float(half);
}

inline float E4m3ToFloat(uint8_t code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  const float magnitude = exponent == 0 ? std::ldexp(float(mantissa), -9)
                                        : std::ldexp(float(8 + mantissa), exponent - 10);
  return code & 0x80 ? -magnitude : magnitude;
}

// A random weight: its canonical bytes on the host, what kernels read on the device, and values.
struct Weight {
  kernels::DType dtype;
  int out, in;
  std::vector<uint8_t> canonical;
  std::vector<double> values;  // [out, in]
  std::unique_ptr<DeviceBuffer<uint8_t>> device;

  Weight(kernels::DType type, int out_rows, int in_columns, Rng& rng)
      : dtype(type), out(out_rows), in(in_columns), values(size_t(out) * in) {
    if (dtype == kernels::DType::kBF16) {
      FillBf16(rng);
    } else {
      FillPlanes(rng);
    }
    Upload();
  }

  void FillBf16(Rng& rng) {
    canonical.resize(values.size() * 2);
    for (size_t i = 0; i < values.size(); ++i) {
      const uint16_t bits = ToBf16(rng.Normal());
      std::memcpy(&canonical[i * 2], &bits, 2);
      values[i] = BitsToFloat(bits);
    }
  }
  bool has_zeros() const {
    return dtype == kernels::DType::kI4G128Zero || dtype == kernels::DType::kI4G64Zero;
  }
  bool is_int4() const { return kernels::HasPlanes(dtype) && dtype >= kernels::DType::kI4G128; }

  void FillPlanes(Rng& rng) {
    const kernels::WeightPlanes planes = kernels::PlanesOf(dtype, out, in);
    canonical.assign(planes.bytes, 0);
    for (uint64_t i = 0; i < planes.codes_bytes; ++i) {
      uint8_t code = static_cast<uint8_t>(rng.Next() >> 56);
      if (!is_int4() && dtype != kernels::DType::kI8Channel && (code & 0x7f) == 0x7f) code ^= 1;
      if (dtype == kernels::DType::kI8Channel && code == 0x80) code = 0x81;
      canonical[i] = code;
    }
    for (uint64_t i = 0; i < planes.scales_bytes; i += is_int4() ? 2 : 4) {
      const float scale = 0.002f + 0.02f * rng.Uniform();
      if (is_int4()) {
        const __half half = __float2half_rn(scale);
        std::memcpy(&canonical[planes.scales_offset + i], &half, 2);
      } else {
        std::memcpy(&canonical[planes.scales_offset + i], &scale, 4);
      }
    }
    for (uint64_t i = 0; i < planes.zeros_bytes; ++i) {
      canonical[planes.zeros_offset + i] = static_cast<uint8_t>(rng.Below(16));
    }
    for (int row = 0; row < out; ++row) {
      for (int k = 0; k < in; ++k) values[size_t(row) * in + k] = ValueAt(planes, row, k);
    }
  }

  double ValueAt(const kernels::WeightPlanes& planes, int row, int k) const {
    const size_t index = size_t(row) * in + k;
    const int group =
        kernels::ScaleGroup(dtype) == 0 ? in : static_cast<int>(kernels::ScaleGroup(dtype));
    const size_t groups = (in + group - 1) / group;
    const size_t place =
        (dtype == kernels::DType::kF8Block128 ? row / 128 : row) * groups + k / group;
    if (is_int4()) {
      uint16_t bits;
      std::memcpy(&bits, &canonical[planes.scales_offset + place * 2], 2);
      const int code = canonical[index / 2] >> (index % 2 * 4) & 15;
      const int zero = has_zeros() ? canonical[planes.zeros_offset + place] : 8;
      return double{HalfToFloat(bits)} * (code - zero);
    }
    float scale;
    std::memcpy(&scale, &canonical[planes.scales_offset + place * 4], 4);
    const uint8_t code = canonical[index];
    return double{scale} *
           (dtype == kernels::DType::kI8Channel ? int(int8_t(code)) : double{E4m3ToFloat(code)});
  }

  // Packed where the device wants it, and unpacked again to see that nothing was lost.
  void Upload() {
    std::vector<uint8_t> bytes = canonical;
    if (is_int4()) {
      bytes.assign(kernels::cuda::PackedInt4Bytes(dtype, out, in), 0xff);
      kernels::cuda::PackInt4(dtype, out, in, reinterpret_cast<const std::byte*>(canonical.data()),
                              reinterpret_cast<std::byte*>(bytes.data()));
      std::vector<uint8_t> back(canonical.size(), 0xff);
      kernels::cuda::UnpackInt4(dtype, out, in, reinterpret_cast<const std::byte*>(bytes.data()),
                                reinterpret_cast<std::byte*>(back.data()));
      if (back != canonical) {
        std::fprintf(stderr, "packing lost something\n");
        std::exit(1);
      }
    }
    device = std::make_unique<DeviceBuffer<uint8_t>>(bytes);
  }
  const std::byte* data() const { return reinterpret_cast<const std::byte*>(device->get()); }
};

}  // namespace tessera::check
