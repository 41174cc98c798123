// Products of block formats whose groups have no halves (tile16 layout, cpu/layout.h) with int8
// activations, on tile registers.
//
// A step of the packed layout, 16 outputs x 4 k, is a row of a B tile; a group of 32 is 8 of them.
// The codes of two times 16 outputs are unpacked once, as signed values, for all rows of a call;
// then each 16 rows take two tile products a group, whose sums are exact, and the float arithmetic
// of ops/linear.h in its order: the bits are those of simd/linear_int8.h.
//
// The products of a group fill two of four C tiles while those of the group before are stored and
// the float sums of the two before are added, some rows between each two products: what is
// multiplied, moved and added at a time belongs to different groups. All that a pass reads is small
// enough for the first-level cache: rows are laid out by group, once for all calls of a thread that
// follow each other with the same, and few groups are unpacked at a time.
//
// Beside tiles a core multiplies and converts vectors of floats on one of its two ports, but adds
// them on both: that is why sums become floats by additions (Float).
//
// S is a type of sixteen lanes, T one of tiles (simd/amx.h, or what emulates it in tests).
#pragma once

#include "kernels/cpu/simd/epilogue.h"
#include "kernels/cpu/simd/linear_int8.h"

namespace tessera::kernels::cpu {

// What a thread has in LinearCall::scratch. Of kTilePair times 16 outputs: codes
// [kTileChunk][pair][8][16][4] and the scales and minima of their groups [kTileChunk][pair][16]. Of
// the rows of a call, 16 to a pass: codes [passes][groups][16 rows][32], d_x and d_x * sum_x
// [passes][groups][2][16 rows], sums [passes][pair][16 rows][16 outputs].
template <class S>
struct TileScratch {
  TileScratch(const LinearCall& c, int64_t passes)
      : groups(c.in / 32),
        codes(reinterpret_cast<int8_t*>(c.scratch)),
        q(codes + kTileChunk * kTilePair * kTileGroupBytes),
        dots(reinterpret_cast<int32_t*>(q + passes * groups * kTileGroupBytes)),
        d(reinterpret_cast<float*>(dots + kTileRing * kTilePair * kTileDots)),
        m(d + kTileChunk * kTilePair * kTileRows),
        acc(m + kTileChunk * kTilePair * kTileRows),
        x(acc + passes * kTilePair * kTileDots) {}
  int64_t groups;
  int8_t* codes;
  int8_t* q;
  int32_t* dots;  // of the last groups: [kTileRing][pair][16 rows][16 outputs]
  float* d;
  float* m;
  float* acc;
  float* x;
};

// One pass: `rows` <= 16 rows, the groups of a chunk, kTiles times 16 outputs. Of no weight type.
template <class S, class T, int kTiles, bool kMin>
struct TilePass {
  using F = typename S::F;
  using I = typename S::I;
  static constexpr int32_t kQuarter = kTileRows / 4;

  const TileScratch<S>& s;
  int32_t rows;
  int64_t groups;
  const int8_t* q;  // of the first group
  const float* x;
  float* acc;
  // What is unpacked after this chunk, of those tiles that this pass brings into the cache, and
  // bytes of two of its groups.
  const std::byte* ahead[kTiles];
  int64_t ahead_bytes;

  int32_t* Dots(int64_t group, int tile) const {
    return s.dots + (group % kTileRing * kTilePair + tile) * kTileDots;
  }

  // Inline: GCC takes a function that only fetches for one that does nothing.
  TESSERA_SIMD void Fetch(const TilePass& p, int64_t group) {
    for (int t = 0; t < kTiles; ++t) {
      if (p.ahead[t] == nullptr) continue;
      const std::byte* from = p.ahead[t] + group / 2 * p.ahead_bytes;
      for (int64_t i = 0; i < p.ahead_bytes; i += 64) __builtin_prefetch(from + i, 0, 2);
    }
  }

  // C tiles 2 * kSet and the next are those of a group.
  TESSERA_SIMD void TakeRows(const TilePass& p, int64_t group) {
    T::template Load<6>(p.q + group * kTileGroupBytes, 32);
  }
  template <int kSet, int kTile>
  TESSERA_SIMD void Product(const TilePass& p, int64_t group) {
    if constexpr (kTile < kTiles) {
      constexpr int kC = 2 * kSet + kTile;
      T::template Load<7>(p.s.codes + (group * kTilePair + kTile) * kTileGroupBytes, 64);
      T::template Zero<kC>();
      T::template DotI8<kC, 6, 7>();
    }
  }
  template <int kSet, int kTile>
  TESSERA_SIMD void Store(const TilePass& p, int64_t group) {
    if constexpr (kTile < kTiles) T::template Store<2 * kSet + kTile>(p.Dots(group, kTile), 64);
  }

