// What attention has in common whatever keys and values are kept in: the pages of a call, run by
// run, and the sums over a run, which are added up in the order of runs (ops/attention.h).
#pragma once

#include "kernels/cpu/micro.h"
#include "kernels/cpu/simd/inline.h"

namespace tessera::kernels::cpu {

// Subnormal numbers are zeros, as tile products have them, until the end of its scope.
template <class S>
class FlushSubnormals {
 public:
  FlushSubnormals() {
    __asm__ volatile("stmxcsr %0" : "=m"(before_) : : "memory");
    const uint32_t flushing = before_ | kFlush;
    __asm__ volatile("ldmxcsr %0" : : "m"(flushing) : "memory");
  }
  ~FlushSubnormals() { __asm__ volatile("ldmxcsr %0" : : "m"(before_) : "memory"); }
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;

 private:
  static constexpr uint32_t kFlush = 0x8040;  // FTZ and DAZ
  uint32_t before_;
};

template <class S>
struct AttentionPages {
  using F = typename S::F;
  static constexpr int64_t kTokens = 64;

  // What `items` (query, head) have summed, each under a maximum of its scores.
  struct Sums {
    float* acc;  // [items, width]
    float* sum;  // [items, 16]
    float* max;  // [items in whole vectors]
    int64_t width;
    int items;
  };

  // Sums of up to `room` items in SumFloats(room, width) floats.
  static Sums At(float* floats, int room, int64_t width, int items) {
    return {floats, floats + room * width, floats + room * (width + 16), width, items};
  }

  static void Clear(const Sums& s) {
    for (int64_t i = 0; i < s.items * s.width; i += 16) S::Store(s.acc + i, S::Zero());
    for (int i = 0; i < s.items; ++i) S::Store(s.sum + i * 16, S::Zero());
    for (int i = 0; i < s.items; i += 16) S::Store(s.max + i, S::Set1(-__builtin_inff()));
  }

  // factor(d): what a sum is worth under a maximum that is larger by -d; d <= 0.
  template <class Factor>
  static void Add(const Sums& run, const Sums& total, Factor factor) {
    for (int i = 0; i < total.items; ++i) {
      const float ours = total.max[i], its = run.max[i];
      const F keep = its > ours ? factor(ours - its) : S::Set1(1.0f);
      const F take = ours > its ? factor(its - ours) : S::Set1(1.0f);
      if (its > ours) total.max[i] = its;
      const auto add = [&](const float* from, float* to) __attribute__((always_inline)) {
        S::Store(to, S::Add(S::Mul(S::Load(to), keep), S::Mul(S::Load(from), take)));
      };
      add(run.sum + i * 16, total.sum + i * 16);
      for (int64_t d = 0; d < total.width; d += 16) {
        add(run.acc + i * run.width + d, total.acc + i * total.width + d);
      }
    }
  }

  // What is read after a page, so that it is fetched while that page is used: `bytes` from a plane
  // of the page to the same plane there, and how many of its tokens.
  struct Ahead {
    int64_t bytes;
    int tokens;
  };

  static Ahead To(uint32_t page, uint32_t next, int64_t tokens) {
    return {(int64_t{next} - int64_t{page}) * int64_t{kPageUnit},
            tokens < kTokens ? static_cast<int>(tokens) : static_cast<int>(kTokens)};
  }
  // After the call's last page.
  static Ahead AfterLast(const AttentionCall& c, uint32_t page) {
    if (c.after == nullptr) return {0, 0};
    return {c.after - (c.arena + uint64_t{page} * kPageUnit + c.k_offset), c.after_tokens};
  }

  // Fetches what the passes over a page do not: those fetch what lies at the same places of the
  // first `keys` tokens' keys and the first `values` tokens' values, `element` bytes each.
  // Inline: GCC takes a function that only fetches for one that does nothing.
  TESSERA_SIMD void FetchRest(const AttentionCall& c, const std::byte* page, const Ahead& ahead,
                              int keys, int values, int64_t element) {
    const std::byte* from = page + c.k_offset + ahead.bytes;
    const int64_t row = kTokens * element, end = ahead.tokens * element;
    for (int64_t at = (keys * element + 63) / 64 * 64; at < end; at += 64) {
      for (int32_t d = 0; d < c.head_dim; ++d) __builtin_prefetch(from + d * row + at, 0, 2);
    }
    from = page + c.v_offset + ahead.bytes;
    for (int64_t at = values * c.head_dim * element; at < c.head_dim * end; at += 64) {
      __builtin_prefetch(from + at, 0, 2);
    }
  }

  // page(page, what follows it, logical page, heads that read it) for each page that `c` reads, in
  // order, and run() after the last one of each run.
  template <class Page, class Run>
  static void Visit(const AttentionCall& c, Page page, Run run) {
    if (c.table == nullptr) return VisitListed(c, page, run);
    const int64_t seen = int64_t{c.position} + c.queries;
    const int64_t pages = (seen + kTokens - 1) / kTokens;
    // Those before the first query's window are not looked at.
    const int64_t before = int64_t{c.position} + 1 - c.window;
    int64_t i = c.window > 0 && before > 0 ? before / kTokens : 0;
    int64_t end = pages;
    if (c.part != nullptr) {
      if (i < c.run * kRunPages) i = c.run * kRunPages;
      if (end > (c.run + 1) * kRunPages) end = (c.run + 1) * kRunPages;
    }
    for (; i < end; ++i) {
      page(c.table[i],
           i + 1 < pages ? To(c.table[i], c.table[i + 1], seen - (i + 1) * kTokens)
                         : AfterLast(c, c.table[i]),
           i, 0u);
      if (i + 1 == end || (i + 1) % kRunPages == 0) run();
    }
  }

  template <class Page, class Run>
  static void VisitListed(const AttentionCall& c, Page page, Run run) {
    for (int64_t i = 0; i < c.entry_count; ++i) {
      const uint32_t* entry = c.entries + 2 * i;
      const bool last = i + 1 == c.entry_count;
      const int64_t logical = entry[1] & 0xffffff;
      page(entry[0], last ? AfterLast(c, entry[0]) : To(entry[0], entry[2], kTokens), logical,
           entry[1] >> 24);
      if (last || (entry[3] & 0xffffff) / kRunPages != logical / kRunPages) run();
    }
  }
};

}  // namespace tessera::kernels::cpu
