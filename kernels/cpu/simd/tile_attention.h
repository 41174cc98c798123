// Attention over pages of bf16 with products of tiles (ops/attention.h, "Tiles", has the
// arithmetic). An item is one (query, head) of one KV head: a row of the tiles. No row of a product
// of tiles depends on another, so no item's arithmetic depends on which others it shares them with.
//
// T: the tiles, simd/amx.h or what acts as they do.
#pragma once

#include "kernels/cpu/micro.h"
#include "kernels/cpu/simd/math.h"

namespace tessera::kernels::cpu {

template <class S, class T>
struct TileAttention {
  using F = typename S::F;
  using I = typename S::I;
  static constexpr int kTokens = 64;
  static constexpr int kRows = 16;         // of a tile
  static constexpr int kTileBytes = 1024;  // as it lies in scratch

  struct Work {
    const AttentionCall* call;
    int64_t width;  // head_dim in steps of a product, 32
    int items;
    float* acc;            // [items, width]: of 32 dimensions the even ones, then the odd
    float* aside;          // [16, width]
    float* sum;            // [items, 16]
    float* reference;      // [items] exponents
    float* base;           // [16]
    float* scores;         // [2, 16, 64]: of 32 tokens the even ones, then the odd
    uint16_t* p;           // [2, 16, 64] bf16
    uint16_t* q;           // [items, width] bf16: of 32 dimensions 0, 16, 1, 17, ...
    std::byte* keys;       // [width / 32, 4] tiles of 32 dimensions, tokens as in `scores`
    std::byte* values;     // [2, width / 16] tiles of 32 tokens, dimensions as in `acc`
    int64_t next;          // bytes from this page to the one read after it
    bool whole;            // each item sees all tokens of the page
    int from[kTileItems];  // else item i sees [from, seen)
    int seen[kTileItems];
    int weighed;  // the half of `p` that was filled last
    int pending;  // block whose products with the page's values are still to come; -1: none
  };

  TESSERA_SIMD int RowsOf(const Work& w, int block) {
    const int left = w.items - block * kRows;
    return left < kRows ? left : kRows;
  }

  // The high half of each lane is x in bf16: nearest, ties to even.
  TESSERA_SIMD I Round(F x) {
    const I bits = S::Bits(x);
    const I odd = S::IAnd(S::template IShr<16>(bits), S::ISet1(1));
    const I rounded = S::IAdd(bits, S::IAdd(odd, S::ISet1(0x7fff)));
    // What is not a number would round to one.
    const F magnitude = S::FromBits(S::IAnd(bits, S::ISet1(0x7fffffff)));
    return S::Bits(S::SelectGreater(magnitude, S::Set1(-1.0f), S::FromBits(rounded), x));
  }

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
        const I low = S::template IShr<16>(Round(load(q, d)));
        S::IStore(w.q + item * w.width + d, S::Halves(low, Round(load(q, d + 16))));
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
          __builtin_prefetch(a + w.next, 0, 2);
          __builtin_prefetch(b + w.next, 0, 2);
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
    __builtin_prefetch(at + w.next, 0, 2);
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
          __builtin_prefetch(a + w.next, 0, 2);
          __builtin_prefetch(a + row + w.next, 0, 2);
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

  // Soft-capped, and minus infinity where the item does not look.
  static void CapAndMask(const Work& w, int block, float* scores) {
    const AttentionCall& c = *w.call;
    const F nothing = S::Set1(-__builtin_inff());
    for (int row = 0; row < RowsOf(w, block); ++row) {
      const int item = block * kRows + row;
      for (int part = 0; part < 4; ++part) {
        float* at = scores + row * kTokens + part * 16;
        F s = S::Load(at);
        if (c.softcap > 0) {
          s = Math<S>::SoftCap(S::Mul(s, S::Set1(c.scale)), S::Set1(c.softcap));
        }
        if (!w.whole) {
          // Lane j is token first + 2 j.
          const int first = part / 2 * 32 + part % 2;
          const int seen = (w.seen[item] - first + 1) / 2;
          const int from = (w.from[item] - first + 1) / 2;
          s = w.seen[item] > first ? S::KeepFirst(s, seen, nothing) : nothing;
          if (w.from[item] > first) s = S::KeepFirst(nothing, from, s);
        }
        S::Store(at, s);
      }
    }
  }

