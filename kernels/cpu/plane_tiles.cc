#include "kernels/cpu/plane_tiles.h"

#include <cstring>

#include "kernels/cpu/layout.h"
#include "kernels/cpu/micro.h"
#include "kernels/weight_planes.h"

namespace tessera::kernels::cpu {
namespace {

bool IsInt4(DType dtype) { return InfoOf(dtype).block_elements > 1; }

// Columns of scales of a row: one, or one a group.
uint64_t GroupsOf(DType dtype, uint64_t in) {
  const uint64_t group = ScaleGroup(dtype);
  return group == 0 ? 1 : (in + group - 1) / group;
}

template <bool kPack>
struct Mover {
  template <typename Canonical, typename Packed>
  void operator()(Canonical* canonical, Packed* packed, uint64_t bytes) const {
    if constexpr (kPack) {
      std::memcpy(packed, canonical, bytes);
    } else {
      std::memcpy(canonical, packed, bytes);
    }
  }
};

// One row of canonical planes <-> lane row % 16 of its tile.
template <bool kPack, typename Canonical, typename Packed>
void MovePlanes(DType dtype, uint64_t out, uint64_t in, Canonical* canonical, Packed* packed) {
  constexpr Mover<kPack> kMove;
  const WeightPlanes planes = PlanesOf(dtype, out, in);
  const PlaneTile place = PlaneTileOf(dtype, in);
  const uint64_t code_bytes = IsInt4(dtype) ? in / 2 : in;
  const uint64_t groups = GroupsOf(dtype, in);
  const uint64_t scale_bytes = IsInt4(dtype) ? 2 : 4;
  for (uint64_t row = 0; row < out; ++row) {
    const uint64_t lane = row % kTileRows;
    Packed* tile = packed + row / kTileRows * place.bytes;
    Canonical* codes = canonical + row * code_bytes;
    for (uint64_t i = 0; i < code_bytes; ++i) {
      kMove(codes + i, tile + i * kTileRows + lane, 1);
    }
    if (dtype == DType::kF8Block128) {
      Canonical* scales = canonical + planes.scales_offset + row / 128 * groups * 4;
      if (lane == 0) kMove(scales, tile + place.scales, groups * 4);
      continue;
    }
    Canonical* scales = canonical + planes.scales_offset + row * groups * scale_bytes;
    for (uint64_t g = 0; g < groups; ++g) {
      kMove(scales + g * scale_bytes, tile + place.scales + (g * kTileRows + lane) * scale_bytes,
            scale_bytes);
      if (planes.zeros_bytes == 0) continue;
      kMove(canonical + planes.zeros_offset + row * groups + g,
            tile + place.zeros + g * kTileRows + lane, 1);
    }
  }
}

float ReadF32(const std::byte* p) {
  float value;
  std::memcpy(&value, p, sizeof(value));
  return value;
}

float ReadF16(const std::byte* p) {
  uint16_t bits;
  std::memcpy(&bits, p, sizeof(bits));
  return F16ToF32(bits);
}

float ScaleAt(DType dtype, const std::byte* scales, uint64_t group, uint64_t lane) {
  if (IsInt4(dtype)) return ReadF16(scales + (group * kTileRows + lane) * 2);
  return ReadF32(scales + (dtype == DType::kF8Block128 ? group : lane) * 4);
}

}  // namespace

PlaneTile PlaneTileOf(DType dtype, uint64_t in) {
  const uint64_t groups = GroupsOf(dtype, in);
  PlaneTile place;
  place.scales = (IsInt4(dtype) ? in / 2 : in) * kTileRows;
  const uint64_t scale_bytes = IsInt4(dtype)                 ? groups * kTileRows * 2
                               : dtype == DType::kF8Block128 ? groups * 4
                                                             : kTileRows * 4;
  place.zeros = place.scales + scale_bytes;
  const bool zeros = dtype == DType::kI4G128Zero || dtype == DType::kI4G64Zero;
  place.bytes = (place.zeros + (zeros ? groups * kTileRows : 0) + 63) / 64 * 64;
  return place;
}

void PackPlanes(DType dtype, uint64_t out, uint64_t in, const std::byte* canonical,
                std::byte* packed) {
  MovePlanes<true>(dtype, out, in, canonical, packed);
}

void UnpackPlanes(DType dtype, uint64_t out, uint64_t in, const std::byte* packed,
                  std::byte* canonical) {
  std::memset(canonical, 0, PlanesOf(dtype, out, in).bytes);
  MovePlanes<false>(dtype, out, in, canonical, packed);
}

void ReadPlanesRow(DType dtype, uint64_t in, const std::byte* tile, uint64_t lane, float scale,
                   float* y) {
  const PlaneTile place = PlaneTileOf(dtype, in);
  const uint64_t group = ScaleGroup(dtype) == 0 ? in : ScaleGroup(dtype);
  const bool zeros = dtype == DType::kI4G128Zero || dtype == DType::kI4G64Zero;
  for (uint64_t k = 0; k < in; ++k) {
    const float s = ScaleAt(dtype, tile + place.scales, k / group, lane);
    const auto byte = static_cast<uint8_t>(tile[(IsInt4(dtype) ? k / 2 : k) * kTileRows + lane]);
    float code;
    if (IsInt4(dtype)) {
      const int zero =
          zeros ? static_cast<int>(tile[place.zeros + k / group * kTileRows + lane]) : 8;
      code = static_cast<float>((k % 2 == 0 ? byte & 15 : byte >> 4) - zero);
    } else {
      code = dtype == DType::kI8Channel ? static_cast<float>(static_cast<int8_t>(byte))
                                        : F8E4M3ToF32(byte);
    }
    const float value = s * code;
    y[k] = value * scale;
  }
}

}  // namespace tessera::kernels::cpu
