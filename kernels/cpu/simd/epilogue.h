// What follows the sums of one row and 16 outputs: bias, addend, store or add.
#pragma once

#include "kernels/cpu/micro.h"
#include "kernels/cpu/simd/inline.h"

namespace tessera::kernels::cpu {

template <class S>
TESSERA_SIMD void Epilogue16(const LinearCall& c, int32_t tile, int32_t row, typename S::F acc) {
  const int32_t column = tile * kTileRows;
  const int32_t left = c.out - column;
  const int32_t to = c.y_rows != nullptr ? c.y_rows[row] : row;
  float* y = c.y + to * c.y_stride + column;
  const float* bias = c.bias != nullptr ? c.bias + column : nullptr;
  const float* addend = c.addend != nullptr ? c.addend + row * c.addend_stride + column : nullptr;
  if (left >= kTileRows) [[likely]] {
    if (bias != nullptr) acc = S::Add(acc, S::Load(bias));
    if (addend != nullptr) acc = S::Add(acc, S::Load(addend));
    if (c.accumulate != 0) acc = S::Add(S::Load(y), acc);
    S::Store(y, acc);
  } else {
    if (bias != nullptr) acc = S::Add(acc, S::LoadN(bias, left));
    if (addend != nullptr) acc = S::Add(acc, S::LoadN(addend, left));
    if (c.accumulate != 0) acc = S::Add(S::LoadN(y, left), acc);
    S::StoreN(y, acc, left);
  }
}

// The same of `rows` rows whose sums lie one after the other.
template <class S>
void EpilogueRows(const LinearCall& c, int32_t tile, int32_t row, int32_t rows, const float* sums) {
  const bool plain = c.bias == nullptr && c.addend == nullptr && c.y_rows == nullptr;
  if (!plain || (tile + 1) * kTileRows > c.out) {
    for (int32_t r = 0; r < rows; ++r) {
      Epilogue16<S>(c, tile, row + r, S::Load(sums + r * kTileRows));
    }
    return;
  }
  const int64_t stride = c.y_stride;
  float* y = c.y + row * stride + tile * kTileRows;
  if (c.accumulate != 0) {
    for (int32_t r = 0; r < rows; ++r, y += stride) {
      S::Store(y, S::Add(S::Load(y), S::Load(sums + r * kTileRows)));
    }
    return;
  }
  for (int32_t r = 0; r < rows; ++r, y += stride) S::Store(y, S::Load(sums + r * kTileRows));
}

}  // namespace tessera::kernels::cpu
