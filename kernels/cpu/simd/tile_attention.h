// Attention over pages of bf16 with products of tiles (ops/attention.h, "Pages of bf16", has the
// arithmetic). An item is a row of the tiles, and no row of a product depends on another.
//
// T: the tiles, simd/amx.h or what acts as they do.
#pragma once

#include "kernels/cpu/simd/bf16_attention.h"

namespace tessera::kernels::cpu {

template <class S, class T>
struct TileAttention : Bf16Attention<S> {
  using Base = Bf16Attention<S>;
  using Base::kRows;
  using Base::kTokens;
  using Base::RowsOf;
  using typename Base::Ahead;
  using typename Base::F;
  using typename Base::I;
  using typename Base::Pages;
  using typename Base::Sums;
  static constexpr int kTileBytes = 1024;  // as it lies in scratch
  // Fewer items are quicker with vectors. Estimated, not yet measured against each other, from a
  // Xeon with AMX: tiles take 1.3 us a page for up to 16 items, vectors 0.12 to 0.2 us an item.
  static constexpr int kItemsFrom = 9;
  static_assert(kItemsFrom > kPartItems && kItemsFrom <= kMaxItems + 1);

  struct Work : Base::Work {
    int64_t width;      // head_dim in steps of a product, 32
    float* aside;       // [16, width]
    uint16_t* p;        // [2, 16, 64] bf16
    uint16_t* q;        // [items, width] bf16: of 32 dimensions 0, 16, 1, 17, ...
    std::byte* keys;    // [width / 32, 4] tiles of 32 dimensions, tokens as in `scores`
    std::byte* values;  // [2, width / 16] tiles of 32 tokens, dimensions as in `run`
    int weighed;        // the half of `p` that was filled last
    int pending;        // block whose products with the page's values are still to come; -1: none
  };

  static void PackQueries(const Work& w) {
    const AttentionCall& c = *w.call;
    const auto load = [&](const float* q, int64_t d) {
      const int64_t left = c.head_dim - d;
      if (left >= 16) return S::Load(q + d);
      return left > 0 ? S::LoadN(q + d, static_cast<int>(left)) : S::Zero();
    };
    for (int item = 0; item < w.items; ++item) {
      const float* q = c.q + item / c.heads * c.q_stride + item % c.heads * c.head_dim;
      for (int64_t d = 0; d < w.width; d += 32) {
        const I low = S::template IShr<16>(Bf16<S>::Round(load(q, d)));
        S::IStore(w.q + item * w.width + d, S::Halves(low, Bf16<S>::Round(load(q, d + 16))));
      }
    }
  }

  // Pairs of the even and of the odd elements of two rows of 32, for the tiles `even` and 1 KiB on.
  TESSERA_SIMD void Pair(I a, I b, std::byte* even) {
    S::IStore(even, S::Halves(a, S::template IShl<16>(b)));
    S::IStore(even + kTileBytes, S::Halves(S::template IShr<16>(a), b));
  }

  // Of a page's [head_dim, 64] keys.
  static void PackKeys(const Work& w, const std::byte* keys) {
    const int64_t head_dim = w.call->head_dim;
    for (int64_t d = 0; d < w.width; d += 32) {
      for (int64_t j = 0; j < kRows; ++j) {
        const std::byte* a = keys + (d + j) * 2 * kTokens;
        const std::byte* b = a + 16 * 2 * kTokens;
        std::byte* to = w.keys + d / 32 * 4 * kTileBytes + j * 64;
        for (int half = 0; half < 2; ++half, a += 64, b += 64, to += 2 * kTileBytes) {
          const I low = d + j < head_dim ? S::ILoad(a) : S::IZero();
          const I high = d + j + 16 < head_dim ? S::ILoad(b) : S::IZero();
          Pair(low, high, to);
          __builtin_prefetch(a + w.ahead.bytes, 0, 2);
          __builtin_prefetch(b + w.ahead.bytes, 0, 2);
        }
      }
    }
  }

  // 32 elements of a token's values from `d`, zeros past the head and for tokens that nobody sees.
  TESSERA_SIMD I ValuesOf(const Work& w, const std::byte* values, int token, int64_t d, int from,
                          int seen) {
    if (token < from || token >= seen) return S::IZero();
    const int64_t head_dim = w.call->head_dim;
    const std::byte* at = values + (token * head_dim + d) * 2;
    __builtin_prefetch(at + w.ahead.bytes, 0, 2);
    if (head_dim - d >= 32) return S::ILoad(at);
    alignas(64) std::byte some[64] = {};
    __builtin_memcpy(some, at, static_cast<unsigned>(head_dim - d) * 2);
    return S::ILoad(some);
  }

  // Of a page's [64, head_dim] values, where all of them are seen and a head is whole tiles.
  static void PackAllValues(const Work& w, const std::byte* values) {
    const int64_t row = w.width * 2;
    for (int64_t d = 0; d < w.width; d += 32) {
      const std::byte* a = values + d * 2;
      for (int64_t tokens = 0; tokens < 2; ++tokens) {
        std::byte* to = w.values + (tokens * (w.width / 16) + d / 16) * kTileBytes;
        for (int j = 0; j < kRows; ++j, a += 2 * row, to += 64) {
          Pair(S::ILoad(a), S::ILoad(a + row), to);
          __builtin_prefetch(a + w.ahead.bytes, 0, 2);
          __builtin_prefetch(a + row + w.ahead.bytes, 0, 2);
        }
      }
    }
  }

