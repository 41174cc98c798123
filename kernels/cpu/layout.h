// "cpu.tile16.v1": the packed weight layout of the CPU backend. Sixteen output rows form a tile, so
// that one vector holds sixteen outputs; tiles follow each other and each is read once, front to
// back.
//
// Block formats, for each block of 256 or pair of blocks of 32 (the last alone when their number is
// odd):
//   codes of each group of 32, their low bits, then their high bits (block_format.h); 4
//   neighbouring k make a step, a row's 4 bytes are side by side, 16 rows make 64 bytes
//     8 bits: step s in 64 bytes of its own, Q8_0's + 128
//     4 bits: steps s and s + 4 in low and high nibbles
//     2 bits: steps s / 4 * 4 ... + 3, the first lowest;  1 bit: all steps, the first lowest
//   integer scales: the canonical bytes, a row's 4 (IQ4_XS: 2) side by side
//   d [blocks][16], then m [blocks][16]; an odd last block of 32 has 64 bytes for both
// Float types: [in][16] elements.
//
// Types with planes (weight_planes.h), one part after the other:
//   codes   8 bits: [in][16]; 4 bits: [in / 2][16] bytes, the low nibble the first of two k
//   scales  by row: f32 [16]; by 128 x 128: f32 [ceil(in / 128)], in each of the tiles that share
//           them; by group: f16 [groups][16]
//   zeros   uint8 [groups][16]
//
// Rows past `out` are zeros. Every part starts at a multiple of 32 bytes (MXFP4's scales, scales
// and zeros of planes: 16).
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/dtype.h"

namespace tessera::kernels::cpu {

inline constexpr const char* kTile16 = "cpu.tile16.v1";

// Bytes of one tile; 0 where `in` has no such layout or the size overflows.
[[nodiscard]] uint64_t TileBytes(DType dtype, uint64_t in);
// Canonical row-major [out, in] to packed, and back: nothing is lost.
void PackTile16(DType dtype, uint64_t out, uint64_t in, const std::byte* canonical,
                std::byte* packed);
void UnpackTile16(DType dtype, uint64_t out, uint64_t in, const std::byte* packed,
                  std::byte* canonical);
// Where the parts of a tile of a type with planes lie, from its start.
struct PlaneTile {
  uint64_t scales = 0;
  uint64_t zeros = 0;
  uint64_t bytes = 0;
};
[[nodiscard]] PlaneTile PlaneTileOf(DType dtype, uint64_t in);
// Row `row` of the packed weight as float32 (weight_codec.h), times `scale`, each rounded.
void ReadRow(DType dtype, uint64_t in, const std::byte* packed, uint64_t row, float scale,
             float* y);

}  // namespace tessera::kernels::cpu
