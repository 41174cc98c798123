// How cpu/layout.h lays out a block format: its sizes and places, as constants.
#pragma once

#include <cstdint>

#include "kernels/block_format.h"
#include "kernels/cpu/micro.h"

namespace tessera::kernels::cpu {

inline constexpr uint32_t kGroup = 32;

// A unit is a block of 256, or two of 32 (the last alone when their number is odd): the codes of
// its groups of 32, then the integer scales, then d of each block, then m of each block.
struct BlockTile {
  // Codes of one group: those of one row lie in runs of 4 bytes, `kRunStride` apart. As places in
  // the row's bytes, run after run.
  CodePlace low;
  CodePlace high;
  uint32_t low_bytes = 0;    // of 16 rows of a group
  uint32_t group_bytes = 0;  // and the high bits
  uint32_t groups = 0;       // of a unit
  uint32_t blocks = 0;       // of a unit
  uint32_t sub_run = 0;      // bytes of integer scales that a row has side by side
  uint32_t sub_bytes = 0;    // of 16 rows of a unit
  uint32_t scale_bytes = 0;  // of 16 rows of a block
  uint32_t min_bytes = 0;
  uint32_t unit_bytes = 0;
  uint32_t single_bytes = 0;  // of a unit of one group
};

inline constexpr uint32_t kRunBytes = 4;
inline constexpr uint32_t kRunStride = kRunBytes * kTileRows;

// Evaluated by the compiler alone, so that no instruction set's file has a copy of it.
[[nodiscard]] constexpr CodePlace TilePlace(CodePlace canonical) {
  if (canonical.bits == 0) return {};
  return {0, canonical.bits, static_cast<uint8_t>(canonical.bits == 4 ? 16 : 4)};
}

[[nodiscard]] constexpr BlockTile BlockTileOf(DType dtype) {
  const BlockFormat format = BlockFormatOf(dtype);
  BlockTile tile;
  tile.low = TilePlace(format.low);
  tile.high = TilePlace(format.high);
  tile.low_bytes = kGroup * format.low.bits / 8 * kTileRows;
  tile.group_bytes = tile.low_bytes + kGroup * format.high.bits / 8 * kTileRows;
  tile.groups = format.elements == kGroup ? 2 : format.elements / kGroup;
  tile.blocks = format.elements == kGroup ? 2 : 1;
  tile.sub_run = format.sub_bytes % kRunBytes == 0 ? kRunBytes : 2;
  tile.sub_bytes = format.sub_bytes * kTileRows;
  tile.scale_bytes = format.scale_bytes * kTileRows;
  tile.min_bytes = format.has_min() ? 2 * kTileRows : 0;
  tile.unit_bytes = tile.groups * tile.group_bytes + tile.sub_bytes +
                    tile.blocks * (tile.scale_bytes + tile.min_bytes);
  tile.single_bytes = tile.group_bytes + 64;
  return tile;
}

}  // namespace tessera::kernels::cpu
