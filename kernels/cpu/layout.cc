#include "kernels/cpu/layout.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/micro.h"
#include "kernels/cpu/plane_tiles.h"
#include "kernels/weight_planes.h"

namespace tessera::kernels::cpu {
namespace {

constexpr int kGroup = 32;

// Where the parts of one group lie inside a tile.
struct GroupPlace {
  uint64_t quants;
  uint64_t scales;
  uint64_t minima;
};

struct Format {
  uint64_t quant_bytes;       // of 16 rows of one group
  uint64_t canonical_quants;  // offset of the quants in a canonical block
  bool nibbles;
  bool minima;

  [[nodiscard]] uint64_t pair_bytes() const { return 2 * quant_bytes + (minima ? 128 : 64); }
  [[nodiscard]] uint64_t tile_bytes(uint64_t groups) const {
    return groups / 2 * pair_bytes() + groups % 2 * (quant_bytes + 64);
  }
  [[nodiscard]] GroupPlace Place(uint64_t group, uint64_t groups) const {
    const uint64_t base = group / 2 * pair_bytes();
    if (group + 1 == groups && groups % 2 == 1) {
      return {base, base + quant_bytes, base + quant_bytes + 32};
    }
    const uint64_t half = group % 2;
    const uint64_t tail = base + 2 * quant_bytes;
    return {base + half * quant_bytes, tail + half * 32, tail + 64 + half * 32};
  }
};

Format FormatOf(DType dtype) {
  if (dtype == DType::kQ8_0) return {512, 2, false, false};
  if (dtype == DType::kQ4_0) return {256, 2, true, false};
  return {256, 4, true, true};
}

// One canonical block <-> row `lane` of one packed group. The quants move in runs of 4 bytes;
// Q8_0's are biased, which the exclusive or both does and undoes.
template <bool kPack, typename Canonical, typename Packed>
void MoveBlock(const Format& format, const GroupPlace& place, int lane, Canonical* block,
               Packed* tile) {
  const auto move = [](auto* canonical, auto* packed, size_t bytes) {
    if constexpr (kPack) {
      std::memcpy(packed, canonical, bytes);
    } else {
      std::memcpy(canonical, packed, bytes);
    }
  };
  move(block, tile + place.scales + lane * 2, 2);
  if (format.minima) move(block + 2, tile + place.minima + lane * 2, 2);
  const int runs = format.nibbles ? 4 : 8;
  for (int j = 0; j < runs; ++j) {
    auto* canonical = block + format.canonical_quants + j * 4;
    auto* packed = tile + place.quants + j * 64 + lane * 4;
    move(canonical, packed, 4);
    if (format.nibbles) continue;
    for (int i = 0; i < 4; ++i) {
      if constexpr (kPack) {
        packed[i] ^= std::byte{0x80};
      } else {
        canonical[i] ^= std::byte{0x80};
      }
    }
  }
}

template <bool kPack, typename Canonical, typename Packed>
void MoveBlocks(DType dtype, uint64_t out, uint64_t in, Canonical* canonical, Packed* packed) {
  const Format format = FormatOf(dtype);
  const uint64_t groups = in / kGroup;
  const uint64_t block_bytes = InfoOf(dtype).block_bytes;
  for (uint64_t row = 0; row < out; ++row) {
    Packed* tile = packed + row / kTileRows * format.tile_bytes(groups);
    for (uint64_t g = 0; g < groups; ++g) {
      MoveBlock<kPack>(format, format.Place(g, groups), static_cast<int>(row % kTileRows),
                       canonical + (row * groups + g) * block_bytes, tile);
    }
  }
}

template <bool kPack, typename Canonical, typename Packed>
void MoveElements(uint64_t element, uint64_t out, uint64_t in, Canonical* canonical,
                  Packed* packed) {
  for (uint64_t row = 0; row < out; ++row) {
    Packed* tile = packed + row / kTileRows * in * kTileRows * element + row % kTileRows * element;
    for (uint64_t k = 0; k < in; ++k) {
      if constexpr (kPack) {
        std::memcpy(tile + k * kTileRows * element, canonical + (row * in + k) * element, element);
      } else {
        std::memcpy(canonical + (row * in + k) * element, tile + k * kTileRows * element, element);
      }
    }
  }
}

uint16_t Read16(const std::byte* p) {
  uint16_t bits;
  std::memcpy(&bits, p, 2);
  return bits;
}

void ReadFloatRow(DType dtype, uint64_t in, const std::byte* at, float scale, float* y) {
  const uint64_t step = kTileRows * InfoOf(dtype).block_bytes;
  for (uint64_t k = 0; k < in; ++k, at += step) {
    float value;
    if (dtype == DType::kF32) {
      std::memcpy(&value, at, 4);
    } else {
      value = dtype == DType::kF16 ? F16ToF32(Read16(at)) : BF16ToF32(Read16(at));
    }
    y[k] = value * scale;
  }
}

}  // namespace

uint64_t TileBytes(DType dtype, uint64_t in) {
  if (!IsWeightType(dtype)) return 0;
  if (in == 0 || in % InfoOf(dtype).block_elements != 0 || in > uint64_t{1} << 40) return 0;
  if (IsBlockFormat(dtype)) return FormatOf(dtype).tile_bytes(in / kGroup);
  if (HasPlanes(dtype)) return PlaneTileOf(dtype, in).bytes;
  return in * kTileRows * InfoOf(dtype).block_bytes;
}

void PackTile16(DType dtype, uint64_t out, uint64_t in, const std::byte* canonical,
                std::byte* packed) {
  std::memset(packed, 0, (out + kTileRows - 1) / kTileRows * TileBytes(dtype, in));
  if (IsBlockFormat(dtype)) {
    MoveBlocks<true>(dtype, out, in, canonical, packed);
  } else if (HasPlanes(dtype)) {
    PackPlanes(dtype, out, in, canonical, packed);
  } else {
    MoveElements<true>(InfoOf(dtype).block_bytes, out, in, canonical, packed);
  }
}

void UnpackTile16(DType dtype, uint64_t out, uint64_t in, const std::byte* packed,
                  std::byte* canonical) {
  if (IsBlockFormat(dtype)) {
    MoveBlocks<false>(dtype, out, in, canonical, packed);
  } else if (HasPlanes(dtype)) {
    UnpackPlanes(dtype, out, in, packed, canonical);
  } else {
    MoveElements<false>(InfoOf(dtype).block_bytes, out, in, canonical, packed);
  }
}

void ReadRow(DType dtype, uint64_t in, const std::byte* packed, uint64_t row, float scale,
             float* y) {
  const std::byte* tile = packed + row / kTileRows * TileBytes(dtype, in);
  const uint64_t lane = row % kTileRows;
  if (HasPlanes(dtype)) {
    ReadPlanesRow(dtype, in, tile, lane, scale, y);
    return;
  }
  if (!IsBlockFormat(dtype)) {
    ReadFloatRow(dtype, in, tile + lane * InfoOf(dtype).block_bytes, scale, y);
    return;
  }
  const Format format = FormatOf(dtype);
  const uint64_t groups = in / kGroup;
  const int bias = dtype == DType::kQ8_0 ? 128 : dtype == DType::kQ4_0 ? 8 : 0;
  for (uint64_t g = 0; g < groups; ++g, y += kGroup) {
    const GroupPlace place = format.Place(g, groups);
    const float d = F16ToF32(Read16(tile + place.scales + lane * 2));
    const float m = format.minima ? F16ToF32(Read16(tile + place.minima + lane * 2)) : 0.0f;
    for (int k = 0; k < kGroup; ++k) {
      const int in_run = format.nibbles ? k % 16 : k;
      const int byte =
          static_cast<int>(tile[place.quants + in_run / 4 * 64 + lane * 4 + in_run % 4]);
      const int q = !format.nibbles ? byte : k < 16 ? byte & 15 : byte >> 4;
      const float value = d * static_cast<float>(q - bias);
      y[k] = (format.minima ? value + m : value) * scale;
    }
  }
}

}  // namespace tessera::kernels::cpu
