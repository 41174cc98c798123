// Products of block formats whose groups have no halves (tile16 layout, cpu/layout.h) with int8
// activations, on tile registers.
//
// A step of the packed layout, 16 outputs x 4 k, is a row of a B tile; a group of 32 is 8 of them.
// Two times 16 outputs are multiplied at a time. Their codes are unpacked once for all rows of a
// call, as the unsigned bytes that are stored: what these have too much is taken off with the sums
// of activations. Then each 16 rows take two tile products a group, whose sums are exact, and the
// float arithmetic of ops/linear.h in its order: the bits are those of simd/linear_int8.h.
//
// While two groups are multiplied, the sums of the two before are added, and where no more rows
// follow, two groups of the next chunk are unpacked. What is multiplied, moved and added at a time
// belongs to different groups, so that nothing waits for a product's latency; each row of a product
// and of a stored tile still takes the place of a vector's instruction. Rows are laid out by group,
// once for all calls of a thread that follow each other with the same.
//
// Beside tiles a core multiplies and converts vectors of floats on one of its two ports, but adds
// them on both: that is why sums become floats by additions (Float).
//
// S is a type of sixteen lanes, T one of tiles (simd/amx.h, or what emulates it in tests).
#pragma once

#include "kernels/cpu/simd/epilogue.h"
#include "kernels/cpu/simd/linear_int8.h"

namespace tessera::kernels::cpu {

// What a thread has in LinearCall::scratch. Of kTileChunks chunks of kTilePair times 16 outputs:
// codes [chunk][pair][kTileChunk][8][16][4], and scales and minima [chunk][kTileChunk][pair][16].
// Of the rows of a call, 16 to a pass: codes [passes][groups][16 rows][32], and
// [passes][groups][2][16 rows] what begins TileLinear::TakeRows; sums [passes][pair][16 rows][16
// outputs].
template <class S>
struct TileScratch {
  TileScratch(const LinearCall& c, int64_t passes)
      : groups(c.in / 32),
        codes(reinterpret_cast<int8_t*>(c.scratch)),
        q(codes + kTileChunks * kTilePair * kTileChunk * kTileGroupBytes),
        dots(reinterpret_cast<int32_t*>(q + passes * groups * kTileGroupBytes)),
        d(reinterpret_cast<float*>(dots + kTileRing * kTilePair * kTileDots)),
        m(d + kTileChunks * kTileChunk * kTilePair * kTileRows),
        acc(m + kTileChunks * kTileChunk * kTilePair * kTileRows),
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
  static constexpr bool kMin = Scales::kMin;
  static constexpr bool kStarts = kFormat.zero != 0;
  static_assert(!kMin || !kStarts);
  // Bytes that are stored as tiles want them are loaded where they lie.
  static constexpr bool kStored =
      kTile.low.bits == 8 && kTile.high.bits == 0 && kFormat.table == nullptr;
  static constexpr int64_t kPairBytes = kStored ? kTile.unit_bytes : 2 * kTileGroupBytes;
  static_assert(!kStored || (kUnit == 2 && kTile.group_bytes == kTileGroupBytes));
  static constexpr int64_t kPairWeightBytes = 2 * kTile.unit_bytes / kUnit;  // in the layout
  // Groups of a chunk, at most: what is unpacked in a short one is nearer.
  static constexpr int64_t kChunk = kStored ? kTileChunk : kUnit < 4 ? 4 : kUnit;
  static_assert(kChunk <= kTileChunk);
  static constexpr int64_t kFetchBytes = 4096;  // ahead of what is unpacked, of each tile
  static constexpr int32_t kQuarter = kTileRows / 4;
  static constexpr int32_t kMagic = 0x4b400000;  // 1.5 * 2^23, whose last bits count ones

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

  TESSERA_SIMD int64_t Next(int64_t buffer) { return buffer + 1 < kTileChunks ? buffer + 1 : 0; }

  // Two groups of one pass, where they lie.
  struct Pair {
    const int8_t* codes[kTilePair];
    const float* d;  // [2][pair][16]; m as far from d as in scratch
    const int8_t* q;
    const float* x;
    float* acc;
    int32_t* dots;  // [2][pair][16 rows][16 outputs]
  };

