// Products of weights that are read as floats (tile16 layout: 16 outputs for each k) with float
// activations: one fused multiply-add for each k in order, whatever the register block.
#pragma once

#include "kernels/cpu/simd/epilogue.h"
#include "kernels/cpu/simd/tile_weights.h"

namespace tessera::kernels::cpu {

template <class S, DType kType>
struct FloatLinear {
  using F = typename S::F;
  using Weights = TileWeights<S, kType>;

  template <int T, int R>
  static __attribute__((noinline)) void Run(const LinearCall& c, int32_t tile, int32_t row) {
    const int64_t in = c.in;
    const float* x = c.x + row * in;
    const int64_t tile_bytes = Weights::TileBytes(c);
    const std::byte* const tiles = c.weight + tile * tile_bytes;
    const std::byte* w = tiles;
    F acc[T][R];
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) acc[t][r] = S::Zero();
    }
    const int64_t group = Weights::kGroup == 0 ? in : Weights::kGroup;
    for (int64_t begin = 0; begin < in; begin += group) {
      typename Weights::Scales scales[T];
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) {
        scales[t] = Weights::ScalesOf(c, tiles + t * tile_bytes, begin / group);
      }
      const int64_t end = begin + group < in ? begin + group : in;
      for (int64_t k = begin; k < end; k += Weights::kStep) {
#pragma GCC unroll 2
        for (int part = 0; part < Weights::kStep; ++part) {
          F wk[T];
#pragma GCC unroll 8
          for (int t = 0; t < T; ++t) wk[t] = Weights::At(w + t * tile_bytes, part, scales[t]);
#pragma GCC unroll 8
          for (int r = 0; r < R; ++r) {
            const F xk = S::Set1(x[r * in + k + part]);
#pragma GCC unroll 8
            for (int t = 0; t < T; ++t) acc[t][r] = S::Fma(wk[t], xk, acc[t][r]);
          }
        }
        w += Weights::kStepBytes;
      }
    }
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) Epilogue16<S>(c, tile + t, row + r, acc[t][r]);
    }
  }

  template <int T>
  static void Rows(const LinearCall& c, int32_t tile, int32_t row, int32_t rows) {
    switch (rows) {
      case 1:
        return Run<T, 1>(c, tile, row);
      case 2:
        return Run<T, 2>(c, tile, row);
      case 3:
        return Run<T, 3>(c, tile, row);
      case 4:
        if constexpr (S::kFloatRows >= 4) return Run<T, 4>(c, tile, row);
        break;
      case 5:
        if constexpr (S::kFloatRows >= 5) return Run<T, 5>(c, tile, row);
        break;
      case 6:
        if constexpr (S::kFloatRows >= 6) return Run<T, 6>(c, tile, row);
        break;
    }
  }

  static void Call(const LinearCall& c) {
    const int32_t rows = c.row_end - c.row_begin;
    const int32_t passes = (rows + S::kFloatRows - 1) / S::kFloatRows;
    for (int32_t tile = c.tile_begin; tile < c.tile_end;) {
      const int32_t left = c.tile_end - tile;
      if (rows == 1 && left >= S::kFloatTiles1) {
        Run<S::kFloatTiles1, 1>(c, tile, c.row_begin);
        tile += S::kFloatTiles1;
        continue;
      }
      const int32_t take = left >= S::kFloatTiles ? S::kFloatTiles : left >= 2 ? 2 : 1;
      for (int32_t p = 0; p < passes; ++p) {
        const int32_t begin = c.row_begin + rows * p / passes;
        const int32_t count = c.row_begin + rows * (p + 1) / passes - begin;
        if (take == S::kFloatTiles) {
          Rows<S::kFloatTiles>(c, tile, begin, count);
        } else if (take == 2) {
          Rows<2>(c, tile, begin, count);
        } else {
          Rows<1>(c, tile, begin, count);
        }
      }
      tile += take;
    }
  }
};

}  // namespace tessera::kernels::cpu
