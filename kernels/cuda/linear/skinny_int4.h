// "cuda.int4.v5": how the device keeps int4 weights (host and device code). Lossless; as many bytes
// as the canonical planes where out is a multiple of 16 and in one of 128.
//
// Rows are cut into panels of 64 (the last has what is left, rounded up to 16), a panel along `in`
// into runs of 128 columns, and a run into records of 16 rows. Records lie one after another: panel
// by panel, within one by column, within a run by row. A record holds
//   codes   two halves of 64 columns; a half is [16, 32 bytes]
//   scales  f16 [128 / group, 16]
//   zeros   uint8 [128 / group, 16], only with zero points
// Rows past `out` and columns past `in` have code 0, scale 0, zero point 0.
// A 32-bit word has eight columns of a row, in four pairs of neighbours half a word apart: columns
// 0, 2, 1 and 3 in the low halves of its bytes, 4, 6, 5 and 7 in the high ones. So either four
// columns are four bytes under a mask, the high ones times 16.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/kv_layout.h"
#include "kernels/dtype.h"
#include "kernels/weight_planes.h"

namespace tessera::kernels::cuda {

inline constexpr const char* kInt4Layout = "cuda.int4.v5";
inline constexpr uint32_t kInt4PanelRows = 64;
inline constexpr uint32_t kInt4RecordRows = 16;
inline constexpr uint32_t kInt4RecordColumns = 128;

// The parts of one record, in bytes.
struct Int4Record {
  uint32_t scales;  // offset of the scales
  uint32_t zeros;   // offset of the zero points; the end where there are none
  uint32_t bytes;
};

TESSERA_HOST_DEVICE constexpr Int4Record Int4RecordOf(uint32_t group, bool has_zeros) {
  const uint32_t groups = kInt4RecordColumns / group;
  const uint32_t scales = kInt4RecordRows * kInt4RecordColumns / 2;
  const uint32_t zeros = scales + groups * kInt4RecordRows * 2;
  return {scales, zeros, zeros + (has_zeros ? groups * kInt4RecordRows : 0)};
}

// Records that a run of the panel of `row` has.
TESSERA_HOST_DEVICE constexpr uint32_t Int4RunRecords(uint32_t out, uint32_t row) {
  const uint32_t left = out - row / kInt4PanelRows * kInt4PanelRows;
  return left >= kInt4PanelRows ? 4 : (left + kInt4RecordRows - 1) / kInt4RecordRows;
}

// Bytes from the weight's start to the record of `row` and `column`. The next one along `in` lies
// Int4RunRecords of them further.
TESSERA_HOST_DEVICE constexpr uint64_t Int4RecordOffset(uint32_t row, uint32_t column, uint32_t out,
                                                        uint32_t in, uint32_t record_bytes) {
  const uint64_t runs = (in + kInt4RecordColumns - 1) / kInt4RecordColumns;
  const uint64_t before = row / kInt4PanelRows * runs * 4 +
                          column / kInt4RecordColumns * Int4RunRecords(out, row) +
                          row % kInt4PanelRows / kInt4RecordRows;
  return before * record_bytes;
}

// Place of one code inside its record: the first byte of its word, and the bit that it begins at.
struct Int4Place {
  uint32_t byte;
  uint32_t bit;
};
TESSERA_HOST_DEVICE constexpr Int4Place Int4PlaceOf(uint32_t row, uint32_t column) {
  const uint32_t half = column / 64 % 2, k = column % 64;
  return {(half * kInt4RecordRows + row % kInt4RecordRows) * 32 + k / 8 * 4,
          8 * (k / 2 % 2) + 4 * (k / 4 % 2) + 16 * (k % 2)};
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