  // Of the tokens [from, seen) of a page's [64, head_dim] values. Whether a value among them is not
  // finite and not seen by all items.
  static bool PackValues(const Work& w, const std::byte* values, int from, int seen) {
    if (w.whole && w.call->head_dim == w.width) {
      PackAllValues(w, values);
      return false;
    }
    const I magnitude = S::ISet1(0x7fffffff);
    I largest = S::IZero();
    for (int64_t d = 0; d < w.width; d += 32) {
      for (int j = 0; j < kTokens / 2; ++j) {
        const I a = ValuesOf(w, values, 2 * j, d, from, seen);
        const I b = ValuesOf(w, values, 2 * j + 1, d, from, seen);
        Pair(a, b, w.values + (j / kRows * (w.width / 16) + d / 16) * kTileBytes + j % kRows * 64);
        if (w.whole) continue;
        for (const I& v : {a, b}) {
          largest = S::IMax(largest, S::IAnd(v, magnitude));
          largest = S::IMax(largest, S::IAnd(S::template IShl<16>(v), magnitude));
        }
      }
    }
    return S::IReduceMax(largest) >= 0x7f800000;
  }

  // The products of a block of items with the page's keys.
  static void Scores(const Work& w, int block, float* scores) {
    T::template Zero<0>();
    T::template Zero<1>();
    T::template Zero<2>();
    T::template Zero<3>();
    const uint16_t* q = w.q + block * kRows * w.width;
    const std::byte* k = w.keys;
    for (int64_t d = 0; d < w.width; d += 32, k += 4 * kTileBytes) {
      T::template Load<4>(q + d, w.width * 2);
      T::template Load<5>(k, 64);
      T::template DotBf16<0, 4, 5>();
      T::template Load<6>(k + kTileBytes, 64);
      T::template DotBf16<1, 4, 6>();
      T::template Load<7>(k + 2 * kTileBytes, 64);
      T::template DotBf16<2, 4, 7>();
      T::template Load<5>(k + 3 * kTileBytes, 64);
      T::template DotBf16<3, 4, 5>();
    }
    T::template Store<0>(scores, kTokens * 4);
    T::template Store<1>(scores + 16, kTokens * 4);
    T::template Store<2>(scores + 32, kTokens * 4);
    T::template Store<3>(scores + 48, kTokens * 4);
  }

  // Probabilities of a block, [16, 64], times the values of N tiles of dimensions.
  template <int N>
  TESSERA_SIMD void ValueTiles(const Work& w, const uint16_t* p, float* acc, int64_t tile) {
    float* to = acc + tile * 16;
    const int64_t stride = w.width * 4;
    T::template Load<0>(to, stride);
    T::template Load<1>(to + 16, stride);
    if constexpr (N == 4) T::template Load<2>(to + 32, stride);
    if constexpr (N == 4) T::template Load<3>(to + 48, stride);
    for (int64_t tokens = 0; tokens < 2; ++tokens) {
      const std::byte* v = w.values + (tokens * (w.width / 16) + tile) * kTileBytes;
      T::template Load<4>(p + tokens * 32, kTokens * 2);
      T::template Load<5>(v, 64);
      T::template DotBf16<0, 4, 5>();
      T::template Load<6>(v + kTileBytes, 64);
      T::template DotBf16<1, 4, 6>();
      if constexpr (N == 4) {
        T::template Load<7>(v + 2 * kTileBytes, 64);
        T::template DotBf16<2, 4, 7>();
        T::template Load<5>(v + 3 * kTileBytes, 64);
        T::template DotBf16<3, 4, 5>();
      }
    }
    T::template Store<0>(to, stride);
    T::template Store<1>(to + 16, stride);
    if constexpr (N == 4) T::template Store<2>(to + 32, stride);
    if constexpr (N == 4) T::template Store<3>(to + 48, stride);
  }

  static void Values(const Work& w, const uint16_t* p, float* acc) {
    int64_t tile = 0;
    for (; tile + 4 <= w.width / 16; tile += 4) ValueTiles<4>(w, p, acc, tile);
    if (tile < w.width / 16) ValueTiles<2>(w, p, acc, tile);
  }

  // The products that were put off, of the block that was weighed `ago` blocks before the last.
  TESSERA_SIMD void Pending(Work& w, int ago) {
    if (w.pending < 0) return;
    Values(w, w.p + (w.weighed ^ ago) * kRows * kTokens, w.run.acc + w.pending * kRows * w.width);
    w.pending = -1;
  }

