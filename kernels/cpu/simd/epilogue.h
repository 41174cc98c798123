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

}  // namespace tessera::kernels::cpu
