// "cuda.int4.v2": how the device keeps int4 weights (host and device code). Lossless; as many bytes
// as the canonical planes where out is a multiple of 16 and in one of 128.
//
// Rows are cut into panels of 64 (the last has what is left, rounded up to 16), a panel along `in`
// into records of 128 columns, and records lie one after another: panel by panel, within one by
// column. A record of `rows` rows holds
//   codes   two halves of 64 columns; a half is [rows, 32 bytes]
//   scales  f16 [128 / group, rows]
//   zeros   uint8 [128 / group, rows], only with zero points
// Rows past `out` and columns past `in` have code 0, scale 0, zero point 0.
// The nibbles of eight columns are ordered so that masking with 0x000f000f yields two neighbours:
// column k (0..63) of a half row is in its 32-bit word k / 8, nibble k / 2 % 4 + 4 * (k % 2).
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/kv_layout.h"
#include "kernels/dtype.h"
#include "kernels/weight_planes.h"

namespace tessera::kernels::cuda {

inline constexpr const char* kInt4Layout = "cuda.int4.v2";
inline constexpr uint32_t kInt4PanelRows = 64;
inline constexpr uint32_t kInt4RecordColumns = 128;

// The parts of one record, in bytes.
struct Int4Record {
  uint32_t rows;    // 16, 32, 48 or 64
  uint32_t scales;  // offset of the scales
  uint32_t zeros;   // offset of the zero points; the end where there are none
  uint32_t bytes;
};

TESSERA_HOST_DEVICE constexpr Int4Record Int4RecordOf(uint32_t rows, uint32_t group,
                                                      bool has_zeros) {
  const uint32_t groups = kInt4RecordColumns / group;
  Int4Record record{rows, rows * 64, 0, 0};
  record.zeros = record.scales + groups * rows * 2;
  record.bytes = record.zeros + (has_zeros ? groups * rows : 0);
  return record;
}

// Rows that the panel beginning at `row` keeps.
TESSERA_HOST_DEVICE constexpr uint32_t Int4PanelRows(uint32_t out, uint32_t row) {
  const uint32_t left = out - row;
  return left >= kInt4PanelRows ? kInt4PanelRows : (left + 15) / 16 * 16;
}

// Bytes from the weight's start to record `column / 128` of the panel of `row`. `record` is that
// panel's.
TESSERA_HOST_DEVICE constexpr uint64_t Int4RecordOffset(uint32_t row, uint32_t column, uint32_t in,
                                                        const Int4Record& record) {
  const uint64_t records = (in + kInt4RecordColumns - 1) / kInt4RecordColumns;
  const uint64_t full = uint64_t{record.bytes} / record.rows * kInt4PanelRows;
  return row / kInt4PanelRows * records * full + column / kInt4RecordColumns * record.bytes;
}

// Place of one code inside its record: byte, and the shift of its nibble.
struct Int4Place {
  uint32_t byte;
  uint32_t shift;
};
TESSERA_HOST_DEVICE constexpr Int4Place Int4PlaceOf(uint32_t row, uint32_t column,
                                                    const Int4Record& record) {
  const uint32_t r = row % kInt4PanelRows, half = column / 64 % 2, k = column % 64;
  const uint32_t word = k / 8, nibble = k / 2 % 4 + 4 * (k % 2);
  return {half * record.rows * 32 + r * 32 + word * 4 + nibble / 2, nibble % 2 * 4};
}

// Bytes of a packed weight; `dtype` is one of the four int4 types.
[[nodiscard]] uint64_t PackedInt4Bytes(DType dtype, uint64_t out, uint64_t in);

// Host memory on both sides: canonical planes (weight_planes.h) to the packed form and back.
// `packed` has PackedInt4Bytes, `canonical` PlanesOf(...).bytes, of which every byte is written.
void PackInt4(DType dtype, uint32_t out, uint32_t in, const std::byte* canonical,
              std::byte* packed);
void UnpackInt4(DType dtype, uint32_t out, uint32_t in, const std::byte* packed,
                std::byte* canonical);

}  // namespace tessera::kernels::cuda
