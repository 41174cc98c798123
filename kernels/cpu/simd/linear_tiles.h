// Products of block formats whose groups have no halves (tile16 layout, cpu/layout.h) with int8
// activations, on tile registers.
//
// A step of the packed layout, 16 outputs x 4 k, is a row of a B tile; a group of 32 is 8 of them.
// The codes of two times 16 outputs are unpacked once, as signed values, for all rows of a call;
// then each 16 rows take two tile products a group, whose sums are exact, and the float arithmetic
// of ops/linear.h in its order: the bits are those of simd/linear_int8.h.
//
// Moving tiles costs more than multiplying them, and overlaps with nothing (measured), so a tile of
// activations serves two products, and the float sums live in memory between batches of groups.
//
// S is a type of sixteen lanes, T one of tiles (simd/amx.h, or what emulates it in tests).
#pragma once

#include "kernels/cpu/simd/epilogue.h"
#include "kernels/cpu/simd/linear_int8.h"

namespace tessera::kernels::cpu {

// What a thread has in LinearCall::scratch. Of kTilePair times 16 outputs: codes
// [pair][kTileChunk][8][16][4] and the scales and minima of their groups [pair][kTileChunk][16]. Of
// the rows of a call, 16 to a pass: sums [passes][pair][16 rows][16 outputs] and d_x * sum_x
// [rows][groups].
template <class S>
struct TileScratch {
  static constexpr int64_t kGroups = kTilePair * kTileChunk;
  TileScratch(const LinearCall& c, int64_t passes)
      : codes(reinterpret_cast<int8_t*>(c.scratch)),
        dots(reinterpret_cast<int32_t*>(codes + kGroups * kTileGroupBytes)),
        d(reinterpret_cast<float*>(dots + 2 * kTileBatch * kTilePair * kTileDots)),
        m(d + kGroups * kTileRows),
        acc(m + kGroups * kTileRows),
        x_sum(acc + passes * kTilePair * kTileDots) {}
  int8_t* codes;
  int32_t* dots;  // two batches of products: [kTileBatch][pair][16 rows][16 outputs]
  float* d;
  float* m;
  float* acc;
  float* x_sum;
};

// One pass: `rows` <= 16 rows, the groups of a chunk, kTiles times 16 outputs. Of no weight type.
template <class S, class T, int kTiles, bool kMin>
struct TilePass {
  using F = typename S::F;

  int32_t rows;
  int64_t groups;
  const int8_t* q;  // of the first row and group
  int64_t q_stride;
  const float* x_scale;  // of the first row and group
  const float* x_sum;
  int64_t x_stride;
  float* acc;

  // Products of groups kAt ... count - 1 of a batch, whose codes begin at `codes`; a group's are
  // stored when the next one's are under way.
  template <int kAt = 0>
  TESSERA_SIMD void Products(const TilePass& p, const int8_t* q, const int8_t* codes, int64_t count,
                             int32_t* dots) {
    constexpr int kTile = kAt % 2 * 2, kA = 4 + kAt % 2;
    if (kAt < kTileBatch && kAt < count) {
      T::template Load<kA>(q + kAt * 32, p.q_stride);
      Product<kTile, kA, 6>(codes + kAt * kTileGroupBytes);
      if constexpr (kTiles > 1) {
        Product<kTile + 1, kA, 7>(codes + (kTileChunk + kAt) * kTileGroupBytes);
      }
    }
    if constexpr (kAt > 0) {
      if (kAt > count) return;
      int32_t* const to = dots + (kAt - 1) * kTilePair * kTileDots;
      T::template Store<2 - kTile>(to, 64);
      if constexpr (kTiles > 1) T::template Store<3 - kTile>(to + kTileDots, 64);
    }
    if constexpr (kAt < kTileBatch) Products<kAt + 1>(p, q, codes, count, dots);
  }
  template <int kC, int kA, int kB>
  TESSERA_SIMD void Product(const int8_t* codes) {
    T::template Load<kB>(codes, 64);
    T::template Zero<kC>();
    T::template DotI8<kC, kA, kB>();
  }

