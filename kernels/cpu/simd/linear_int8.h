// Products of block formats (tile16 layout, cpu/layout.h) with int8 activations.
//
// A register block is one tile of 16 outputs and some rows: per group of 32, exact integer sums in
// the lanes, then one fused multiply-add a lane, and one for the minimum. Groups go in order
// whatever the block, so every block shape gives a row the same bits.
#pragma once

#include "kernels/cpu/simd/block_scales.h"
#include "kernels/cpu/simd/epilogue.h"

namespace tessera::kernels::cpu {

// to[i] = d_x * float(sum_x) of group i of a call's rows: what a minimum multiplies.
template <class S>
TESSERA_SIMD void ScaledSums(const LinearCall& c, float* to) {
  const int64_t groups = c.in / 32;
  const float* dx = c.x_scale + c.row_begin * groups;
  const int16_t* sum = c.x_sum + c.row_begin * groups * 2;
  const int64_t count = (c.row_end - c.row_begin) * groups;
  for (int64_t i = 0; i < count; ++i) {
    to[i] = dx[i] * static_cast<float>(sum[2 * i] + sum[2 * i + 1]);
  }
}

template <class S, DType kType>
struct Int8Linear {
  using F = typename S::F;
  using I = typename S::I;
  using Scales = BlockScales<S, kType>;
  static constexpr BlockFormat kFormat = BlockFormatOf(kType);
  static constexpr BlockTile kTile = BlockTileOf(kType);
  static constexpr int kSteps = 8;  // of 4 elements a group
  // Stored values above this are signed bytes + 128, others unsigned bytes whose products are
  // summed in runs of `kRun` steps.
  static constexpr bool kWide = kFormat.largest > 63;
  // Units from what is multiplied to what is fetched, and how near it comes.
  static constexpr FetchAhead kAhead = S::AheadOf(kWide);
  static constexpr int kAheadUnits =
      (kAhead.bytes + static_cast<int>(kTile.unit_bytes) - 1) / static_cast<int>(kTile.unit_bytes);
  static constexpr int kNear = kAhead.first_level ? 3 : 2;  // as __builtin_prefetch has it
  static constexpr int kRunLimit = Scales::kHalves ? kSteps / 2 : kSteps;
  static constexpr int kRunFits = S::ShortSteps(kFormat.largest);
  static constexpr int kRun = kRunFits < kRunLimit ? kRunFits : kRunLimit;
  // What the stored values of a group have too much.
  static constexpr int kZero = kWide && !S::kBiasedDot ? 0 : kFormat.zero;
  // What is made once for all outputs, for each row and group: ScaledSums, or what the
  // integer sum of a group begins with. Groups with halves have neither.
  static constexpr bool kScaledSums = Scales::kMin && !Scales::kHalves;
  static constexpr bool kStarts = kZero != 0 && !Scales::kHalves;
  static_assert(!kScaledSums || !kStarts);
  template <int R>
  struct Block {
    F acc[R];
    const std::byte* tile;
    const int8_t* q;
    const float* scale;
    const int16_t* sum;
    const std::byte* made;  // ScaledSums or starts, 4 bytes each
    int64_t in;
    int64_t groups;
    bool ahead;  // no rows before these have brought the tile into the cache
  };

  // Four stored values a lane.
  template <int kStep>
  TESSERA_SIMD I Stored(const std::byte* group, I table) {
    constexpr int kElement = kStep * 4;
    const I low = S::ILoad(group + kTile.low.Byte(kElement) / kRunBytes * kRunStride);
    constexpr int kMask = (1 << kTile.low.bits) - 1;
    I codes = S::template Bits<static_cast<int>(kTile.low.Shift(kElement)), kMask>(low);
    if constexpr (kTile.high.bits != 0) {
      constexpr int kShift = static_cast<int>(kTile.high.Shift(kElement)) - kTile.low.bits;
      constexpr int kHighMask = ((1 << kTile.high.bits) - 1) << kTile.low.bits;
      const I high =
          S::ILoad(group + kTile.low_bytes + kTile.high.Byte(kElement) / kRunBytes * kRunStride);
      codes = S::IOr(codes, S::template Bits<kShift, kHighMask>(high));
    }
    if constexpr (kFormat.table != nullptr) codes = S::Lookup(table, codes);
    return codes;
  }

