// "cpu.tile16.v1": the packed weight layout of the CPU backend. Sixteen output rows form a tile, so
// that one vector holds sixteen outputs; tiles follow each other and each is read once, front to
// back.
//
// Block formats, for each pair of groups of 32 (the last group alone when their number is odd):
//   quants of each group: for each 4 neighbouring k, 16 outputs x 4 bytes
//     Q8_0: 8 x 64 bytes, int8 + 128; Q4: 4 x 64 bytes, low nibbles k = 4j.., high nibbles 16 +
//     4j..
//   scales: f16 [2][16]; Q4_1: then minima f16 [2][16]
//   (odd last group: scales f16 [16], then minima f16 [16] or 32 zero bytes)
// Float types: [in][16] elements.
//
// Types with planes (weight_planes.h), one part after the other:
//   codes   8 bits: [in][16]; 4 bits: [in / 2][16] bytes, the low nibble the first of two k
//   scales  by row: f32 [16]; by 128 x 128: f32 [ceil(in / 128)], in each of the tiles that share
//           them; by group: f16 [groups][16]
//   zeros   uint8 [groups][16]
//
// Rows past `out` are zeros. Every part starts at a multiple of 64 bytes (float16: 32; scales and
// zeros of planes: 16).
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
// Row `row` of the packed weight as float32, times `scale`: d * q (+ m) or s * (c - z), then the
// scale, each rounded.
void ReadRow(DType dtype, uint64_t in, const std::byte* packed, uint64_t row, float scale,
             float* y);

}  // namespace tessera::kernels::cpu
