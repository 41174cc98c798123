// Products of block formats whose groups have no halves (tile16 layout, cpu/layout.h) with int8
// activations, on tile registers.
//
// A step of the packed layout, 16 outputs x 4 k, is a row of a B tile; a group of 32 is 8 of them.
// The codes of 16 outputs are unpacked once, as signed values, for all rows of a call; then 16 rows
// at a time take one tile product a group, whose sums are exact, and the float arithmetic of
// ops/linear.h in its order: the bits are those of simd/linear_int8.h.
//
// S is a type of sixteen lanes, T one of tiles (simd/amx.h, or what emulates it in tests).
#pragma once

#include "kernels/cpu/simd/epilogue.h"
#include "kernels/cpu/simd/linear_int8.h"

namespace tessera::kernels::cpu {

// What a thread has in LinearCall::scratch. Of 16 outputs: codes [kTileChunk][8][16][4] and the
// scales and minima of their groups [kTileChunk][16]. Of the rows of a call, 16 to a pass: sums
// [passes][16 rows][16 outputs], d_x and d_x * sum_x [passes][groups][16 rows].
template <class S>
struct TileScratch {
  TileScratch(const LinearCall& c, int64_t passes)
      : codes(reinterpret_cast<int8_t*>(c.scratch)),
        dots(reinterpret_cast<int32_t*>(codes + kTileChunk * kTileGroupBytes)),
        d(reinterpret_cast<float*>(dots + 2 * kTileBatch * kTileDots)),
        m(d + kTileChunk * kTileRows),
        acc(m + kTileChunk * kTileRows),
        dx(acc + passes * kTileRows * kTileRows),
        dx_sum(dx + passes * kTileRows * (c.in / 32)) {}
  int8_t* codes;
  int32_t* dots;  // two batches of products
  float* d;
  float* m;
  float* acc;
  float* dx;
  float* dx_sum;
};

// One pass: up to 16 rows, the groups of a chunk, 16 outputs. Of no weight type.
template <class S, class T, bool kMin>
struct TilePass {
  using F = typename S::F;

  const int8_t* q;  // of the first row and group
  int64_t q_stride;
  const float* dx;  // of the first group
  const float* dx_sum;
  float* acc;
  int64_t groups;

  // Products of groups kAt ... count - 1 of a batch, whose codes begin at `codes`.
  template <int kAt = 0>
  TESSERA_SIMD void Products(const int8_t* q, int64_t stride, const int8_t* codes, int64_t count,
                             int32_t* dots) {
    if (kAt >= count) return;
    T::template Load<4 + kAt % 2>(q + kAt * 32, stride);
    T::template Load<6 + kAt % 2>(codes + kAt * kTileGroupBytes, 64);
    T::template Zero<kAt>();
    T::template DotI8<kAt, 4 + kAt % 2, 6 + kAt % 2>();
    if constexpr (kAt + 1 < kTileBatch) Products<kAt + 1>(q, stride, codes, count, dots);
    T::template Store<kAt>(dots + kAt * kTileDots, 64);
  }

  template <int kRows>
  TESSERA_SIMD void Scale(F (&sums)[kRows], const int32_t* dots, const float* scale,
                          const float* minimum, const float* row_scale, const float* row_sum) {
    const F d = S::Load(scale);
    F m;
    if constexpr (kMin) m = S::Load(minimum);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const F dot = S::ToFloat(S::ILoad(dots + r * kTileRows));
      sums[r] = S::Fma(dot, S::Mul(d, S::Set1(row_scale[r])), sums[r]);
      if constexpr (kMin) sums[r] = S::Fma(m, S::Set1(row_sum[r]), sums[r]);
    }
  }

  // While the sums of a batch are scaled, the products of the next are under way.
  template <int kRows>
  static __attribute__((noinline)) void Run(const TilePass& pass, const TileScratch<S>& scratch) {
    const TilePass p = pass;
    F sums[kRows];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) sums[r] = S::Load(p.acc + r * kTileRows);
    int32_t* now = scratch.dots;
    int32_t* next = now + kTileBatch * kTileDots;
    Products(p.q, p.q_stride, scratch.codes, p.groups, now);
    for (int64_t g = 0; g < p.groups; g += kTileBatch) {
      const int64_t after = g + kTileBatch;
      Products(p.q + after * 32, p.q_stride, scratch.codes + after * kTileGroupBytes,
               p.groups - after, next);
      const int64_t end = after < p.groups ? after : p.groups;
      for (int64_t i = g; i < end; ++i) {
        Scale<kRows>(sums, now + (i - g) * kTileDots, scratch.d + i * kTileRows,
                     scratch.m + i * kTileRows, p.dx + i * kTileRows, p.dx_sum + i * kTileRows);
      }
      int32_t* const done = now;
      now = next;
      next = done;
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) S::Store(p.acc + r * kTileRows, sums[r]);
  }

  static void Run(int32_t rows, const TilePass& pass, const TileScratch<S>& scratch) {
    if (rows <= 4) return Run<4>(pass, scratch);
    if (rows <= 8) return Run<8>(pass, scratch);
    if (rows <= 12) return Run<12>(pass, scratch);
    Run<16>(pass, scratch);
  }
};

