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

  // page(page, the one after it, logical page, heads that read it) for each page that `c` reads,
  // in order, and run() after the last one of each run.
  template <class Page, class Run>
  static void Visit(const AttentionCall& c, Page page, Run run) {
    if (c.table == nullptr) return VisitListed(c, page, run);
    const int64_t pages = (int64_t{c.position} + c.queries + kTokens - 1) / kTokens;
    // Those before the first query's window are not looked at.
    const int64_t before = int64_t{c.position} + 1 - c.window;
    int64_t i = c.window > 0 && before > 0 ? before / kTokens : 0;
    int64_t end = pages;
    if (c.part != nullptr) {
      if (i < c.run * kRunPages) i = c.run * kRunPages;
      if (end > (c.run + 1) * kRunPages) end = (c.run + 1) * kRunPages;
    }
    for (; i < end; ++i) {
      page(c.table[i], c.table[i + 1 < pages ? i + 1 : i], i, 0u);
      if (i + 1 == end || (i + 1) % kRunPages == 0) run();
    }
  }

  template <class Page, class Run>
  static void VisitListed(const AttentionCall& c, Page page, Run run) {
    for (int64_t i = 0; i < c.entry_count; ++i) {
      const uint32_t* entry = c.entries + 2 * i;
      const bool last = i + 1 == c.entry_count;
      const int64_t logical = entry[1] & 0xffffff;
      page(entry[0], entry[last ? 0 : 2], logical, entry[1] >> 24);
      if (last || (entry[3] & 0xffffff) / kRunPages != logical / kRunPages) run();
    }
  }
};

}  // namespace tessera::kernels::cpu