  // The same where a value that not all items see is no finite number: nothing times that is not
  // nothing, so each item has the products of its own tokens alone.
  static void ValuesOneByOne(const Work& w, const std::byte* values, int block) {
    for (int row = 0; row < RowsOf(w, block); ++row) {
      const int item = block * kRows + row;
      if (w.from[item] >= w.seen[item]) continue;
      float* acc = w.run.acc + block * kRows * w.width;
      const int64_t bytes = kRows * w.width * 4;
      PackValues(w, values, w.from[item], w.seen[item]);
      __builtin_memcpy(w.aside, acc, static_cast<size_t>(bytes));
      Values(w, w.p + w.weighed * kRows * kTokens, w.aside);
      __builtin_memcpy(acc + row * w.width, w.aside + row * w.width,
                       static_cast<size_t>(w.width) * 4);
    }
  }

  TESSERA_SIMD bool AnySees(const Work& w, int block) {
    if (w.whole) return true;
    int most = 0;
    for (int row = 0; row < RowsOf(w, block); ++row) most |= w.seen[block * kRows + row];
    return most > 0;
  }

  static void Page(Work& w, uint32_t page, const Ahead& ahead, int64_t logical_page,
                   uint32_t heads) {
    const AttentionCall& c = *w.call;
    const std::byte* at = c.arena + uint64_t{page} * kPageUnit;
    w.ahead = ahead;
    int tokens[2];
    Base::Look(w, c.position - logical_page * kTokens, heads, tokens);
    if (tokens[1] == 0) return;
    const F to_exponent = Base::ToExponent(c);
    const int blocks = (w.items + kRows - 1) / kRows;
    // A tile does not see what was just stored until that has reached the cache, nor the other way
    // round: between the two of each pair is other work.
    PackKeys(w, at + c.k_offset);
    Scores(w, 0, w.scores);
    Pending(w, 0);
    const bool apart = PackValues(w, at + c.v_offset, tokens[0], tokens[1]);
    for (int block = 0; block < blocks; ++block) {
      float* scores = w.scores + block % 2 * kRows * kTokens;
      if (block + 1 < blocks) Scores(w, block + 1, w.scores + (block + 1) % 2 * kRows * kTokens);
      if (!AnySees(w, block)) continue;
      if (!w.whole || c.softcap > 0) Base::CapAndMask(w, block, scores);
      Base::Raise(w, block, scores, to_exponent);
      w.weighed ^= 1;
      uint16_t* p = w.p + w.weighed * kRows * kTokens;
      Base::Weigh(
          w, block, scores,
          to_exponent, [&](int row, int half, I even, I odd) __attribute__((always_inline)) {
            S::IStore(p + row * kTokens + half * 32, S::Halves(S::template IShr<16>(even), odd));
          });
      if (apart) {
        ValuesOneByOne(w, at + c.v_offset, block);
      } else {
        Pending(w, 1);
        w.pending = block;
      }
    }
  }

  static Sums Start(Work& w, const AttentionCall& c) {
    w.call = &c;
    w.width = TileWidth(c.head_dim);
    w.items = c.queries * c.heads;
    w.weighed = 0;
    w.pending = -1;
    // The rows after the last item are products too.
    const int rows = (w.items + kRows - 1) / kRows * kRows;
    const int64_t room = SumFloats(kTileItems, w.width);
    w.run = Pages::At(c.scratch, kTileItems, w.width, rows);
    w.aside = c.scratch + 2 * room;
    w.base = w.aside + kRows * w.width;
    w.scores = w.base + kRows;
    w.p = reinterpret_cast<uint16_t*>(w.scores + 2 * kRows * kTokens);
    w.q = w.p + 2 * kRows * kTokens;
    w.keys = reinterpret_cast<std::byte*>(w.q + kTileItems * w.width);
    w.values = w.keys + kTokens * w.width * 2;
    for (int64_t i = w.items * w.width; i < rows * w.width; i += 32) S::IStore(w.q + i, S::IZero());
    PackQueries(w);
    typename T::Config config;
    const int used = w.items < kRows ? w.items : kRows;
    for (int tile = 0; tile < 8; ++tile) {
      config.row_bytes[tile] = 64;
      config.rows[tile] = static_cast<uint8_t>(tile < 5 ? used : kRows);
    }
    T::Configure(config);
    Pages::Clear(w.run);
    return Pages::At(c.scratch + room, kTileItems, w.width, w.items);
  }

  // With tiles, up to kTileItems, but for parts of a call.
  static void Run(const AttentionCall& c) {
    if (c.part != nullptr) return Base::Run(c);
    const FlushSubnormals<S> flush;
    Work w;
    const Sums total = Start(w, c);
    Base::Begin(c, total);
    Pages::Visit(
        c,
        [&](uint32_t page, const Ahead& ahead, int64_t logical, uint32_t heads) {
          Page(w, page, ahead, logical, heads);
        },
        [&] {
          Pending(w, 0);
          Pages::Add(w.run, total, typename Base::Factor());
          Pages::Clear(w.run);
        });
    T::Release();
    Base::Finish(c, total);
  }

  // However it is faster.
  static void Attend(const AttentionCall& c) {
    if (c.queries * c.heads < kItemsFrom) return Base::Run(c);
    Run(c);
  }
};

}  // namespace tessera::kernels::cpu