  // Steps kAt ... kEnd - 1 in the order that loads a register of nibbles once.
  template <int kAt, int kEnd, int R>
  TESSERA_SIMD void Products(const Block<R>& b, int64_t offset, const int8_t* q, I table,
                             I (&sum)[R]) {
    constexpr int kStep = Scales::kHalves || kTile.low.bits != 4 ? kAt : kAt / 2 + kAt % 2 * 4;
    const I w = Stored<kStep>(b.tile + offset, table);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const int8_t* const x = q + r * b.in + kStep * 4;
      sum[r] = kWide ? S::DotBiasedAt(sum[r], w, x) : S::DotShortAt(sum[r], w, x);
    }
    if constexpr (kAt + 1 < kEnd) Products<kAt + 1, kEnd, R>(b, offset, q, table, sum);
  }

  // The sums of a group's activations, a half in each 16 bits.
  template <int R>
  TESSERA_SIMD I Sums(const Block<R>& b, int r, int64_t at) {
    return S::Broadcast4(b.sum + (r * b.groups + at) * 2);
  }

  // What the integer sum of a group begins with: it takes off what kZero adds.
  template <int R>
  TESSERA_SIMD I Start(const Block<R>& b, const Scales& scales, int g, int r, int64_t at) {
    if constexpr (kZero == 0) {
      return S::IZero();
    } else if constexpr (Scales::kHalves) {
      constexpr int kShift = __builtin_ctz(kZero);
      static_assert(kZero == (1 << kShift));
      const I sum = S::IMadd16(scales.scales[g], Sums(b, r, at));
      return S::ISub(S::IZero(), S::template IShl<kShift>(sum));
    } else {
      return S::Broadcast4(b.made + (r * b.groups + at) * 4);
    }
  }

