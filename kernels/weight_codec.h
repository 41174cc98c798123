// Weights to float32 and back, by the canonical bytes of each type (dtype.h, weight_planes.h). For
// making weights, not for a step.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/dtype.h"

namespace tessera::kernels {

// Row `row` of a weight [out, in] of any weight type, as Linear reads it: [in] floats.
void DecodeRow(DType dtype, uint64_t out, uint64_t in, const std::byte* canonical, uint64_t row,
               float* values);

// Rows are encoded in bands, so that the scales of kF8Block128 fall into one.
inline constexpr uint64_t kBandRows = 128;

// BF16, the block formats and the types with planes.
[[nodiscard]] bool HasEncoder(DType dtype);
// What rows that have no whole blocks of 256 take instead: a format with blocks of 32 and no fewer
// bits. `dtype` itself where its blocks are no such.
[[nodiscard]] DType WithBlocksOf32(DType dtype);

// Writes rows [row, row + rows) of a weight [out, in]; `values` is [rows, in], finite; `row` is a
// multiple of kBandRows and `rows` is kBandRows or all that is left. Quotients are float32 ones,
// rounded to the nearest code, ties to even:
//   BF16          to nearest even
//   F8_*, I8_*    scale = largest magnitude / 448 (127), of the row or the 128 x 128
//   I4_*          scale = f16(largest magnitude / 7 * f), of each group
//   I4_*_ZERO     scale = f16((high - low) / 15 * f), zero = round(-low * f / scale), where low and
//                 high are the group's least and largest value and 0
// with the f of 1, 0.95, …, 0.7 that gives the least squared error, the first of equals. Block
// formats: block_encoder.h. A scale of 0 (all zeros, or too small for float16) has codes that mean
// 0. The gaps between planes, and the rest of `canonical`, are not written.
void EncodeBand(DType dtype, uint64_t out, uint64_t in, uint64_t row, uint64_t rows,
                const float* values, std::byte* canonical);

}  // namespace tessera::kernels