  TESSERA_SIMD F LargestOf(const float* scores, int rows) {
    const auto largest = [&](int row) __attribute__((always_inline)) {
      const float* at = scores + row * kTokens;
      return S::Max(S::Max(S::Load(at), S::Load(at + 16)),
                    S::Max(S::Load(at + 32), S::Load(at + 48)));
    };
    if (rows == kRows) {
      F each[kRows];
#pragma GCC unroll 16
      for (int row = 0; row < kRows; ++row) each[row] = largest(row);
      return S::MaxOfEach(each);
    }
    float each[kRows];
    S::Store(each, S::Set1(-__builtin_inff()));
    for (int row = 0; row < rows; ++row) each[row] = S::ReduceMax(largest(row));
    return S::Load(each);
  }

  // 2^d for d <= 0, d a whole number or minus infinity.
  TESSERA_SIMD float PowerOfTwo(float d) {
    if (!(d >= -126)) return d < 0 ? 0 : d;
    const uint32_t bits = static_cast<uint32_t>(static_cast<int32_t>(d) + 127) << 23;
    float power;
    __builtin_memcpy(&power, &bits, 4);
    return power;
  }

  // The items' exponents with this page's; what was summed under a smaller one is scaled down.
  TESSERA_SIMD void Raise(Work& w, int block, const float* scores, F to_exponent) {
    const int rows = RowsOf(w, block);
    float* reference = w.reference + block * kRows;
    const F before = S::Load(reference);
    const F after = S::Max(before, S::RoundUp(S::Mul(LargestOf(scores, rows), to_exponent)));
    S::Store(w.base, S::Sub(S::Set1(kMagic), S::Max(S::Set1(-1e30f), after)));
    if (S::CountGreater(after, before) == 0) return;
    float old[kRows];
    S::Store(old, before);
    S::Store(reference, after);
    for (int row = 0; row < rows; ++row) {
      if (!(reference[row] > old[row])) continue;
      const F factor = S::Set1(PowerOfTwo(old[row] - reference[row]));
      const int item = block * kRows + row;
      S::Store(w.sum + item * 16, S::Mul(S::Load(w.sum + item * 16), factor));
      float* acc = w.acc + item * w.width;
      for (int64_t d = 0; d < w.width; d += 16) S::Store(acc + d, S::Mul(S::Load(acc + d), factor));
    }
  }

  static constexpr float kMagic = 12582912;  // 3 * 2^22: what is added to it keeps no fraction

  // 2^(score * to_exponent - reference), base = kMagic - reference; 0 below 2^-126.
  TESSERA_SIMD F Power(F score, F to_exponent, F base) {
    const F shifted = S::Fma(score, to_exponent, base);
    const F r = S::Fma(score, to_exponent, S::Sub(base, shifted));
    F p = S::Set1(kCubic[3]);
    p = S::Fma(p, r, S::Set1(kCubic[2]));
    p = S::Fma(p, r, S::Set1(kCubic[1]));
    p = S::Fma(p, r, S::Set1(kCubic[0]));
    p = S::FromBits(S::IAdd(S::Bits(p), S::template IShl<23>(S::Bits(shifted))));
    return S::ZeroWhereLess(shifted, S::Set1(kMagic - 126), p);
  }
  // 2^r on [-1/2, 1/2], relative error below 7.5e-5.
  static constexpr float kCubic[4] = {0.99992806f, 0.69326097f, 0.24261113f, 0.05517167f};