  // Adds `count` groups of a batch, the first being group `at`, to the sums of kRows rows.
  template <int kRows>
  TESSERA_SIMD void Add(const TilePass& p, const TileScratch<S>& s, const int32_t* dots, int tile,
                        int32_t row, int64_t at, int64_t count) {
    float* const acc = p.acc + tile * kTileDots + row * kTileRows;
    const float* x = p.x_scale + row * p.x_stride + at;
    const float* x_sum = p.x_sum + row * p.x_stride + at;
    const float* d = s.d + (tile * kTileChunk + at) * kTileRows;
    const float* m = s.m + (tile * kTileChunk + at) * kTileRows;
    dots += tile * kTileDots + row * kTileRows;
    F sums[kRows];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) sums[r] = S::Load(acc + r * kTileRows);
    for (int64_t g = 0; g < count; ++g, d += kTileRows, m += kTileRows) {
      const F scale = S::Load(d);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const F dot = S::ToFloat(S::ILoad(dots + r * kTileRows));
        sums[r] = S::Fma(dot, S::Mul(scale, S::Set1(x[r * p.x_stride + g])), sums[r]);
        if constexpr (kMin) {
          sums[r] = S::Fma(S::Load(m), S::Set1(x_sum[r * p.x_stride + g]), sums[r]);
        }
      }
      dots += kTilePair * kTileDots;
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) S::Store(acc + r * kTileRows, sums[r]);
  }

  static void AddBatch(const TilePass& p, const TileScratch<S>& s, const int32_t* dots, int64_t at,
                       int64_t count) {
    for (int tile = 0; tile < kTiles; ++tile) {
      int32_t row = 0;
      for (; row + 8 <= p.rows; row += 8) Add<8>(p, s, dots, tile, row, at, count);
      if ((p.rows & 4) != 0) {
        Add<4>(p, s, dots, tile, row, at, count);
        row += 4;
      }
      if ((p.rows & 2) != 0) {
        Add<2>(p, s, dots, tile, row, at, count);
        row += 2;
      }
      if ((p.rows & 1) != 0) Add<1>(p, s, dots, tile, row, at, count);
    }
  }

  // While a batch is added, the products of the next may be under way.
  static __attribute__((noinline)) void Run(const TilePass& p, const TileScratch<S>& s) {
    int32_t* now = s.dots;
    int32_t* next = now + kTileBatch * kTilePair * kTileDots;
    Products(p, p.q, s.codes, p.groups, now);
    for (int64_t g = 0; g < p.groups; g += kTileBatch) {
      const int64_t after = g + kTileBatch;
      if (after < p.groups) {
        Products(p, p.q + after * 32, s.codes + after * kTileGroupBytes, p.groups - after, next);
      }
      AddBatch(p, s, now, g, after < p.groups ? kTileBatch : p.groups - g);
      int32_t* const done = now;
      now = next;
      next = done;
    }
  }
};

template <class S, class T, DType kType>
struct TileLinear {
  using F = typename S::F;
  using I = typename S::I;
  using Ints = Int8Linear<S, kType>;
  using Scales = BlockScales<S, kType>;
  using Scratch = TileScratch<S>;
  static constexpr BlockFormat kFormat = BlockFormatOf(kType);
  static constexpr BlockTile kTile = BlockTileOf(kType);
  static constexpr int kUnit = static_cast<int>(kTile.groups);

  // Rows of a call in passes of `each`; the last begins earlier where that leaves it too few.
  struct Passes {
    explicit Passes(const LinearCall& c)
        : rows(c.row_end - c.row_begin),
          count((rows + kTileRows - 1) / kTileRows),
          each((rows + count - 1) / count) {}
    int32_t Begin(int32_t pass) const {
      return pass * each < rows - each ? pass * each : rows - each;
    }
    int32_t rows, count, each;
  };

  static void Configure(int32_t rows) {
    typename T::Config config;
    for (int i = 0; i < 8; ++i) {
      config.row_bytes[i] = i == 4 || i == 5 ? 32 : 64;
      config.rows[i] = static_cast<uint8_t>(i < 6 ? rows : 8);
    }
    T::Configure(config);
  }

  template <int kStep>
  TESSERA_SIMD void UnpackSteps(const std::byte* group, I table, int8_t* to) {
    constexpr int kOrdered = kTile.low.bits != 4 ? kStep : kStep / 2 + kStep % 2 * 4;
    const I value = S::ISub8(Ints::template Stored<kOrdered>(group, table), S::ISet8(kFormat.zero));
    S::IStore(to + kOrdered * 64, value);
    if constexpr (kStep + 1 < Ints::kSteps) UnpackSteps<kStep + 1>(group, table, to);
  }