template <class S, class T, DType kType>
struct TileLinear {
  using F = typename S::F;
  using I = typename S::I;
  using Ints = Int8Linear<S, kType>;
  using Scales = BlockScales<S, kType>;
  using Scratch = TileScratch<S>;
  using Pass = TilePass<S, T, Scales::kMin>;
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

  static void SpreadRowScales(const LinearCall& c, const Passes& passes, const Scratch& s) {
    const int64_t groups = c.in / 32;
    for (int32_t p = 0; p < passes.count; ++p) {
      const int64_t first = c.row_begin + passes.Begin(p);
      for (int64_t r = 0; r < kTileRows; ++r) {
        const float* dx = c.x_scale + (first + r) * groups;
        const int16_t* sum = c.x_sum + (first + r) * groups * 2;
        const int64_t to = p * groups * kTileRows + r;
        for (int64_t g = 0; g < groups; ++g) {
          s.dx[to + g * kTileRows] = r < passes.each ? dx[g] : 0;
          if constexpr (Scales::kMin) {
            s.dx_sum[to + g * kTileRows] =
                r < passes.each ? dx[g] * static_cast<float>(sum[2 * g] + sum[2 * g + 1]) : 0;
          }
        }
      }
    }
  }

  template <int kStep>
  TESSERA_SIMD void UnpackSteps(const std::byte* group, I table, int8_t* to) {
    constexpr int kOrdered = kTile.low.bits != 4 ? kStep : kStep / 2 + kStep % 2 * 4;
    const I value = S::ISub8(Ints::template Stored<kOrdered>(group, table), S::ISet8(kFormat.zero));
    S::IStore(to + kOrdered * 64, value);
    if constexpr (kStep + 1 < Ints::kSteps) UnpackSteps<kStep + 1>(group, table, to);
  }

  // A unit whose first group is group `at` of the chunk.
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

  // `count` groups, the first of a unit on; returns where the codes go on.
  static const std::byte* Unpack(const std::byte* from, int64_t count, const Scratch& s) {
    int64_t g = 0;
    for (; g + kUnit <= count; g += kUnit, from += kTile.unit_bytes) UnpackUnit<kUnit>(from, g, s);
    if constexpr (kTile.blocks == 2) {
      if (g < count) {
        UnpackUnit<1>(from, g, s);
        from += kTile.single_bytes;
      }
    }
    return from;
  }

  static void Finish(const LinearCall& c, const Passes& passes, const Scratch& s, int32_t tile) {
    for (int32_t p = 0; p < passes.count; ++p) {
      const float* acc = s.acc + p * kTileRows * kTileRows;
      const int32_t begin = passes.Begin(p);
      for (int32_t r = p * passes.each - begin; r < passes.each; ++r) {
        Epilogue16<S>(c, tile, c.row_begin + begin + r, S::Load(acc + r * kTileRows));
      }
    }
  }

  // Rows [row_begin, row_end) are 1 ... TileRowBlock(in).
  static void Call(const LinearCall& c) {
    const int64_t groups = c.in / 32;
    const Passes passes(c);
    const Scratch s(c, passes.count);
    Configure(passes.each);
    SpreadRowScales(c, passes, s);
    for (int i = 0; i < 2 * kTileBatch * kTileDots; i += 16) S::IStore(s.dots + i, S::IZero());
    const std::byte* from = c.weight + c.tile_begin * c.tile_bytes;
    for (int32_t tile = c.tile_begin; tile < c.tile_end; ++tile) {
      for (int32_t i = 0; i < passes.count * kTileRows; ++i) {
        S::Store(s.acc + i * kTileRows, S::Zero());
      }
      for (int64_t g = 0; g < groups; g += kTileChunk) {
        const int64_t count = groups - g < kTileChunk ? groups - g : kTileChunk;
        from = Unpack(from, count, s);
        for (int32_t p = 0; p < passes.count; ++p) {
          const int64_t at = (p * groups + g) * kTileRows;
          const int64_t row = c.row_begin + passes.Begin(p);
          Pass::Run(passes.each,
                    {.q = c.q + row * c.in + g * 32,
                     .q_stride = c.in,
                     .dx = s.dx + at,
                     .dx_sum = s.dx_sum + at,
                     .acc = s.acc + p * kTileRows * kTileRows,
                     .groups = count},
                    s);
        }
      }
      Finish(c, passes, s, tile);
    }
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