  // Scores to probabilities in bf16 (nearest, ties up), and their sums.
  TESSERA_SIMD void Weigh(Work& w, int block, const float* scores, F to_exponent) {
    const I half = S::ISet1(0x8000);
    w.weighed ^= 1;
    uint16_t* p = w.p + w.weighed * kRows * kTokens;
    for (int row = 0; row < RowsOf(w, block); ++row) {
      const F base = S::Set1(w.base[row]);
      float* sum = w.sum + (block * kRows + row) * 16;
      F lanes = S::Load(sum);
#pragma GCC unroll 2
      for (int part = 0; part < 2; ++part) {
        const float* at = scores + row * kTokens + part * 32;
        const F even = Power(S::Load(at), to_exponent, base);
        const F odd = Power(S::Load(at + 16), to_exponent, base);
        lanes = S::Add(S::Add(lanes, even), odd);
        const I low = S::template IShr<16>(S::IAdd(S::Bits(even), half));
        S::IStore(p + row * kTokens + part * 32, S::Halves(low, S::IAdd(S::Bits(odd), half)));
      }
      S::Store(sum, lanes);
    }
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
    Values(w, w.p + (w.weighed ^ ago) * kRows * kTokens, w.acc + w.pending * kRows * w.width);
    w.pending = -1;
  }

  // The same where a value that not all items see is no finite number: nothing times that is not
  // nothing, so each item has the products of its own tokens alone.
  static void ValuesOneByOne(const Work& w, const std::byte* values, int block) {
    for (int row = 0; row < RowsOf(w, block); ++row) {
      const int item = block * kRows + row;
      if (w.from[item] >= w.seen[item]) continue;
      float* acc = w.acc + block * kRows * w.width;
      const int64_t bytes = kRows * w.width * 4;
      PackValues(w, values, w.from[item], w.seen[item]);
      __builtin_memcpy(w.aside, acc, static_cast<size_t>(bytes));
      Values(w, w.p + w.weighed * kRows * kTokens, w.aside);
      __builtin_memcpy(acc + row * w.width, w.aside + row * w.width,
                       static_cast<size_t>(w.width) * 4);
    }
  }

  // Which tokens each item sees of a page whose first token lies `offset` before the first query.
  // `tokens`: what any of them sees.
  static void Look(Work& w, int64_t offset, uint32_t heads, int (&tokens)[2]) {
    const AttentionCall& c = *w.call;
    tokens[0] = 0;
    tokens[1] = kTokens;
    w.whole = c.table != nullptr && offset >= kTokens - 1 &&
              (c.window == 0 || offset + c.queries <= c.window);
    if (w.whole) return;
    tokens[0] = kTokens;
    tokens[1] = 0;
    for (int32_t query = 0; query < c.queries; ++query) {
      const int64_t end = offset + query + 1;
      const int64_t begin = c.window > 0 && end > c.window ? end - c.window : 0;
      for (int32_t head = 0; head < c.heads; ++head) {
        const bool reads = c.table != nullptr || (heads >> (c.first_head + head) & 1) != 0;
        const bool any = reads && end > 0 && begin < kTokens;
        const int from = any ? static_cast<int>(begin) : 0;
        const int seen = !any ? 0 : end < kTokens ? static_cast<int>(end) : kTokens;
        w.from[query * c.heads + head] = from;
        w.seen[query * c.heads + head] = seen;
        if (any && from < tokens[0]) tokens[0] = from;
        if (seen > tokens[1]) tokens[1] = seen;
      }
    }
  }

  TESSERA_SIMD bool AnySees(const Work& w, int block) {
    if (w.whole) return true;
    int most = 0;
    for (int row = 0; row < RowsOf(w, block); ++row) most |= w.seen[block * kRows + row];
    return most > 0;
  }

  static void Page(Work& w, uint32_t page, uint32_t next, int64_t logical_page, uint32_t heads) {
    const AttentionCall& c = *w.call;
    const std::byte* at = c.arena + uint64_t{page} * 512;
    w.next = (int64_t{next} - int64_t{page}) * 512;
    int tokens[2];
    Look(w, c.position - logical_page * kTokens, heads, tokens);
    if (tokens[1] == 0) return;
    const F to_exponent = S::Set1((c.softcap > 0 ? 1.0f : c.scale) * 1.44269504f);
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
      if (!w.whole || c.softcap > 0) CapAndMask(w, block, scores);
      Raise(w, block, scores, to_exponent);
      Weigh(w, block, scores, to_exponent);
      if (apart) {
        ValuesOneByOne(w, at + c.v_offset, block);
      } else {
        Pending(w, 1);
        w.pending = block;
      }
    }
  }