  // The outputs that are unpacked ahead, chunk after chunk.
  template <int kTiles>
  struct Ahead {
    const std::byte* unit[kTiles];
    int32_t tile;       // the first of them
    int32_t in_unit;    // the next group of a unit
    int64_t left;       // groups of these outputs after the chunk; an odd last one does not count
    int64_t count, at;  // groups of the chunk, and unpacked ones
    int64_t most;       // groups of a chunk
    int64_t buffer;
    const int8_t* codes[kTiles];  // of the chunk's first group

    TESSERA_SIMD void Outputs(const LinearCall& c, const Scratch& s, int32_t tile, Ahead& a) {
      a.tile = tile;
      a.in_unit = 0;
      a.left = tile + kTiles <= c.tile_end ? s.groups / 2 * 2 : 0;
      for (int t = 0; t < kTiles; ++t) a.unit[t] = c.weight + (tile + t) * c.tile_bytes;
    }
    // The chunk after this one, which is unpacked.
    TESSERA_SIMD void Chunk(const LinearCall& c, const Scratch& s, Ahead& a) {
      a.buffer = Next(a.buffer);
      a.at = 0;
      if (a.left == 0) Outputs(c, s, a.tile + kTiles, a);
      a.count = a.left < a.most ? a.left : a.most;
      a.left -= a.count;
      for (int t = 0; t < kTiles; ++t) {
        a.codes[t] = kStored ? reinterpret_cast<const int8_t*>(a.unit[t])
                             : s.codes + (a.buffer * kTilePair + t) * kTileChunk * kTileGroupBytes;
      }
    }
  };

  template <int kStep>
  TESSERA_SIMD void UnpackSteps(const std::byte* group, I table, int8_t* to) {
    constexpr int kOrdered = kTile.low.bits != 4 ? kStep : kStep / 2 + kStep % 2 * 4;
    S::IStore(to + kOrdered * 64, Ints::template Stored<kOrdered>(group, table));
    if constexpr (kStep + 1 < Ints::kSteps) UnpackSteps<kStep + 1>(group, table, to);
  }
  template <int kCount>
  TESSERA_SIMD void UnpackScales(const std::byte* unit, const Scratch& s, int64_t place) {
    Scales scales;
    Scales::template Load<kCount>(unit + kCount * int64_t{kTile.group_bytes}, scales);
#pragma GCC unroll 8
    for (int g = 0; g < kCount; ++g) {
      const int64_t at = (place + g * kTilePair) * kTileRows;
      S::Store(s.d + at, scales.d[g]);
      if constexpr (kMin) {
        const F sign = S::Set1(Scales::kSub ? -1.0f : 1.0f);
        S::Store(s.m + at, S::Mul(scales.m[g], sign));
      }
    }
  }
  // Groups of the unit from `in_unit` on.
  template <int kCount>
  TESSERA_SIMD void UnpackCodes(const std::byte* unit, int32_t in_unit, int8_t* to) {
    I table = S::IZero();
    if constexpr (kFormat.table != nullptr) table = S::TableOf(kFormat.table);
#pragma GCC unroll 2
    for (int g = 0; g < kCount; ++g) {
      const std::byte* group = unit + (in_unit + g) * int64_t{kTile.group_bytes};
      UnpackSteps<0>(group, table, to + g * kTileGroupBytes);
    }
  }
  // Inline: GCC takes a function that only fetches for one that does nothing.
  template <int kLevel>
  TESSERA_SIMD void Fetch(const std::byte* from, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(from + i, 0, kLevel);
  }