  // A unit whose first group is group `at` of those in scratch.
  template <int kCount>
  TESSERA_SIMD void UnpackUnit(const std::byte* unit, int64_t at, const Scratch& s) {
    I table = S::IZero();
    if constexpr (kFormat.table != nullptr) table = S::TableOf(kFormat.table);
    Scales scales;
    Scales::template Load<kCount>(unit + kCount * int64_t{kTile.group_bytes}, scales);
#pragma GCC unroll 8
    for (int g = 0; g < kCount; ++g) {
      UnpackSteps<0>(unit + g * int64_t{kTile.group_bytes}, table,
                     s.codes + (at + g) * kTileGroupBytes);
      S::Store(s.d + (at + g) * kTileRows, scales.d[g]);
      if constexpr (Scales::kMin) {
        const F sign = S::Set1(Scales::kSub ? -1.0f : 1.0f);
        S::Store(s.m + (at + g) * kTileRows, S::Mul(scales.m[g], sign));
      }
    }
  }

  // `count` groups, the first of a unit on, as group `at` and those that follow; returns where the
  // codes go on.
  static const std::byte* Unpack(const std::byte* from, int64_t count, int64_t at,
                                 const Scratch& s) {
    int64_t g = at;
    for (; g + kUnit <= at + count; g += kUnit, from += kTile.unit_bytes) {
      UnpackUnit<kUnit>(from, g, s);
    }
    if constexpr (kTile.blocks == 2) {
      if (g < at + count) {
        UnpackUnit<1>(from, g, s);
        from += kTile.single_bytes;
      }
    }
    return from;
  }

  template <int kTiles>
  static void Finish(const LinearCall& c, const Passes& passes, const Scratch& s, int32_t tile) {
    for (int32_t p = 0; p < passes.count; ++p) {
      const int32_t begin = passes.Begin(p);
      for (int t = 0; t < kTiles; ++t) {
        const float* acc = s.acc + (p * kTilePair + t) * kTileDots;
        for (int32_t r = p * passes.each - begin; r < passes.each; ++r) {
          Epilogue16<S>(c, tile + t, c.row_begin + begin + r, S::Load(acc + r * kTileRows));
        }
      }
    }
  }

  // All rows of a call, tiles [tile, tile + kTiles).
  template <int kTiles>
  static void Outputs(const LinearCall& c, const Passes& passes, const Scratch& s, int32_t tile) {
    const int64_t groups = c.in / 32;
    for (int64_t i = 0; i < passes.count * kTilePair * kTileDots; i += 16) {
      S::Store(s.acc + i, S::Zero());
    }
    const std::byte* from[kTiles];
    for (int t = 0; t < kTiles; ++t) from[t] = c.weight + (tile + t) * c.tile_bytes;
    for (int64_t g = 0; g < groups; g += kTileChunk) {
      const int64_t count = groups - g < kTileChunk ? groups - g : kTileChunk;
      for (int t = 0; t < kTiles; ++t) from[t] = Unpack(from[t], count, t * kTileChunk, s);
      for (int32_t p = 0; p < passes.count; ++p) {
        const int64_t row = passes.Begin(p);
        const int64_t at = row * groups + g;
        TilePass<S, T, kTiles, Scales::kMin>::Run({.rows = passes.each,
                                                   .groups = count,
                                                   .q = c.q + (c.row_begin + row) * c.in + g * 32,
                                                   .q_stride = c.in,
                                                   .x_scale = c.x_scale + c.row_begin * groups + at,
                                                   .x_sum = s.x_sum + at,
                                                   .x_stride = groups,
                                                   .acc = s.acc + p * kTilePair * kTileDots},
                                                  s);
      }
    }
    Finish<kTiles>(c, passes, s, tile);
  }

  // Rows [row_begin, row_end) are 1 ... TileRowBlock(in).
  static void Call(const LinearCall& c) {
    const Passes passes(c);
    const Scratch s(c, passes.count);
    Configure(passes.each);
    if constexpr (Scales::kMin) ScaledSums<S>(c, s.x_sum);
    int32_t tile = c.tile_begin;
    for (; tile + kTilePair <= c.tile_end; tile += kTilePair) {
      Outputs<kTilePair>(c, passes, s, tile);
    }
    if (tile < c.tile_end) Outputs<1>(c, passes, s, tile);
    T::Release();
  }
};

template <class S, class T, int kIndex = 0>
constexpr LinearKernels TileLinearOf(LinearKernels kernels = {}) {
  if constexpr (kIndex < kWeightTypeCount) {
    constexpr auto kType = static_cast<DType>(kIndex);
    if constexpr (TakesTiles(kType)) kernels.run[kIndex] = TileLinear<S, T, kType>::Call;
    return TileLinearOf<S, T, kIndex + 1>(kernels);
  }
  return kernels;
}

}  // namespace tessera::kernels::cpu
