// Attention of a few queries and the query heads of one KV head over pages (ops/attention.h has the
// arithmetic). An item is one (query, head); items share each pass over a page's keys and values,
// and no item's arithmetic depends on which others it shares them with.
#pragma once

#include "kernels/cpu/simd/attention_pages.h"
#include "kernels/cpu/simd/kv.h"
#include "kernels/cpu/simd/math.h"

namespace tessera::kernels::cpu {

template <class S, DType kType>
struct Attention {
  using F = typename S::F;
  using Plane = KvPlane<S, kType>;
  static constexpr int kElement = Plane::kElement;
  static constexpr int kTokens = 64;

  using Pages = AttentionPages<S>;
  using Sums = typename Pages::Sums;
  using Ahead = typename Pages::Ahead;

  struct Work {
    const AttentionCall* call;
    Sums run;     // width: head_dim in whole vectors
    float* p;     // [items, 64] scores, then probabilities
    Ahead ahead;  // of the current page
    // The items that read the current page, and which of its tokens, [from, seen), each sees: both
    // never falling.
    int active;
    int item[kMaxItems];
    int from[kMaxItems];
    int seen[kMaxItems];
  };

  TESSERA_SIMD const float* Query(const Work& w, int item) {
    const AttentionCall& c = *w.call;
    return c.q + item / c.heads * c.q_stride + item % c.heads * c.head_dim;
  }

  // V vectors' lines.
  template <int V>
  TESSERA_SIMD void Fetch(const std::byte* at) {
#pragma GCC unroll 4
    for (int i = 0; i < V * 16 * kElement; i += 64) __builtin_prefetch(at + i, 0, 2);
  }