  static void Start(Work& w, const AttentionCall& c) {
    w.call = &c;
    w.width = TileWidth(c.head_dim);
    w.items = c.queries * c.heads;
    w.weighed = 0;
    w.pending = -1;
    w.acc = c.scratch;
    w.aside = w.acc + kTileItems * w.width;
    w.sum = w.aside + kRows * w.width;
    w.reference = w.sum + kTileItems * 16;
    w.base = w.reference + kTileItems;
    w.scores = w.base + 16;
    w.p = reinterpret_cast<uint16_t*>(w.scores + 2 * kRows * kTokens);
    w.q = w.p + 2 * kRows * kTokens;
    w.keys = reinterpret_cast<std::byte*>(w.q + kTileItems * w.width);
    w.values = w.keys + kTokens * w.width * 2;
    // The rows after the last item are products too.
    const int64_t rows = (w.items + kRows - 1) / kRows * kRows;
    for (int64_t i = 0; i < rows * w.width; i += 16) S::Store(w.acc + i, S::Zero());
    for (int64_t i = 0; i < rows; ++i) {
      w.reference[i] = -__builtin_inff();
      S::Store(w.sum + i * 16, S::Zero());
    }
    for (int64_t i = w.items * w.width; i < rows * w.width; i += 32) S::IStore(w.q + i, S::IZero());
    for (int i = 0; i < w.items && c.sinks != nullptr; ++i) {
      const float sink = c.sinks[i % c.heads];
      if (sink == -__builtin_inff()) continue;
      const F exponent = S::RoundUp(S::Mul(S::Set1(sink), S::Set1(1.44269504f)));
      S::StoreN(w.reference + i, exponent, 1);
      S::StoreN(w.sum + i * 16,
                Power(S::Set1(sink), S::Set1(1.44269504f), S::Sub(S::Set1(kMagic), exponent)), 1);
    }
    PackQueries(w);
    typename T::Config config;
    const int used = w.items < kRows ? w.items : kRows;
    for (int tile = 0; tile < 8; ++tile) {
      config.row_bytes[tile] = 64;
      config.rows[tile] = static_cast<uint8_t>(tile < 5 ? used : kRows);
    }
    T::Configure(config);
  }

  static void Run(const AttentionCall& c) {
    Work w;
    Start(w, c);
    if (c.table != nullptr) {
      const int64_t pages = (int64_t{c.position} + c.queries + kTokens - 1) / kTokens;
      // Those before the first query's window are not looked at.
      const int64_t before = int64_t{c.position} + 1 - c.window;
      const int64_t first = c.window > 0 && before > 0 ? before / kTokens : 0;
      for (int64_t i = first; i < pages; ++i) {
        Page(w, c.table[i], c.table[i + 1 < pages ? i + 1 : i], i, 0);
      }
    } else {
      for (int64_t i = 0; i < c.entry_count; ++i) {
        const uint32_t packed = c.entries[2 * i + 1];
        const uint32_t next = c.entries[2 * (i + 1 < c.entry_count ? i + 1 : i)];
        Page(w, c.entries[2 * i], next, packed & 0xffffff, packed >> 24);
      }
    }
    Pending(w, 0);
    T::Release();
    for (int i = 0; i < w.items; ++i) Finish(w, i);
  }

  static void Finish(const Work& w, int item) {
    const AttentionCall& c = *w.call;
    float* out = c.out + item / c.heads * c.out_stride + item % c.heads * c.head_dim;
    const float total = S::ReduceAdd(S::Load(w.sum + item * 16));
    // An item that read nothing is zero.
    const F sum = S::Set1(total == 0 ? 1.0f : total);
    for (int64_t d = 0; d < c.head_dim; d += 32) {
      const float* acc = w.acc + item * w.width + d;
      // Products of unseen tokens are zeros of either sign: a zero has none left.
      const F even = S::Add(S::Div(S::Load(acc), sum), S::Zero());
      const F odd = S::Add(S::Div(S::Load(acc + 16), sum), S::Zero());
      if (c.head_dim - d >= 32) {
        S::StoreAlternating(out + d, even, odd);
        continue;
      }
      float some[32];
      S::StoreAlternating(some, even, odd);
      __builtin_memcpy(out + d, some, static_cast<size_t>(c.head_dim - d) * 4);
    }
  }
};

}  // namespace tessera::kernels::cpu
