// Rows of activations as codes, for products of weights that are codes themselves. The matrix
// library and the kernels that cut a weight into pieces take a scale for each row; those whose rows
// of weights stay in one place (linear/skinny_whole.cuh, linear/skinny_i4_whole.cuh) one for each
// 128 columns of a row, which whoever makes the columns knows without the rest of the row.
#pragma once

#include <cstdint>

namespace tessera::kernels::cuda {

// scale = amax / 448 for e4m3, amax / 127 for int8; code = value / scale, to the nearest.
enum class CodeKind : uint8_t {
  kE4m3Rows,    // scales [rows]
  kE4m3Groups,  // scales [columns / kCodeGroup, rounded up][kCodeRows]
  // int8, the same scales. Of each 64 columns 16 t + 8 s + 4 h + {0, 2, 1, 3} lie at 32 s + 16 h +
  // 4 t + {0, 1, 2, 3}: as int4 weights meet them (linear/skinny_i4_whole.cuh).
  kInt8Groups,
};

inline constexpr int kCodeGroup = 128;  // columns
inline constexpr int kCodeRows = 64;    // at most, of groups

// Device pointers: codes [rows, width], at 16 bytes, and float32 scales. Null: none.
struct RowCodes {
  uint8_t* codes = nullptr;
  float* scales = nullptr;
  CodeKind kind = CodeKind::kE4m3Rows;
};

}  // namespace tessera::kernels::cuda
