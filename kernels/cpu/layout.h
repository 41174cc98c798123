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
// Float types: [in][16] elements. Rows past `out` are zeros. Every part starts at a multiple of 64
// bytes (float16: 32).
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
// Row `row` of the packed weight as float32, times `scale`: d * q (+ m), then the scale, each
// rounded.
void ReadRow(DType dtype, uint64_t in, const std::byte* packed, uint64_t row, float scale,
             float* y);

}  // namespace tessera::kernels::cpu
