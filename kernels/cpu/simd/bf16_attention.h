// Attention over pages of bf16 (ops/attention.h, "Pages of bf16", has the arithmetic): what every
// way to multiply has in common, and the one with vectors, which reads a page as it lies and takes
// the same steps as products of tiles do (simd/tile_attention.h). An item is one (query, head) of
// one KV head; no item's arithmetic depends on which others it shares a pass with.
#pragma once

#include "kernels/cpu/simd/attention_pages.h"
#include "kernels/cpu/simd/kv.h"
#include "kernels/cpu/simd/math.h"

namespace tessera::kernels::cpu {

template <class S>
struct Bf16Attention {
  using F = typename S::F;
  using I = typename S::I;
  using Pages = AttentionPages<S>;
  using Sums = typename Pages::Sums;
  using Ahead = typename Pages::Ahead;
  static constexpr int kTokens = 64;
  static constexpr int kRows = 16;  // items of a block

  struct Work {
    const AttentionCall* call;
    Sums run;  // of 32 dimensions the even ones, then the odd; whole exponents
    int items;
    float* base;           // [16]
    float* scores;         // [.., 16, 64]: of 32 tokens the even ones, then the odd
    Ahead ahead;           // of the current page
    bool whole;            // each item sees all tokens of the page
    int from[kTileItems];  // else item i sees [from, seen)
    int seen[kTileItems];
  };