  // Two groups of tile kAt of the chunk, if they are not unpacked yet, and asks for later ones.
  template <int kTiles, int kAt>
  TESSERA_SIMD void UnpackPair(const LinearCall& c, const Scratch& s, Ahead<kTiles>& a) {
    if constexpr (kAt < kTiles) {
      if (a.at == a.count) return;
      const std::byte* const unit = a.unit[kAt];
      const std::byte* later = unit + kFetchBytes;
      // After a tile's end those after these go on.
      const std::byte* const end = c.weight + (a.tile + kAt + 1) * c.tile_bytes;
      if (later >= end) later += (kTiles - 1) * c.tile_bytes;
      Fetch<2>(later + a.in_unit / 2 * kPairWeightBytes, kPairWeightBytes);
      const int64_t place = (a.buffer * kTileChunk + a.at) * kTilePair + kAt;
      if (a.in_unit == 0) UnpackScales<kUnit>(unit, s, place);
      if constexpr (!kStored) {
        int8_t* const to = s.codes + (a.buffer * kTilePair + kAt) * kTileChunk * kTileGroupBytes;
        UnpackCodes<2>(unit, a.in_unit, to + a.at * kTileGroupBytes);
      }
      if constexpr (kAt + 1 == kTiles) {
        a.at += 2;
        a.in_unit += 2;
        if (a.in_unit == kUnit) {
          a.in_unit = 0;
          for (int t = 0; t < kTiles; ++t) a.unit[t] += kTile.unit_bytes;
        }
      }
    }
  }
  template <int kTiles>
  TESSERA_SIMD void UnpackRest(const LinearCall& c, const Scratch& s, Ahead<kTiles>& a) {
    while (a.at < a.count) {
      UnpackPair<kTiles, 0>(c, s, a);
      UnpackPair<kTiles, 1>(c, s, a);
    }
  }

  // Lays out the call's rows by group; of each group and row the scale d_x, and d_x * sum_x, or,
  // with what makes it a float, what is stored too much times the sum.
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
          const int32_t total = sum[2 * g] + sum[2 * g + 1];
          if constexpr (kMin) {
            x[kTileRows] = scale[g] * static_cast<float>(total);
          } else if constexpr (kStarts) {
            const int32_t start = kMagic - kFormat.zero * total;
            __builtin_memcpy(x + kTileRows, &start, 4);
          }
        }
      }
    }
  }

  // C tiles 2 * kSet and the next are those of a group.
  template <int kSet>
  TESSERA_SIMD void LoadRows(const Pair& p) {
    T::template Load<6>(p.q + kSet * kTileGroupBytes, 32);
  }
  template <int kTiles, int kSet, int kAt>
  TESSERA_SIMD void Product(const Pair& p) {
    if constexpr (kAt < kTiles) {
      constexpr int kC = 2 * kSet + kAt;
      T::template Load<7>(p.codes[kAt] + kSet * kTileGroupBytes, 64);
      T::template Zero<kC>();
      T::template DotI8U8<kC, 6, 7>();
    }
  }
  template <int kTiles, int kSet, int kAt>
  TESSERA_SIMD void Store(const Pair& p) {
    if constexpr (kAt < kTiles) {
      T::template Store<2 * kSet + kAt>(p.dots + (kSet * kTilePair + kAt) * kTileDots, 64);
    }
  }

  // The float of a sum, an integer below 2^22; `magic` is kMagic, and what it begins with.
  TESSERA_SIMD F Float(I dot, I magic) {
    return S::Sub(S::FromBits(S::IAdd(dot, magic)), S::Set1(0x1.8p23f));
  }

  // Adds kCount groups to the sums of kRows rows.
  template <int kTiles, int kCount, int kRows>
  TESSERA_SIMD void AddRows(const Pair& p, int32_t row) {
    constexpr int64_t kMinima = kTileChunks * kTileChunk * kTilePair * kTileRows;
    float* const acc = p.acc + row * kTileRows;
    F sums[kTiles][kRows];
#pragma GCC unroll 2
    for (int t = 0; t < kTiles; ++t) {
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) sums[t][r] = S::Load(acc + t * kTileDots + r * kTileRows);
    }
