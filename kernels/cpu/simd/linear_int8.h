// Products of block-quantized weights (tile16 layout, cpu/layout.h) with int8 activations.
//
// A register block is kTiles x kRows: per group of 32, exact integer sums in the lanes (16
// outputs), then one fused multiply-add a lane. Groups go in order whatever the block, so every
// block shape gives a row the same bits.
#pragma once

#include "kernels/cpu/simd/epilogue.h"

namespace tessera::kernels::cpu {

template <class S, DType kType>
struct Int8Linear {
  using F = typename S::F;
  using I = typename S::I;
  static constexpr bool kNibbles = kType != DType::kQ8_0;
  static constexpr bool kHasMin = kType == DType::kQ4_1;
  static constexpr int kQuants = kNibbles ? 256 : 512;  // bytes a group
  // isum = dot - (sum << kShift)
  static constexpr int kShift = kType == DType::kQ4_0                    ? 3
                                : kType == DType::kQ8_0 && S::kBiasedDot ? 7
                                                                         : 0;

  template <int T, int R>
  struct Block {
    F acc[T][R];
    const std::byte* tile[T];
    const int8_t* q;
    const float* scale;
    const int32_t* sum;
    int64_t in;
    int64_t groups;
  };

  template <int T, int R>
  TESSERA_SIMD void Dots(const Block<T, R>& b, const std::byte* const* quants, const int8_t* q,
                         I (&dot)[T][R]) {
    if constexpr (kNibbles) {
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        I bytes[T];
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) bytes[t] = S::ILoad(quants[t] + j * 64);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const I x = S::Broadcast4(q + r * b.in + j * 4);
#pragma GCC unroll 8
          for (int t = 0; t < T; ++t)
            dot[t][r] = S::DotNibbles(dot[t][r], S::LowNibbles(bytes[t]), x);
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const I x = S::Broadcast4(q + r * b.in + 16 + j * 4);
#pragma GCC unroll 8
          for (int t = 0; t < T; ++t) {
            dot[t][r] = S::DotNibbles(dot[t][r], S::HighNibbles(bytes[t]), x);
          }
        }
      }
    } else {
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j) {
        I w[T];
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) w[t] = S::ILoad(quants[t] + j * 64);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const I x = S::Broadcast4(q + r * b.in + j * 4);
#pragma GCC unroll 8
          for (int t = 0; t < T; ++t) dot[t][r] = S::DotBiased(dot[t][r], w[t], x);
        }
      }
    }
  }

  // What the integer sum of a group begins with: it takes off what the quants' offset adds.
  template <int T, int R>
  TESSERA_SIMD I Start(const Block<T, R>& b, int r, int64_t g) {
    if constexpr (kShift == 0) return S::IZero();
    return S::ISub(S::IZero(), S::template IShl<kShift>(S::ISet1(b.sum[r * b.groups + g])));
  }

  // One group: quants at `quants`, scales `d` bytes and minima `m` bytes after it.
  template <int T, int R>
  TESSERA_SIMD void Group(Block<T, R>& b, int64_t offset, int64_t d, int64_t m, int64_t g) {
    const std::byte* quants[T];
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) quants[t] = b.tile[t] + offset;
    I dot[T][R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const I start = kNibbles ? S::NibbleStart(Start(b, r, g)) : Start(b, r, g);
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) dot[t][r] = start;
    }
    Dots<T, R>(b, quants, b.q + g * 32, dot);
    if constexpr (kNibbles) {
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const I start = Start(b, r, g);
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) dot[t][r] = S::NibbleEnd(start, dot[t][r]);
      }
    }
    F dw[T], mw[T];
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
      dw[t] = S::LoadF16(reinterpret_cast<const uint16_t*>(quants[t] + d));
      if constexpr (kHasMin) mw[t] = S::LoadF16(reinterpret_cast<const uint16_t*>(quants[t] + m));
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const F dx = S::Set1(b.scale[r * b.groups + g]);
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) {
        b.acc[t][r] = S::Fma(S::ToFloat(dot[t][r]), S::Mul(dw[t], dx), b.acc[t][r]);
      }
      if constexpr (kHasMin) {
        const F sx = S::Mul(dx, S::ToFloat(S::ISet1(b.sum[r * b.groups + g])));
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) b.acc[t][r] = S::Fma(mw[t], sx, b.acc[t][r]);
      }
    }
  }

  template <int T, int R>
  static __attribute__((noinline)) void Run(const LinearCall& c, int32_t tile, int32_t row) {
    constexpr int64_t kPair = 2 * kQuants + (kHasMin ? 128 : 64);
    Block<T, R> b;
    b.in = c.in;
    b.groups = c.in / 32;
    b.q = c.q + int64_t{row} * b.in;
    b.scale = c.x_scale + int64_t{row} * b.groups;
    b.sum = c.x_sum + int64_t{row} * b.groups;
    const int64_t tile_bytes = b.groups / 2 * kPair + b.groups % 2 * (kQuants + 64);
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
      b.tile[t] = c.weight + (tile + t) * tile_bytes;
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) b.acc[t][r] = S::Zero();
    }
    int64_t g = 0;
    for (; g + 2 <= b.groups; g += 2) {
      Group<T, R>(b, 0, 2 * kQuants, 2 * kQuants + 64, g);
      Group<T, R>(b, kQuants, kQuants + 32, kQuants + 96, g + 1);
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) b.tile[t] += kPair;
    }
    if (g < b.groups) Group<T, R>(b, 0, kQuants, kQuants + 32, g);
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) Epilogue16<S>(c, tile + t, row + r, b.acc[t][r]);
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
        if constexpr (S::kIntRows >= 4) return Run<T, 4>(c, tile, row);
        break;
      case 5:
        if constexpr (S::kIntRows >= 5) return Run<T, 5>(c, tile, row);
        break;
      case 6:
        if constexpr (S::kIntRows >= 6) return Run<T, 6>(c, tile, row);
        break;
    }
  }

  static void Call(const LinearCall& c) {
    const int32_t rows = c.row_end - c.row_begin;
    const int32_t passes = (rows + S::kIntRows - 1) / S::kIntRows;
    for (int32_t tile = c.tile_begin; tile < c.tile_end;) {
      if (rows == 1 && tile + S::kIntTiles1 <= c.tile_end) {
        Run<S::kIntTiles1, 1>(c, tile, c.row_begin);
        tile += S::kIntTiles1;
        continue;
      }
      const bool full = tile + S::kIntTiles <= c.tile_end;
      for (int32_t p = 0; p < passes; ++p) {
        const int32_t begin = c.row_begin + rows * p / passes;
        const int32_t count = c.row_begin + rows * (p + 1) / passes - begin;
        if (full) {
          Rows<S::kIntTiles>(c, tile, begin, count);
        } else {
          Rows<1>(c, tile, begin, count);
        }
      }
      tile += full ? S::kIntTiles : 1;
    }
  }
};

}  // namespace tessera::kernels::cpu