  TESSERA_SIMD int RowsOf(const Work& w, int block) {
    const int left = w.items - block * kRows;
    return left < kRows ? left : kRows;
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
  struct Factor {
    F operator()(float d) const { return S::Set1(PowerOfTwo(d)); }
  };

  // From a score, or what the soft cap left of it, to a power of two.
  TESSERA_SIMD F ToExponent(const AttentionCall& c) {
    return S::Set1((c.softcap > 0 ? 1.0f : c.scale) * 1.44269504f);
  }

  // The items' exponents with this page's; what was summed under a smaller one is scaled down.
  TESSERA_SIMD void Raise(Work& w, int block, const float* scores, F to_exponent) {
    const int rows = RowsOf(w, block);
    float* reference = w.run.max + block * kRows;
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
      S::Store(w.run.sum + item * 16, S::Mul(S::Load(w.run.sum + item * 16), factor));
      float* acc = w.run.acc + item * w.run.width;
      for (int64_t d = 0; d < w.run.width; d += 16) {
        S::Store(acc + d, S::Mul(S::Load(acc + d), factor));
      }
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

  // Scores to probabilities and their sums. keep(row, half, even, odd) takes those of 32 tokens as
  // bits whose high halves are bf16, nearest, ties up.
  template <class Keep>
  TESSERA_SIMD void Weigh(Work& w, int block, const float* scores, F to_exponent, Keep keep) {
    const I half = S::ISet1(0x8000);
    for (int row = 0; row < RowsOf(w, block); ++row) {
      const F base = S::Set1(w.base[row]);
      float* sum = w.run.sum + (block * kRows + row) * 16;
      F lanes = S::Load(sum);
#pragma GCC unroll 2
      for (int part = 0; part < 2; ++part) {
        const float* at = scores + row * kTokens + part * 32;
        const F even = Power(S::Load(at), to_exponent, base);
        const F odd = Power(S::Load(at + 16), to_exponent, base);
        lanes = S::Add(S::Add(lanes, even), odd);
        keep(row, part, S::IAdd(S::Bits(even), half), S::IAdd(S::Bits(odd), half));
      }
      S::Store(sum, lanes);
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

  static void Begin(const AttentionCall& c, const Sums& total) {
    Pages::Clear(total);
    for (int i = 0; i < total.items && c.sinks != nullptr; ++i) {
      const float sink = c.sinks[i % c.heads];
      if (sink == -__builtin_inff()) continue;
      const F log2e = S::Set1(1.44269504f);
      const F exponent = S::RoundUp(S::Mul(S::Set1(sink), log2e));
      S::StoreN(total.max + i, exponent, 1);
      S::StoreN(total.sum + i * 16, Power(S::Set1(sink), log2e, S::Sub(S::Set1(kMagic), exponent)),
                1);
    }
  }

  static void Finish(const AttentionCall& c, const Sums& total) {
    for (int item = 0; item < total.items; ++item) {
      float* out = c.out + item / c.heads * c.out_stride + item % c.heads * c.head_dim;
      const float all = S::ReduceAdd(S::Load(total.sum + item * 16));
      // An item that read nothing is zero.
      const F sum = S::Set1(all == 0 ? 1.0f : all);
      for (int64_t d = 0; d < c.head_dim; d += 32) {
        const float* acc = total.acc + item * total.width + d;
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
  }

  static void Fold(const AttentionCall& c, const AttentionFold& f) {
    const FlushSubnormals<S> flush;
    const int items = c.queries * c.heads;
    const Sums total = Pages::At(f.total, kPartItems, TileWidth(c.head_dim), items);
    if (f.begin != 0) Begin(c, total);
    if (f.part != nullptr) {
      Pages::Add(Pages::At(f.part, kPartItems, total.width, items), total, Factor());
    }
    if (f.finish != 0) Finish(c, total);
  }

  // Products of rows of 32 elements of a page, 16 to a chain, and what the next of them has.
  struct Rows {
    const std::byte* at;
    int64_t step;   // bytes from a row of a chain to the next one
    int64_t chain;  // from the first row of a chain to that of the other
    int64_t ahead;  // bytes to what is read next
    int fetch[2];   // lines of it from there on that the first time fetches for each row, and later
    int elements;   // of a row: fewer than 32 at a head's end
    int begin[2];   // steps of each chain, of 16
    int end[2];
    int times;         // and then
    int64_t next;      // bytes on in the page,
    int64_t next_x;    // floats on in what it is multiplied with
    int64_t next_out;  // and in the sums
  };

  // What TDPBF16PS adds to out[n], 32 floats (even elements, then odd): two chains of products of a
  // row with an element of x[n] (16 of the first chain, then 16 of the second), and their sum. Here
  // the halves of rows from kHalf on, as many as registers hold.
  template <int N, bool kPartial, int kHalf>
  TESSERA_SIMD void Multiply(const float* const (&x)[N], const Rows& rows, const std::byte* from,
                             int fetch, float* const (&out)[N]) {
    constexpr int kHalves = kHalvesOf(N);
    F acc[2][N][kHalves];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
#pragma GCC unroll 2
      for (int half = 0; half < kHalves; ++half) acc[0][n][half] = acc[1][n][half] = S::Zero();
    }
    const auto step = [&](int chain, int j) __attribute__((always_inline)) {
      const std::byte* at = from + chain * rows.chain + j * rows.step;
      if constexpr (kHalf == 0) {
        for (int i = 0; i < fetch; ++i) __builtin_prefetch(at + rows.ahead + i * 64, 0, 2);
      }
      const I row = kPartial ? S::ILoad16N(at, rows.elements) : S::ILoad(at);
      const F even = S::FromBits(S::template IShl<16>(row));
      const F odd = S::FromBits(S::IAnd(row, S::ISet1(static_cast<int32_t>(0xffff0000))));
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) {
        const F v = S::Set1(x[n][chain * 16 + j]);
        acc[chain][n][0] = S::Fma(v, kHalf == 0 ? even : odd, acc[chain][n][0]);
        if constexpr (kHalves == 2) acc[chain][n][1] = S::Fma(v, odd, acc[chain][n][1]);
      }
    };
    if (2 * N * kHalves <= S::kSums && rows.begin[0] + rows.begin[1] == 0 &&
        rows.end[0] + rows.end[1] == 32) {
      for (int j = 0; j < 16; ++j) {
        step(0, j);
        step(1, j);
      }
    } else {
      for (int j = rows.begin[0]; j < rows.end[0]; ++j) step(0, j);
      for (int j = rows.begin[1]; j < rows.end[1]; ++j) step(1, j);
    }
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
#pragma GCC unroll 2
      for (int half = 0; half < kHalves; ++half) {
        float* to = out[n] + (kHalf + half) * 16;
        S::Store(to, S::Add(S::Load(to), S::Add(acc[0][n][half], acc[1][n][half])));
      }
    }
  }
  static constexpr int kHalvesOf(int n) { return 4 * n <= S::kSums ? 2 : 1; }

  template <int N, bool kPartial>
  static void Some(const float* x, int64_t x_step, const Rows& rows, float* out, int64_t out_step) {
    const std::byte* at = rows.at;
    for (int i = 0; i < rows.times; ++i) {
      const float* from[N];
      float* to[N];
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) {
        from[n] = x + n * x_step;
        to[n] = out + n * out_step;
      }
      Multiply<N, kPartial, 0>(from, rows, at, rows.fetch[i != 0], to);
      if constexpr (kHalvesOf(N) == 1) Multiply<N, kPartial, 1>(from, rows, at, 0, to);
      at += rows.next;
      x += rows.next_x;
      out += rows.next_out;
    }
  }

  // For some items: x and out of the first one, and floats from one's to the next one's.
  static void All(int items, const float* x, int64_t x_step, Rows rows, float* out,
                  int64_t out_step) {
    if (rows.times == 0) return;
    const auto some = [&]<int N>() __attribute__((always_inline)) {
      for (; items >= N; items -= N, x += N * x_step, out += N * out_step) {
        if (rows.elements < 32) {
          Some<N, true>(x, x_step, rows, out, out_step);
        } else {
          Some<N, false>(x, x_step, rows, out, out_step);
        }
        rows.fetch[0] = rows.fetch[1] = 0;
      }
    };
    some.template operator()<6>();
    some.template operator()<4>();
    some.template operator()<3>();
    some.template operator()<2>();
    some.template operator()<1>();
  }

  // The products of all items with 32 of a page's keys. In the page's first group all keys of those
  // dimensions are fetched, line after line.
  static void Scores(const Work& w, const float* q, const std::byte* keys, int group, bool first) {
    float* scores = w.scores + group * 32;
    for (int item = 0; item < w.items; ++item) {
      S::Store(scores + item * kTokens, S::Zero());
      S::Store(scores + item * kTokens + 16, S::Zero());
    }
    constexpr int64_t kDim = kTokens * 2;  // bytes
    const int lines = first ? (w.ahead.tokens + 31) / 32 : 0;
    const int whole = w.call->head_dim / 32, left = w.call->head_dim % 32;
    Rows rows = {.at = keys + group * 64,
                 .step = kDim,
                 .chain = 16 * kDim,
                 .ahead = w.ahead.bytes - group * 64,
                 .fetch = {lines, lines},
                 .elements = 32,
                 .begin = {0, 0},
                 .end = {16, 16},
                 .times = whole,
                 .next = 32 * kDim,
                 .next_x = 32,
                 .next_out = 0};
    All(w.items, q, w.run.width, rows, scores, kTokens);
    if (left == 0) return;
    rows.at += whole * rows.next;
    rows.end[0] = left < 16 ? left : 16;
    rows.end[1] = left < 16 ? 0 : left - 16;
    rows.times = 1;
    All(w.items, q + whole * 32, w.run.width, rows, scores, kTokens);
  }

  // The products of the probabilities of 32 tokens with a page's values. Those who see the same of
  // them go together; what others see is not touched, not even by a product with zero.
  static void Values(const Work& w, const std::byte* values, int group) {
    const int64_t row = int64_t{w.call->head_dim} * 2;
    const int lines = static_cast<int>((row + 63) / 64);
    const int whole = w.call->head_dim / 32, left = w.call->head_dim % 32;
    const auto clip = [&](int token) {
      const int t = token - group * 32;
      return t < 0 ? 0 : t < 32 ? t : 32;
    };
    for (int item = 0, same = 0; item < w.items; item += same) {
      same = w.items;
      int from = 0, seen = 32;
      if (!w.whole) {
        from = clip(w.from[item]);
        seen = clip(w.seen[item]);
        for (same = 1; item + same < w.items && clip(w.from[item + same]) == from &&
                       clip(w.seen[item + same]) == seen;) {
          ++same;
        }
      }
      if (from >= seen) continue;
      Rows rows = {.at = values + group * 32 * row,
                   .step = 2 * row,
                   .chain = row,
                   .ahead = w.ahead.bytes,
                   .fetch = {group * 32 < w.ahead.tokens ? lines : 0, 0},
                   .elements = 32,
                   .begin = {(from + 1) / 2, from / 2},
                   .end = {(seen + 1) / 2, seen / 2},
                   .times = whole,
                   .next = 64,
                   .next_x = 0,
                   .next_out = 32};
      const float* p = w.scores + item * kTokens + group * 32;
      float* acc = w.run.acc + item * w.run.width;
      All(same, p, kTokens, rows, acc, w.run.width);
      if (left == 0) continue;
      rows.at += whole * rows.next;
      rows.elements = left;
      rows.times = 1;
      if (whole > 0) rows.fetch[0] = 0;
      All(same, p, kTokens, rows, acc + whole * 32, w.run.width);
    }
  }

  static void Page(Work& w, const float* q, uint32_t page, const Ahead& ahead, int64_t logical_page,
                   uint32_t heads) {
    const AttentionCall& c = *w.call;
    const std::byte* at = c.arena + uint64_t{page} * kPageUnit;
    w.ahead = ahead;
    int tokens[2];
    Look(w, c.position - logical_page * kTokens, heads, tokens);
    const int keys = tokens[1] > 0 ? kTokens : 0, values = (tokens[1] + 31) / 32 * 32;
    if (values < ahead.tokens) Pages::FetchRest(c, at, ahead, keys, values, 2);
    if (tokens[1] == 0) return;
    const F to_exponent = ToExponent(c);
    for (int group = tokens[0] / 32; group * 32 < tokens[1]; ++group) {
      Scores(w, q, at + c.k_offset, group, group == tokens[0] / 32);
    }
    if (!w.whole || c.softcap > 0) CapAndMask(w, 0, w.scores);
    Raise(w, 0, w.scores, to_exponent);
    const I high = S::ISet1(static_cast<int32_t>(0xffff0000));
    Weigh(
        w, 0, w.scores,
        to_exponent, [&](int row, int half, I even, I odd) __attribute__((always_inline)) {
          float* p = w.scores + row * kTokens + half * 32;
          S::Store(p, S::FromBits(S::IAnd(even, high)));
          S::Store(p + 16, S::FromBits(S::IAnd(odd, high)));
        });
    for (int group = tokens[0] / 32; group * 32 < tokens[1]; ++group) {
      Values(w, at + c.v_offset, group);
    }
  }

  // With vectors: up to kMaxItems.
  static void Run(const AttentionCall& c) {
    const FlushSubnormals<S> flush;
    Work w;
    w.call = &c;
    w.items = c.queries * c.heads;
    const int64_t width = TileWidth(c.head_dim);
    w.run = Pages::At(c.scratch, kMaxItems, width, w.items);
    if (c.part != nullptr) w.run = Pages::At(c.part, kPartItems, width, w.items);
    const int64_t room = SumFloats(kMaxItems, width);
    const Sums total = Pages::At(c.scratch + room, kMaxItems, width, w.items);
    float* q = c.scratch + 2 * room;
    w.base = q + kMaxItems * width;
    w.scores = w.base + kRows;
    for (int item = 0; item < w.items; ++item) {
      const float* from = c.q + item / c.heads * c.q_stride + item % c.heads * c.head_dim;
      for (int64_t d = 0; d < width; d += 16) {
        const int64_t left = c.head_dim - d;
        const F x = left >= 16 ? S::Load(from + d)
                    : left > 0 ? S::LoadN(from + d, static_cast<int>(left))
                               : S::Zero();
        S::Store(q + item * width + d, S::FromBits(Bf16<S>::Rounded(x)));
      }
    }
    Pages::Clear(w.run);
    if (c.part == nullptr) Begin(c, total);
    Pages::Visit(
        c,
        [&](uint32_t page, const Ahead& ahead, int64_t logical, uint32_t heads) {
          Page(w, q, page, ahead, logical, heads);
        },
        [&] {
          if (c.part != nullptr) return;
          Pages::Add(w.run, total, Factor());
          Pages::Clear(w.run);
        });
    if (c.part == nullptr) Finish(c, total);
  }
};

}  // namespace tessera::kernels::cpu