#pragma GCC unroll 2
    for (int g = 0; g < kCount; ++g) {
      const float* x = p.x + g * 2 * kTileRows + row;
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const F scale = S::Set1(x[r]);
        F sum;
        if constexpr (kMin) sum = S::Set1(x[kTileRows + r]);
        I magic;
        if constexpr (kStarts) {
          magic = S::Broadcast4(x + kTileRows + r);
        } else {
          magic = S::ISet1(kMagic);
        }
#pragma GCC unroll 2
        for (int t = 0; t < kTiles; ++t) {
          const float* d = p.d + (g * kTilePair + t) * kTileRows;
          const I dot = S::ILoad(p.dots + (g * kTilePair + t) * kTileDots + (row + r) * kTileRows);
          sums[t][r] = S::Fma(Float(dot, magic), S::Mul(S::Load(d), scale), sums[t][r]);
          if constexpr (kMin) sums[t][r] = S::Fma(S::Load(d + kMinima), sum, sums[t][r]);
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
  template <int kTiles, int kCount>
  TESSERA_SIMD void AddQuarter(const Pair& p, int32_t rows, int32_t quarter) {
    int32_t row = quarter * kQuarter;
    const int32_t left = rows - row;
    if (left >= kQuarter) return AddRows<kTiles, kCount, kQuarter>(p, row);
    if (left <= 0) return;
    if ((left & 2) != 0) {
      AddRows<kTiles, kCount, 2>(p, row);
      row += 2;
    }
    if ((left & 1) != 0) AddRows<kTiles, kCount, 1>(p, row);
  }
  template <int kTiles, int kCount>
  static __attribute__((noinline)) void AddLast(Pair p, int32_t rows) {
    for (int32_t quarter = 0; quarter < 4; ++quarter) AddQuarter<kTiles, kCount>(p, rows, quarter);
  }

  // The products of `p`, the sums of the pair before, unless there is none, and where no more rows
  // of the chunk follow what the next one needs.
  template <int kTiles, bool kFirst>
  TESSERA_SIMD void Two(const LinearCall& c, const Scratch& s, int32_t rows, bool unpack,
                        const Pair& p, const Pair& before, Ahead<kTiles>& ahead) {
    LoadRows<0>(p);
    Product<kTiles, 0, 0>(p);
    if constexpr (!kFirst) Store<kTiles, 1, 0>(before);
    Product<kTiles, 0, 1>(p);
    if constexpr (!kFirst) Store<kTiles, 1, 1>(before);
    if constexpr (!kFirst) AddQuarter<kTiles, 2>(before, rows, 0);
    LoadRows<1>(p);
    Product<kTiles, 1, 0>(p);
    Store<kTiles, 0, 0>(p);
    if (unpack) UnpackPair<kTiles, 0>(c, s, ahead);
    if constexpr (!kFirst) AddQuarter<kTiles, 2>(before, rows, 1);
    Product<kTiles, 1, 1>(p);
    if constexpr (!kFirst) AddQuarter<kTiles, 2>(before, rows, 2);
    Store<kTiles, 0, 1>(p);
    if (unpack) UnpackPair<kTiles, 1>(c, s, ahead);
    if constexpr (!kFirst) AddQuarter<kTiles, 2>(before, rows, 3);
  }

  template <int kTiles>
  static void Finish(const LinearCall& c, const Passes& passes, const Scratch& s, int32_t tile) {
    for (int32_t pass = 0; pass < passes.count; ++pass) {
      const int32_t begin = passes.Begin(pass);
      const int32_t skip = pass * passes.each - begin;
      for (int t = 0; t < kTiles; ++t) {
        EpilogueRows<S>(c, tile + t, c.row_begin + begin + skip, passes.each - skip,
                        s.acc + (pass * kTilePair + t) * kTileDots + skip * kTileRows);
      }
    }
  }

  // All rows of a call, tiles [tile, tile + kTiles), of which `ahead` has unpacked a chunk.
  template <int kTiles>
  static __attribute__((noinline)) void Outputs(const LinearCall& call, const Passes& passes,
                                                const Scratch& given, int32_t tile,
                                                Ahead<kTiles>& kept) {
    const LinearCall& c = call;
    const Scratch s = given;
    Ahead<kTiles> ahead = kept;
    const int32_t rows = passes.each, count = passes.count;
    for (int64_t i = 0; i < count * kTilePair * kTileDots; i += 16) S::Store(s.acc + i, S::Zero());
    Pair before = {};
    bool first = true;
    int64_t slot = 0;
    for (int64_t g = 0; g + 2 <= s.groups;) {
      const int64_t groups = ahead.count;
      Pair p;
      const int8_t* codes[kTiles];
      for (int t = 0; t < kTiles; ++t) codes[t] = ahead.codes[t];
      const float* const d = s.d + ahead.buffer * kTileChunk * kTilePair * kTileRows;
      Ahead<kTiles>::Chunk(c, s, ahead);
      for (int32_t pass = 0; pass < count; ++pass) {
        for (int t = 0; t < kTiles; ++t) p.codes[t] = codes[t];
        p.d = d;
        p.q = s.q + (pass * s.groups + g) * kTileGroupBytes;
        p.x = s.x + (pass * s.groups + g) * 2 * kTileRows;
        p.acc = s.acc + pass * kTilePair * kTileDots;
        const bool unpack = pass + 1 == count;
        for (int64_t i = 0; i < groups; i += 2) {
          p.dots = s.dots + slot * 2 * kTilePair * kTileDots;
          slot ^= 1;
          if (first) {
            Two<kTiles, true>(c, s, rows, unpack, p, before, ahead);
            first = false;
          } else {
            Two<kTiles, false>(c, s, rows, unpack, p, before, ahead);
          }
          before = p;
          for (int t = 0; t < kTiles; ++t) p.codes[t] += kPairBytes;
          p.d += 2 * kTilePair * kTileRows;
          p.q += 2 * kTileGroupBytes;
          p.x += 4 * kTileRows;
        }
      }
      UnpackRest<kTiles>(c, s, ahead);
      g += groups;
    }
    if (!first) {
      Store<kTiles, 1, 0>(before);
      Store<kTiles, 1, 1>(before);
      AddLast<kTiles, 2>(before, rows);
    }
    if (s.groups % 2 != 0) LastGroup<kTiles>(c, passes, s, tile, Next(ahead.buffer));
    kept = ahead;
    Finish<kTiles>(c, passes, s, tile);
  }

  // Where there is an odd one: a unit of its own, in a chunk of which nothing is needed.
  template <int kTiles>
  static void LastGroup(const LinearCall& c, const Passes& passes, const Scratch& s, int32_t tile,
                        int64_t buffer) {
    if constexpr (kTile.blocks == 2) {
      Pair p = {};
      p.d = s.d + buffer * kTileChunk * kTilePair * kTileRows;
      p.dots = s.dots;
      for (int t = 0; t < kTiles; ++t) {
        const std::byte* const unit =
            c.weight + (tile + t + 1) * c.tile_bytes - int64_t{kTile.single_bytes};
        UnpackScales<1>(unit, s, buffer * kTileChunk * kTilePair + t);
        int8_t* const to = s.codes + (buffer * kTilePair + t) * kTileChunk * kTileGroupBytes;
        if constexpr (!kStored) UnpackCodes<1>(unit, 0, to);
        p.codes[t] = kStored ? reinterpret_cast<const int8_t*>(unit) : to;
      }
      for (int32_t pass = 0; pass < passes.count; ++pass) {
        const int64_t at = pass * s.groups + s.groups - 1;
        p.q = s.q + at * kTileGroupBytes;
        p.x = s.x + at * 2 * kTileRows;
        p.acc = s.acc + pass * kTilePair * kTileDots;
        LoadRows<0>(p);
        Product<kTiles, 0, 0>(p);
        Product<kTiles, 0, 1>(p);
        Store<kTiles, 0, 0>(p);
        Store<kTiles, 0, 1>(p);
        AddLast<kTiles, 1>(p, passes.each);
      }
    }
  }

  template <int kTiles>
  static int32_t Run(const LinearCall& c, const Passes& passes, const Scratch& s, int32_t tile) {
    if (tile + kTiles > c.tile_end) return tile;
    Ahead<kTiles> ahead = {};
    // Chunks are about as long as one another: each unpacks the next.
    const int64_t units = s.groups / kUnit, chunks = (s.groups + kChunk - 1) / kChunk;
    ahead.most = (units + chunks - 1) / chunks * kUnit;
    Ahead<kTiles>::Outputs(c, s, tile, ahead);
    Ahead<kTiles>::Chunk(c, s, ahead);
    UnpackRest<kTiles>(c, s, ahead);
    for (; tile + kTiles <= c.tile_end; tile += kTiles) Outputs<kTiles>(c, passes, s, tile, ahead);
    return tile;
  }

  // Rows [row_begin, row_end) are 1 ... TileRowBlock(in).
  static void Call(const LinearCall& c) {
    const Passes passes(c);
    const Scratch s(c, passes.count);
    if (c.rows_kept == 0) TakeRows(c, passes, s);
    Configure(passes.each);
    const int32_t tile = Run<kTilePair>(c, passes, s, c.tile_begin);
    Run<1>(c, passes, s, tile);
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
