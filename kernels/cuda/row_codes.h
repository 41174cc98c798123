// Rows of activations as e4m3 codes, for products of e4m3 weights. The matrix library and the
// kernels that cut a weight into pieces take a scale for each row; those whose rows of weights stay
// in one place (linear/skinny_whole.cuh) one for each 128 columns of a row, which whoever makes the
// columns knows without the rest of the row.
#pragma once

#include <cstdint>

namespace tessera::kernels::cuda {

// What a scale is of.
enum class CodeScales : uint8_t {
  kRow,    // float32 [rows]
  kGroup,  // float32 [columns / kCodeGroup, rounded up][kCodeRows]
};

inline constexpr int kCodeGroup = 128;  // columns
inline constexpr int kCodeRows = 64;    // at most, of CodeScales::kGroup

// Device pointers: codes [rows, width], at 16 bytes, and scales of kGroup. Null: none.
struct GroupCodes {
  uint8_t* codes = nullptr;
  float* scales = nullptr;
};

}  // namespace tessera::kernels::cuda
