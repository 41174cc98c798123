// Attention over latents (ops/latent_attention.h): an item is one (query, head); items share each
// pass over a page, and no item's arithmetic depends on which others it shares it with.
#pragma once

#include "kernels/cpu/simd/kv.h"
#include "kernels/cpu/simd/math.h"

namespace tessera::kernels::cpu {

template <class S, DType kType>
struct LatentAttention {
  using F = typename S::F;
  using Plane = KvPlane<S, kType>;
  static constexpr int kTokens = 64;

  struct Work {
    const LatentCall* call;
    int64_t padded;  // rank in whole vectors
    int64_t row;     // bytes of a token
    float* acc;      // [items, padded]
    float* p;        // [items, 64] scores, then probabilities
    float* sum;      // [items, 16]
    float max[kMaxItems];
  };

  static void Store(const float* from, int32_t width, std::byte* to) {
    for (int32_t d = 0; d < width; d += 16) {
      Plane::Convert(from + d, width - d < 16 ? width - d : 16, to + d * Plane::kElement);
    }
  }

  // Scores of N items from `first` against the tokens before `end`.
  template <int N>
  TESSERA_SIMD void Scores(const Work& w, const std::byte* page, int first, int end) {
    const LatentCall& c = *w.call;
    const float* q[N];
    for (int n = 0; n < N; ++n) {
      const int item = first + n;
      q[n] = c.q + item / c.heads * c.width + item % c.heads * c.q_head_stride;
    }
    for (int t = 0; t < end; ++t) {
      const std::byte* x = page + t * w.row;
      F dot[N];
      for (int n = 0; n < N; ++n) dot[n] = S::Zero();
      int32_t d = 0;
      for (; d + 16 <= c.width; d += 16) {
        const F key = Plane::Load(x + d * Plane::kElement);
        for (int n = 0; n < N; ++n) dot[n] = S::Fma(S::Load(q[n] + d), key, dot[n]);
      }
      if (d < c.width) {
        const F key = Plane::LoadN(x + d * Plane::kElement, c.width - d);
        for (int n = 0; n < N; ++n) dot[n] = S::Fma(S::LoadN(q[n] + d, c.width - d), key, dot[n]);
      }
      for (int n = 0; n < N; ++n) w.p[(first + n) * kTokens + t] = S::ReduceAdd(dot[n]) * c.scale;
    }
  }

  // An item's scores of one page to probabilities; what it summed under a smaller maximum is
  // scaled.
  TESSERA_SIMD void Weigh(Work& w, int item, int seen) {
    float* p = w.p + item * kTokens;
    const F nothing = S::Set1(-__builtin_inff());
    F largest = nothing;
    for (int t = 0; t < seen; t += 16) {
      F s = S::Load(p + t);
      if (seen - t < 16) {
        s = S::KeepFirst(s, seen - t, nothing);
        S::Store(p + t, s);
      }
      largest = S::Max(largest, s);
    }
    const float page_max = S::ReduceMax(largest);
    float* sum = w.sum + item * 16;
    F lanes = S::Load(sum);
    if (page_max > w.max[item]) {
      const F factor = Math<S>::Exp(S::Set1(w.max[item] - page_max));
      w.max[item] = page_max;
      lanes = S::Mul(lanes, factor);
      float* acc = w.acc + item * w.padded;
      for (int64_t d = 0; d < w.padded; d += 16)
        S::Store(acc + d, S::Mul(S::Load(acc + d), factor));
    }
    const F top = S::Set1(w.max[item]);
    for (int t = 0; t < seen; t += 16) {
      const F e = Math<S>::ExpUpTo90(S::Sub(S::Load(p + t), top));
      S::Store(p + t, e);
      lanes = S::Add(lanes, e);
    }
    S::Store(sum, lanes);
  }

  TESSERA_SIMD void Values(const Work& w, const std::byte* page, int item, int seen) {
    const int32_t rank = w.call->rank;
    const float* p = w.p + item * kTokens;
    for (int32_t d = 0; d < rank; d += 16) {
      float* to = w.acc + item * w.padded + d;
      F acc = S::Load(to);
      const std::byte* x = page + d * Plane::kElement;
      for (int t = 0; t < seen; ++t, x += w.row) {
        const F value = rank - d >= 16 ? Plane::Load(x) : Plane::LoadN(x, rank - d);
        acc = S::Fma(S::Set1(p[t]), value, acc);
      }
      S::Store(to, acc);
    }
  }

  static void Page(Work& w, const std::byte* page, int64_t logical_page) {
    const LatentCall& c = *w.call;
    const auto seen_by = [&](int item) {
      const int64_t seen = c.position + item / c.heads + 1 - logical_page * kTokens;
      return static_cast<int>(seen < 0 ? 0 : seen > kTokens ? kTokens : seen);
    };
    const int items = c.queries * c.heads;
    int first = 0;
    // Later items see no less than earlier ones.
    for (; first + 4 <= items; first += 4) Scores<4>(w, page, first, seen_by(first + 3));
    for (; first < items; ++first) Scores<1>(w, page, first, seen_by(first));
    for (int item = 0; item < items; ++item) {
      const int seen = seen_by(item);
      if (seen == 0) continue;
      Weigh(w, item, seen);
      Values(w, page, item, seen);
    }
  }

  static void Run(const LatentCall& c) {
    Work w;
    w.call = &c;
    w.padded = (c.rank + 15) / 16 * 16;
    w.row = int64_t{c.width} * Plane::kElement;
    w.acc = c.scratch;
    w.p = w.acc + kMaxItems * w.padded;
    w.sum = w.p + kMaxItems * kTokens;
    const int items = c.queries * c.heads;
    for (int64_t i = 0; i < items * w.padded; i += 16) S::Store(w.acc + i, S::Zero());
    for (int i = 0; i < items; ++i) {
      S::Store(w.sum + i * 16, S::Zero());
      w.max[i] = -__builtin_inff();
    }
    const int64_t pages = (int64_t{c.position} + c.queries + kTokens - 1) / kTokens;
    for (int64_t i = 0; i < pages; ++i) Page(w, c.arena + uint64_t{c.table[i]} * 512, i);
    for (int i = 0; i < items; ++i) Finish(w, i);
  }

  static void Finish(const Work& w, int item) {
    const LatentCall& c = *w.call;
    float* out = c.out + item / c.heads * c.rank + item % c.heads * c.out_head_stride;
    const float* acc = w.acc + item * w.padded;
    const F sum = S::Set1(S::ReduceAdd(S::Load(w.sum + item * 16)));
    int32_t d = 0;
    for (; d + 16 <= c.rank; d += 16) S::Store(out + d, S::Div(S::Load(acc + d), sum));
    if (d < c.rank) S::StoreN(out + d, S::Div(S::Load(acc + d), sum), c.rank - d);
  }
};

}  // namespace tessera::kernels::cpu