  // Scores of N items against 16 * V tokens from `token`.
  template <int N, int V>
  TESSERA_SIMD void Scores(const Work& w, const std::byte* keys, int first, int token) {
    const float* q[N];
    F dot[N][V];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
      q[n] = Query(w, w.item[first + n]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) dot[n][v] = S::Zero();
    }
    const std::byte* k = keys + token * kElement;
    // A line of the cache may have more tokens than a vector.
    const bool fetch = token < w.ahead.tokens && token * kElement % 64 == 0;
    for (int64_t d = 0; d < w.call->head_dim; ++d, k += kTokens * kElement) {
      F key[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) key[v] = Plane::Load(k + v * 16 * kElement);
      if (fetch) Fetch<V>(k + w.ahead.bytes);
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) {
        const F x = S::Set1(q[n][d]);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) dot[n][v] = S::Fma(x, key[v], dot[n][v]);
      }
    }
    const F scale = S::Set1(w.call->scale);
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        S::Store(w.p + w.item[first + n] * kTokens + token + v * 16, S::Mul(dot[n][v], scale));
      }
    }
  }

  template <int N>
  static void AllScores(const Work& w, const std::byte* keys, int first) {
    const int tokens = w.seen[first + N - 1];
    int token = w.from[first] / 16 * 16;
    for (; token + 16 * (S::kVecs - 1) < tokens; token += 16 * S::kVecs) {
      Scores<N, S::kVecs>(w, keys, first, token);
    }
    for (; token < tokens; token += 16) Scores<N, 1>(w, keys, first, token);
  }

  TESSERA_SIMD void Cap(Work& w, int index) {
    float* p = w.p + w.item[index] * kTokens;
    const F cap = S::Set1(w.call->softcap);
    for (int t = w.from[index] / 16 * 16; t < w.seen[index]; t += 16) {
      S::Store(p + t, Math<S>::SoftCap(S::Load(p + t), cap));
    }
  }

  // The item's maximum with this page's; what it summed under a smaller one is scaled down.
  TESSERA_SIMD void Raise(Work& w, int index) {
    const int item = w.item[index];
    const int from = w.from[index];
    const int seen = w.seen[index];
    float* p = w.p + item * kTokens;
    const F nothing = S::Set1(-__builtin_inff());
    F largest = nothing;
    for (int t = from / 16 * 16; t < seen; t += 16) {
      F s = S::Load(p + t);
      if (seen - t < 16 || t < from) {
        s = S::KeepFirst(s, seen - t, nothing);
        if (t < from) s = S::KeepFirst(nothing, from - t, s);
        S::Store(p + t, s);
      }
      largest = S::Max(largest, s);
    }
    const float page_max = S::ReduceMax(largest);
    const float old_max = w.run.max[item];
    if (page_max > old_max) {
      const F factor = Math<S>::Exp(S::Set1(old_max - page_max));
      w.run.max[item] = page_max;
      float* sum = w.run.sum + item * 16;
      S::Store(sum, S::Mul(S::Load(sum), factor));
      float* acc = w.run.acc + item * w.run.width;
      for (int64_t d = 0; d < w.run.width; d += 16)
        S::Store(acc + d, S::Mul(S::Load(acc + d), factor));
    }
  }

  // Scores to probabilities and their sum.
  TESSERA_SIMD void Weigh(Work& w, int index) {
    const int item = w.item[index];
    const int seen = w.seen[index];
    float* p = w.p + item * kTokens;
    float* sum = w.run.sum + item * 16;
    const F top = S::Set1(w.run.max[item]);
    F lanes = S::Load(sum);
    for (int t = w.from[index] / 16 * 16; t < seen; t += 16) {
      const F e = Math<S>::ExpUpTo90(S::Sub(S::Load(p + t), top));
      S::Store(p + t, e);
      lanes = S::Add(lanes, e);
    }
    S::Store(sum, lanes);
  }

  // Tokens [begin, end) of N items into 16 * V dimensions from `d`; `left` < 16 when partial.
  template <int N, int V, bool kPartial>
  TESSERA_SIMD void Values(const Work& w, const std::byte* values, int first, int64_t d, int begin,
                           int end, int left) {
    F acc[N][V];
    float* to[N];
    const float* p[N];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
      to[n] = w.run.acc + w.item[first + n] * w.run.width + d;
      p[n] = w.p + w.item[first + n] * kTokens;
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) acc[n][v] = S::Load(to[n] + v * 16);
    }
    const int64_t row = int64_t{w.call->head_dim} * kElement;
    const std::byte* at = values + begin * row + d * kElement;
    for (int i = begin; i < end; ++i, at += row) {
      F value[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        if constexpr (kPartial) {
          value[v] = Plane::LoadN(at, left);
        } else {
          value[v] = Plane::Load(at + v * 16 * kElement);
        }
      }
      if (!kPartial && i < w.ahead.tokens) Fetch<V>(at + w.ahead.bytes);
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) {
        const F x = S::Set1(p[n][i]);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) acc[n][v] = S::Fma(x, value[v], acc[n][v]);
      }
    }
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) S::Store(to[n] + v * 16, acc[n][v]);
    }
  }

  template <int N>
  static void AllValues(const Work& w, const std::byte* values, int first, int begin, int end) {
    const int64_t head_dim = w.call->head_dim;
    int64_t d = 0;
    for (; d + 16 * S::kVecs <= head_dim; d += 16 * S::kVecs) {
      Values<N, S::kVecs, false>(w, values, first, d, begin, end, 16);
    }
    for (; d + 16 <= head_dim; d += 16) Values<N, 1, false>(w, values, first, d, begin, end, 16);
    if (d < head_dim) {
      Values<N, 1, true>(w, values, first, d, begin, end, static_cast<int>(head_dim - d));
    }
  }

  template <int N>
  static void Some(Work& w, const std::byte* keys, const std::byte* values, int first) {
    AllScores<N>(w, keys, first);
    if (w.call->softcap > 0) {
      for (int n = 0; n < N; ++n) Cap(w, first + n);
    }
    // Two loops: the maximum of one item is found while that of another is waited for.
    for (int n = 0; n < N; ++n) Raise(w, first + n);
    for (int n = 0; n < N; ++n) Weigh(w, first + n);
    // Tokens that all N see go together; what only some see must not reach the others, not even as
    // a product with zero.
    const int begin = w.from[first + N - 1];
    const int end = w.seen[first] > begin ? w.seen[first] : begin;
    for (int n = 0; n < N; ++n) {
      const int until = w.seen[first + n] < begin ? w.seen[first + n] : begin;
      if (w.from[first + n] < until) AllValues<1>(w, values, first + n, w.from[first + n], until);
    }
    if (begin < end) AllValues<N>(w, values, first, begin, end);
    for (int n = 0; n < N; ++n) {
      if (w.seen[first + n] > end) AllValues<1>(w, values, first + n, end, w.seen[first + n]);
    }
  }

  static void Page(Work& w, uint32_t page, const Ahead& ahead, int64_t logical_page,
                   uint32_t heads) {
    const AttentionCall& c = *w.call;
    const std::byte* at = c.arena + uint64_t{page} * kPageUnit;
    w.ahead = ahead;
    w.active = 0;
    for (int32_t i = 0; i < c.queries; ++i) {
      const int64_t seen = c.position + i + 1 - logical_page * kTokens;
      if (seen <= 0) continue;
      const int64_t from = c.window > 0 && seen > c.window ? seen - c.window : 0;
      if (from >= kTokens) continue;
      for (int32_t h = 0; h < c.heads; ++h) {
        if (c.table == nullptr && (heads >> (c.first_head + h) & 1) == 0) continue;
        w.item[w.active] = i * c.heads + h;
        w.from[w.active] = static_cast<int>(from);
        w.seen[w.active++] = seen < kTokens ? static_cast<int>(seen) : kTokens;
      }
    }
    const int used = w.active == 0 ? 0 : w.seen[w.active - 1];
    if (used < ahead.tokens) Pages::FetchRest(c, at, ahead, used, used, kElement);
    const std::byte* keys = at + c.k_offset;
    const std::byte* values = at + c.v_offset;
    int first = 0;
    if constexpr (S::kItems >= 6) {
      for (; first + 6 <= w.active; first += 6) Some<6>(w, keys, values, first);
      if (first + 4 <= w.active) {
        Some<4>(w, keys, values, first);
        first += 4;
      }
    }
    for (; first + 3 <= w.active; first += 3) Some<3>(w, keys, values, first);
    for (; first + 2 <= w.active; first += 2) Some<2>(w, keys, values, first);
    for (; first < w.active; ++first) Some<1>(w, keys, values, first);
  }

  struct Factor {
    F operator()(float d) const { return Math<S>::Exp(S::Set1(d)); }
  };

  static void Begin(const AttentionCall& c, const Sums& total) {
    Pages::Clear(total);
    for (int i = 0; i < total.items && c.sinks != nullptr; ++i) {
      total.max[i] = c.sinks[i % c.heads];
      total.sum[i * 16] = 1.0f;
    }
  }

  static int64_t WidthOf(const AttentionCall& c) { return (c.head_dim + 15) / 16 * 16; }

  static void Run(const AttentionCall& c) {
    Work w;
    w.call = &c;
    const int items = c.queries * c.heads;
    const int64_t width = WidthOf(c);
    w.run = Pages::At(c.scratch, kMaxItems, width, items);
    if (c.part != nullptr) w.run = Pages::At(c.part, kPartItems, width, items);
    const int64_t room = SumFloats(kMaxItems, width);
    const Sums total = Pages::At(c.scratch + room, kMaxItems, width, items);
    w.p = c.scratch + 2 * room;
    Pages::Clear(w.run);
    if (c.part == nullptr) Begin(c, total);
    Pages::Visit(
        c,
        [&](uint32_t page, const Ahead& ahead, int64_t logical, uint32_t heads) {
          Page(w, page, ahead, logical, heads);
        },
        [&] {
          if (c.part != nullptr) return;
          Pages::Add(w.run, total, Factor());
          Pages::Clear(w.run);
        });
    if (c.part == nullptr) Finish(c, total);
  }

  static void Fold(const AttentionCall& c, const AttentionFold& f) {
    const int items = c.queries * c.heads;
    const Sums total = Pages::At(f.total, kPartItems, WidthOf(c), items);
    if (f.begin != 0) Begin(c, total);
    if (f.part != nullptr) {
      Pages::Add(Pages::At(f.part, kPartItems, WidthOf(c), items), total, Factor());
    }
    if (f.finish != 0) Finish(c, total);
  }

  static void Finish(const AttentionCall& c, const Sums& total) {
    for (int item = 0; item < total.items; ++item) {
      float* out = c.out + item / c.heads * c.out_stride + item % c.heads * c.head_dim;
      const float* acc = total.acc + item * total.width;
      const float all = S::ReduceAdd(S::Load(total.sum + item * 16));
      // An item that read nothing is zero.
      const F sum = S::Set1(all == 0 ? 1.0f : all);
      int32_t d = 0;
      for (; d + 16 <= c.head_dim; d += 16) S::Store(out + d, S::Div(S::Load(acc + d), sum));
      if (d < c.head_dim) S::StoreN(out + d, S::Div(S::Load(acc + d), sum), c.head_dim - d);
    }
  }
};

}  // namespace tessera::kernels::cpu
