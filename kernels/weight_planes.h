// Where the planes of a weight lie that keeps codes and scales apart: canonical bytes, which are
// also what kernels read unless a backend rearranges them.
//
// A weight [out, in] is its codes, then its scales, then its zero points; each plane is row-major
// and begins at a multiple of 16 bytes, with zeros between.
//   kF8Channel    e4m3 [out, in]; float32 [out]                                  w = s * c
//   kF8Block128   e4m3 [out, in]; float32 [ceil(out / 128), ceil(in / 128)]      w = s * c
//   kI8Channel    int8 [out, in], -127..127; float32 [out]                       w = s * c
//   kI4G128 (64)  4 bits [out, in / 2], low nibble first; f16 [out, in / 128]    w = s * (c - 8)
//   kI4G128Zero   the same, then uint8 [out, in / 128], 0..15                    w = s * (c - z)
// e4m3 is the format without infinities: largest 448, 0x7f and 0xff not a number. Int4 types want
// `in` to be a multiple of their group.
#pragma once

#include <cstdint>

#include "kernels/dtype.h"

namespace tessera::kernels {

struct WeightPlanes {
  uint64_t codes_bytes = 0;
  uint64_t scales_offset = 0;
  uint64_t scales_bytes = 0;
  uint64_t zeros_offset = 0;
  uint64_t zeros_bytes = 0;  // 0: no such plane
  uint64_t bytes = 0;        // of the whole
};

[[nodiscard]] constexpr bool HasPlanes(DType dtype) {
  return dtype >= DType::kF8Channel && dtype <= DType::kI4G64Zero;
}

// Elements of a row that share a scale; 0 where a row has one.
[[nodiscard]] constexpr uint32_t ScaleGroup(DType dtype) {
  switch (dtype) {
    case DType::kF8Block128:
    case DType::kI4G128:
    case DType::kI4G128Zero:
      return 128;
    case DType::kI4G64:
    case DType::kI4G64Zero:
      return 64;
    default:
      return 0;
  }
}

// `out` and `in` below 2^31; `in` a multiple of the group for int4 types.
[[nodiscard]] constexpr WeightPlanes PlanesOf(DType dtype, uint64_t out, uint64_t in) {
  const auto padded = [](uint64_t bytes) { return (bytes + 15) / 16 * 16; };
  WeightPlanes planes;
  switch (dtype) {
    case DType::kF8Channel:
    case DType::kI8Channel:
      planes.codes_bytes = out * in;
      planes.scales_bytes = out * 4;
      break;
    case DType::kF8Block128:
      planes.codes_bytes = out * in;
      planes.scales_bytes = (out + 127) / 128 * ((in + 127) / 128) * 4;
      break;
    case DType::kI4G128Zero:
    case DType::kI4G64Zero:
      planes.zeros_bytes = out * (in / ScaleGroup(dtype));
      [[fallthrough]];
    case DType::kI4G128:
    case DType::kI4G64:
      planes.codes_bytes = out * (in / 2);
      planes.scales_bytes = out * (in / ScaleGroup(dtype)) * 2;
      break;
    default:
      return planes;
  }
  planes.scales_offset = padded(planes.codes_bytes);
  planes.zeros_offset = padded(planes.scales_offset + planes.scales_bytes);
  planes.bytes = planes.zeros_bytes == 0 ? planes.scales_offset + planes.scales_bytes
                                         : planes.zeros_offset + planes.zeros_bytes;
  return planes;
}

}  // namespace tessera::kernels
