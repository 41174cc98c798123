#include "kernels/cpu/layout.h"

#include <algorithm>
#include <cstring>

#include "kernels/block_codec.h"
#include "kernels/cpu/block_tile.h"
#include "kernels/cpu/micro.h"
#include "kernels/cpu/plane_tiles.h"
#include "kernels/weight_planes.h"

namespace tessera::kernels::cpu {
namespace {

// Where the parts of one block lie inside a tile.
struct BlockPlace {
  uint64_t codes;
  uint64_t sub;
  uint64_t scales;
  uint64_t minima;
};

template <DType kType>
constexpr BlockPlace PlaceOf(uint64_t block, uint64_t blocks) {
  constexpr BlockTile kTile = BlockTileOf(kType);
  const uint64_t slot = block % kTile.blocks;
  const uint64_t base = block / kTile.blocks * kTile.unit_bytes;
  const bool single = kTile.blocks == 2 && slot == 0 && block + 1 == blocks;
  const uint64_t in_unit = single ? 1 : kTile.blocks;
  const uint64_t groups = kTile.groups / kTile.blocks;
  BlockPlace place;
  place.codes = base + slot * groups * kTile.group_bytes;
  place.sub = base + in_unit * groups * kTile.group_bytes;
  const uint64_t scales = place.sub + kTile.sub_bytes;
  place.scales = scales + slot * kTile.scale_bytes;
  place.minima = scales + in_unit * kTile.scale_bytes + slot * kTile.min_bytes;
  return place;
}

template <DType kType>
uint64_t BlocksTileBytes(uint64_t in) {
  constexpr BlockTile kTile = BlockTileOf(kType);
  const uint64_t groups = in / kGroup;
  return groups / kTile.groups * kTile.unit_bytes +
         (groups % kTile.groups != 0 ? kTile.single_bytes : 0);
}

// Bits of four codes, as they lie in row `lane` of a packed group.
template <CodePlace kPlace>
struct Lane {
  static constexpr uint64_t At(uint32_t step, uint64_t lane) {
    return kPlace.Byte(step * kStepElements) / kRunBytes * kRunStride + lane * kRunBytes;
  }
  static uint32_t Get(const std::byte* group, uint32_t step, uint64_t lane) {
    uint32_t word;
    std::memcpy(&word, group + At(step, lane), sizeof(word));
    constexpr uint32_t kMask = 0x01010101u * ((1u << kPlace.bits) - 1);
    return word >> kPlace.Shift(step * kStepElements) & kMask;
  }
  // Where there are zeros.
  static void Add(std::byte* group, uint32_t step, uint64_t lane, uint32_t codes) {
    uint32_t word;
    std::memcpy(&word, group + At(step, lane), sizeof(word));
    word |= codes << kPlace.Shift(step * kStepElements);
    std::memcpy(group + At(step, lane), &word, sizeof(word));
  }
};

// The codes of a block at `place`: from the block into the tile, or back into a block of zeros.
template <DType kType, CodePlace kCanonical, CodePlace kTile, bool kPack, typename Canonical,
          typename Packed>
void MoveCodes(Canonical* block, Packed* codes, uint64_t lane) {
  constexpr uint32_t kFlip = kType == DType::kQ8_0 ? 0x80808080u : 0;
  constexpr uint32_t kSteps = kGroup / kStepElements;
  for (uint32_t g = 0; g < BlockFormatOf(kType).elements / kGroup; ++g) {
    Packed* group = codes + uint64_t{g} * BlockTileOf(kType).group_bytes;
    for (uint32_t s = 0; s < kSteps; ++s) {
      if constexpr (kPack) {
        Lane<kTile>::Add(group, s, lane, StepCodes(kCanonical, block, g * kSteps + s) ^ kFlip);
      } else {
        AddStepCodes(kCanonical, block, g * kSteps + s, Lane<kTile>::Get(group, s, lane) ^ kFlip);
      }
    }
  }
}

template <bool kPack, typename Canonical, typename Packed>
void MoveBytes(Canonical* canonical, Packed* packed, size_t bytes) {
  if constexpr (kPack) {
    std::memcpy(packed, canonical, bytes);
  } else {
    std::memcpy(canonical, packed, bytes);
  }
}

// One canonical block <-> its place in row `lane` of a tile.
template <DType kType, bool kPack, typename Canonical, typename Packed>
void MoveBlock(Canonical* block, Packed* tile, const BlockPlace& place, uint64_t lane) {
  constexpr BlockFormat kFormat = BlockFormatOf(kType);
  constexpr BlockTile kTile = BlockTileOf(kType);
  MoveCodes<kType, kFormat.low, kTile.low, kPack>(block, tile + place.codes, lane);
  if constexpr (kFormat.high.bits != 0) {
    MoveCodes<kType, kFormat.high, kTile.high, kPack>(block, tile + place.codes + kTile.low_bytes,
                                                      lane);
  }
  for (uint32_t i = 0; i < kFormat.sub_bytes; i += kTile.sub_run) {
    MoveBytes<kPack>(block + kFormat.sub_at + i,
                     tile + place.sub + i * kTileRows + lane * kTile.sub_run, kTile.sub_run);
  }
  MoveBytes<kPack>(block + kFormat.scale_at, tile + place.scales + lane * kFormat.scale_bytes,
                   kFormat.scale_bytes);
  if constexpr (kFormat.has_min()) {
    MoveBytes<kPack>(block + kFormat.min_at, tile + place.minima + lane * 2, 2);
  }
}

// What is written must be zeros before.
template <bool kPack, typename Canonical, typename Packed>
void MoveBlocks(DType dtype, uint64_t out, uint64_t in, Canonical* canonical, Packed* packed) {
  WithBlockType(dtype, [&]<DType kType>() {
    constexpr BlockFormat kFormat = BlockFormatOf(kType);
    const uint64_t blocks = in / kFormat.elements;
    const uint64_t tile_bytes = BlocksTileBytes<kType>(in);
    for (uint64_t row = 0; row < out; ++row) {
      Packed* tile = packed + row / kTileRows * tile_bytes;
      for (uint64_t b = 0; b < blocks; ++b) {
        MoveBlock<kType, kPack>(canonical + (row * blocks + b) * kFormat.bytes, tile,
                                PlaceOf<kType>(b, blocks), row % kTileRows);
      }
    }
  });
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

void ReadBlocksRow(DType dtype, uint64_t in, const std::byte* tile, uint64_t lane, float scale,
                   float* y) {
  WithBlockType(dtype, [&]<DType kType>() {
    constexpr BlockFormat kFormat = BlockFormatOf(kType);
    const uint64_t blocks = in / kFormat.elements;
    for (uint64_t b = 0; b < blocks; ++b, y += kFormat.elements) {
      std::byte block[kFormat.bytes] = {};
      MoveBlock<kType, false>(block, tile, PlaceOf<kType>(b, blocks), lane);
      DecodeBlocks(kType, kFormat.elements, block, y);
      for (uint32_t k = 0; k < kFormat.elements; ++k) y[k] *= scale;
    }
  });
}

}  // namespace

uint64_t TileBytes(DType dtype, uint64_t in) {
  if (!IsWeightType(dtype)) return 0;
  if (in == 0 || in % InfoOf(dtype).block_elements != 0 || in > uint64_t{1} << 40) return 0;
  if (IsBlockFormat(dtype)) {
    uint64_t bytes = 0;
    WithBlockType(dtype, [&]<DType kType>() { bytes = BlocksTileBytes<kType>(in); });
    return bytes;
  }
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
    std::memset(canonical, 0, StorageBytes(dtype, out, in).value());
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
  ReadBlocksRow(dtype, in, tile, lane, scale, y);
}

}  // namespace tessera::kernels::cpu