  // An integer below 2^22: the last bits of 1.5 * 2^23 count ones.
  TESSERA_SIMD F Float(I dot) {
    return S::Sub(S::FromBits(S::IAdd(dot, S::ISet1(0x4b400000))), S::Set1(0x1.8p23f));
  }

  // Adds kCount groups, the first being `group`, to the sums of kRows rows.
  template <int kCount, int kRows>
  TESSERA_SIMD void AddRows(const TilePass& p, int64_t group, int32_t row) {
    float* const acc = p.acc + row * kTileRows;
    F sums[kTiles][kRows];
#pragma GCC unroll 2
    for (int t = 0; t < kTiles; ++t) {
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) sums[t][r] = S::Load(acc + t * kTileDots + r * kTileRows);
    }
#pragma GCC unroll 2
    for (int64_t g = group; g < group + kCount; ++g) {
      const float* x = p.x + g * 2 * kTileRows + row;
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const F scale = S::Set1(x[r]);
        F sum;
        if constexpr (kMin) sum = S::Set1(x[kTileRows + r]);
#pragma GCC unroll 2
        for (int t = 0; t < kTiles; ++t) {
          const int64_t place = (g * kTilePair + t) * kTileRows;
          const F dot = Float(S::ILoad(p.Dots(g, t) + (row + r) * kTileRows));
          sums[t][r] = S::Fma(dot, S::Mul(S::Load(p.s.d + place), scale), sums[t][r]);
          if constexpr (kMin) sums[t][r] = S::Fma(S::Load(p.s.m + place), sum, sums[t][r]);
        }
      }
    }
#pragma GCC unroll 2
    for (int t = 0; t < kTiles; ++t) {
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) S::Store(acc + t * kTileDots + r * kTileRows, sums[t][r]);
    }
  }
  // A quarter of a tile's rows.
  template <int kCount>
  TESSERA_SIMD void AddQuarter(const TilePass& p, int64_t group, int32_t quarter) {
    int32_t row = quarter * kQuarter;
    const int32_t left = p.rows - row;
    if (left >= kQuarter) return AddRows<kCount, kQuarter>(p, group, row);
    if (left <= 0) return;
    if ((left & 2) != 0) {
      AddRows<kCount, 2>(p, group, row);
      row += 2;
    }
    if ((left & 1) != 0) AddRows<kCount, 1>(p, group, row);
  }
  template <int kCount>
  static __attribute__((noinline)) void AddLast(const TilePass& p, int64_t group) {
    for (int32_t quarter = 0; quarter < 4; ++quarter) AddQuarter<kCount>(p, group, quarter);
  }

  // The products of two groups, and the sums of the two before them, unless these are the first.
  template <bool kFirst>
  TESSERA_SIMD void Two(const TilePass& p, int64_t g) {
    TakeRows(p, g);
    Product<0, 0>(p, g);
    if constexpr (!kFirst) Store<1, 0>(p, g - 1);
    Product<0, 1>(p, g);
    if constexpr (!kFirst) Store<1, 1>(p, g - 1);
    Fetch(p, g);
    if constexpr (!kFirst) AddQuarter<2>(p, g - 2, 0);
    TakeRows(p, g + 1);
    Product<1, 0>(p, g + 1);
    Store<0, 0>(p, g);
    if constexpr (!kFirst) AddQuarter<2>(p, g - 2, 1);
    Product<1, 1>(p, g + 1);
    if constexpr (!kFirst) AddQuarter<2>(p, g - 2, 2);
    Store<0, 1>(p, g);
    if constexpr (!kFirst) AddQuarter<2>(p, g - 2, 3);
  }

  static __attribute__((noinline)) void Run(const TilePass& p) {
    int64_t g = 0;
    if (p.groups >= 2) {
      for (Two<true>(p, 0), g = 2; g + 2 <= p.groups; g += 2) Two<false>(p, g);
      Store<1, 0>(p, g - 1);
      Store<1, 1>(p, g - 1);
      AddLast<2>(p, g - 2);
    }
    if (g == p.groups) return;
    TakeRows(p, g);
    Product<0, 0>(p, g);
    Product<0, 1>(p, g);
    Store<0, 0>(p, g);
    Store<0, 1>(p, g);
    AddLast<1>(p, g);
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
      config.row_bytes[i] = i == 6 ? 32 : 64;
      config.rows[i] = static_cast<uint8_t>(i < 7 ? rows : 8);
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

  // A unit of tile `tile` of the pair, whose first group is group `at` of those in scratch.
  template <int kCount>
  TESSERA_SIMD void UnpackUnit(const std::byte* unit, int tile, int64_t at, const Scratch& s) {
    I table = S::IZero();
    if constexpr (kFormat.table != nullptr) table = S::TableOf(kFormat.table);
    Scales scales;
    Scales::template Load<kCount>(unit + kCount * int64_t{kTile.group_bytes}, scales);
#pragma GCC unroll 8
    for (int g = 0; g < kCount; ++g) {
      const int64_t place = (at + g) * kTilePair + tile;
      UnpackSteps<0>(unit + g * int64_t{kTile.group_bytes}, table,
                     s.codes + place * kTileGroupBytes);
      S::Store(s.d + place * kTileRows, scales.d[g]);
      if constexpr (Scales::kMin) {
        const F sign = S::Set1(Scales::kSub ? -1.0f : 1.0f);
        S::Store(s.m + place * kTileRows, S::Mul(scales.m[g], sign));
      }
    }
  }

  // `count` groups, the first of a unit on; returns where the codes go on.
  static const std::byte* Unpack(const std::byte* from, int64_t count, int tile, const Scratch& s) {
    int64_t g = 0;
    for (; g + kUnit <= count; g += kUnit, from += kTile.unit_bytes) {
      UnpackUnit<kUnit>(from, tile, g, s);
    }
    if constexpr (kTile.blocks == 2) {
      if (g < count) {
        UnpackUnit<1>(from, tile, g, s);
        from += kTile.single_bytes;
      }
    }
    return from;
  }

  // Lays out the call's rows by group.
  static void TakeRows(const LinearCall& c, const Passes& passes, const Scratch& s) {
    for (int32_t p = 0; p < passes.count; ++p) {
      for (int32_t r = 0; r < passes.each; ++r) {
        const int64_t row = c.row_begin + passes.Begin(p) + r;
        const int8_t* q = c.q + row * c.in;
        const float* scale = c.x_scale + row * s.groups;
        const int16_t* sum = c.x_sum + row * s.groups * 2;
        int8_t* to = s.q + p * s.groups * kTileGroupBytes + r * 32;
        float* x = s.x + p * s.groups * 2 * kTileRows + r;
        for (int64_t g = 0; g < s.groups; ++g, to += kTileGroupBytes, x += 2 * kTileRows) {
          __builtin_memcpy(to, q + g * 32, 32);
          x[0] = scale[g];
          if constexpr (Scales::kMin) {
            x[kTileRows] = scale[g] * static_cast<float>(sum[2 * g] + sum[2 * g + 1]);
          }
        }
      }
    }
  }

  template <int kTiles>
  static void Finish(const LinearCall& c, const Passes& passes, const Scratch& s, int32_t tile) {
    for (int32_t p = 0; p < passes.count; ++p) {
      const int32_t begin = passes.Begin(p);
      const int32_t skip = p * passes.each - begin;
      for (int t = 0; t < kTiles; ++t) {
        EpilogueRows<S>(c, tile + t, c.row_begin + begin + skip, passes.each - skip,
                        s.acc + (p * kTilePair + t) * kTileDots + skip * kTileRows);
      }
    }
  }

  // All rows of a call, tiles [tile, tile + kTiles).
  template <int kTiles>
  static void Outputs(const LinearCall& c, const Passes& passes, const Scratch& s, int32_t tile) {
    for (int64_t i = 0; i < passes.count * kTilePair * kTileDots; i += 16) {
      S::Store(s.acc + i, S::Zero());
    }
    const std::byte* from[kTiles];
    for (int t = 0; t < kTiles; ++t) from[t] = c.weight + (tile + t) * c.tile_bytes;
    for (int64_t g = 0; g < s.groups; g += kTileChunk) {
      const int64_t count = s.groups - g < kTileChunk ? s.groups - g : kTileChunk;
      for (int t = 0; t < kTiles; ++t) from[t] = Unpack(from[t], count, t, s);
      // After a tile's last group the tiles after these go on.
      const int64_t skip = g + count == s.groups ? (kTiles - 1) * c.tile_bytes : 0;
      for (int32_t p = 0; p < passes.count; ++p) {
        const int64_t at = p * s.groups + g;
        TilePass<S, T, kTiles, Scales::kMin> pass = {.s = s,
                                                     .rows = passes.each,
                                                     .groups = count,
                                                     .q = s.q + at * kTileGroupBytes,
                                                     .x = s.x + at * 2 * kTileRows,
                                                     .acc = s.acc + p * kTilePair * kTileDots,
                                                     .ahead = {},
                                                     .ahead_bytes = 2 * kTile.unit_bytes / kUnit};
        for (int t = p; t < kTiles; t += passes.count) pass.ahead[t] = from[t] + skip;
        pass.Run(pass);
      }
    }
    Finish<kTiles>(c, passes, s, tile);
  }

  // Rows [row_begin, row_end) are 1 ... TileRowBlock(in).
  static void Call(const LinearCall& c) {
    const Passes passes(c);
    const Scratch s(c, passes.count);
    if (c.rows_kept == 0) TakeRows(c, passes, s);
    Configure(passes.each);
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