  // Runs of products from step kAt on, each added to `dot` when it is full.
  template <int kAt, int R>
  TESSERA_SIMD void Runs(const Block<R>& b, const Scales& scales, int g, int64_t at, int64_t offset,
                         I table, I (&dot)[R]) {
    I part[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      if constexpr (Scales::kHalves) {
        part[r] = S::IZero();
      } else {
        part[r] = S::ShortStart(kAt == 0 ? Start(b, scales, g, r, at) : dot[r]);
      }
    }
    Products<kAt, kAt + kRun, R>(b, offset, b.q + at * 32, table, part);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const I before = kAt == 0 ? Start(b, scales, g, r, at) : dot[r];
      if constexpr (Scales::kHalves) {
        const I scale = S::template HalfScale<kAt * 2 / kSteps>(scales.scales[g]);
        dot[r] = S::ShortEndScaled(before, part[r], scale);
      } else {
        dot[r] = S::ShortEnd(before, part[r]);
      }
    }
    if constexpr (kAt + kRun < kSteps) Runs<kAt + kRun, R>(b, scales, g, at, offset, table, dot);
  }

  // Group `g` of the unit, group `at` of the row, its codes at `offset`.
  template <int R>
  TESSERA_SIMD void Group(Block<R>& b, const Scales& scales, int g, int64_t at, int64_t offset) {
    I table = S::IZero();
    if constexpr (kFormat.table != nullptr) table = S::TableOf(kFormat.table);
    I dot[R];
    if constexpr (kWide) {
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) dot[r] = Start(b, scales, g, r, at);
      Products<0, kSteps, R>(b, offset, b.q + at * 32, table, dot);
    } else {
      Runs<0, R>(b, scales, g, at, offset, table, dot);
    }
    const int of = Scales::kHalves ? 0 : g;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const F dx = S::Set1(b.scale[r * b.groups + at]);
      b.acc[r] = S::Fma(S::ToFloat(dot[r]), S::Mul(scales.d[of], dx), b.acc[r]);
      if constexpr (Scales::kMin) AddMinimum(b, scales, g, r, at, dx);
    }
  }

  template <int R>
  TESSERA_SIMD void AddMinimum(Block<R>& b, const Scales& scales, int g, int r, int64_t at, F dx) {
    if constexpr (Scales::kHalves) {
      const F sum = S::Mul(dx, S::ToFloat(S::IMadd16(scales.minima[g], Sums(b, r, at))));
      b.acc[r] = S::NegFma(scales.m[0], sum, b.acc[r]);
    } else {
      const F sum = S::FromBits(S::Broadcast4(b.made + (r * b.groups + at) * 4));
      b.acc[r] =
          Scales::kSub ? S::NegFma(scales.m[g], sum, b.acc[r]) : S::Fma(scales.m[g], sum, b.acc[r]);
    }
  }

  // A unit of kCount groups that begins with group `at` of the row.
  template <int kCount, int R>
  TESSERA_SIMD void Unit(Block<R>& b, int64_t at) {
    // Arithmetic keeps a processor's own loads from running far ahead. The next tile follows.
    if (b.ahead) {
#pragma GCC unroll 40
      for (uint32_t i = 0; i < kTile.unit_bytes; i += 64) {
        __builtin_prefetch(b.tile + kAheadUnits * int64_t{kTile.unit_bytes} + i, 0, kNear);
      }
    }
    Scales scales;
    Scales::template Load<kCount>(b.tile + kCount * int64_t{kTile.group_bytes}, scales);
    if constexpr (kCount <= 2) {
#pragma GCC unroll 2
      for (int g = 0; g < kCount; ++g) {
        Group<R>(b, scales, g, at + g, g * int64_t{kTile.group_bytes});
      }
    } else {
#pragma GCC unroll 1
      for (int g = 0; g < kCount; ++g) {
        Group<R>(b, scales, g, at + g, g * int64_t{kTile.group_bytes});
      }
    }
    b.tile += kTile.unit_bytes;
  }

  // Rows [row, row + R) of a tile.
  template <int R>
  static __attribute__((noinline)) void Run(const LinearCall& c, int32_t tile, int32_t row) {
    constexpr int kUnit = static_cast<int>(kTile.groups);
    Block<R> b;
    b.in = c.in;
    b.groups = c.in / 32;
    b.q = c.q + int64_t{row} * b.in;
    b.scale = c.x_scale + int64_t{row} * b.groups;
    b.sum = c.x_sum + int64_t{row} * b.groups * 2;
    b.made = c.scratch + (row - c.row_begin) * b.groups * 4;
    b.ahead = row == c.row_begin;
    b.tile = c.weight + tile * c.tile_bytes;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) b.acc[r] = S::Zero();
    int64_t g = 0;
    for (; g + kUnit <= b.groups; g += kUnit) Unit<kUnit, R>(b, g);
    if constexpr (kTile.blocks == 2) {
      if (g < b.groups) Unit<1, R>(b, g);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) Epilogue16<S>(c, tile, row + r, b.acc[r]);
  }

  // `rows` <= kMost rows of a tile.
  template <int kMost>
  static void Rows(const LinearCall& c, int32_t tile, int32_t row, int32_t rows) {
    if constexpr (kMost > 1) {
      if (rows < kMost) return Rows<kMost - 1>(c, tile, row, rows);
    }
    Run<kMost>(c, tile, row);
  }
  // All rows of a tile, in passes of about as many.
  static void Passes(const LinearCall& c, int32_t tile) {
    const int32_t rows = c.row_end - c.row_begin;
    const int32_t passes = (rows + S::kIntRows - 1) / S::kIntRows;
    for (int32_t p = 0; p < passes; ++p) {
      const int32_t begin = rows * p / passes, end = rows * (p + 1) / passes;
      Rows<S::kIntRows>(c, tile, c.row_begin + begin, end - begin);
    }
  }

  static void Starts(const LinearCall& c, int32_t* to) {
    const int64_t groups = c.in / 32;
    const int16_t* sum = c.x_sum + c.row_begin * groups * 2;
    const int64_t count = (c.row_end - c.row_begin) * groups;
    for (int64_t i = 0; i < count; ++i) to[i] = -kZero * (sum[2 * i] + sum[2 * i + 1]);
  }

  static void Call(const LinearCall& c) {
    const int32_t rows = c.row_end - c.row_begin;
    if (rows <= 0) return;
    if (c.rows_kept == 0) {
      if constexpr (kScaledSums) ScaledSums<S>(c, reinterpret_cast<float*>(c.scratch));
      if constexpr (kStarts) Starts(c, reinterpret_cast<int32_t*>(c.scratch));
    }
    for (int32_t tile = c.tile_begin; tile < c.tile_end; ++tile) Passes(c, tile);
  }
};

}  // namespace tessera::kernels::cpu
