// Sharing the work of one launch.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "kernels/exec_context.h"

namespace tessera::kernels::cpu {

// Below this a launch runs on the calling thread: handing work over and waiting costs about as
// much.
inline constexpr double kInlineNs = 2500;

// body(next, thread), where next() gives the units of [0, units) that this thread takes, rising,
// and then a value >= units. Threads take units as they come: a late one delays nobody by more than
// a unit. `total_ns` is a rough cost of all.
template <typename Body>
void ForEachTaken(ExecContext& context, int64_t units, double total_ns, Body body) {
  if (context.pool().threads() == 1 || units <= 1 || total_ns < kInlineNs) {
    int64_t next = 0;
    body([&] { return next++; }, 0);
    return;
  }
  alignas(64) std::atomic<int64_t> next{0};
  context.pool().RunShared([&](int thread) {
    body([&] { return next.fetch_add(1, std::memory_order_relaxed); }, thread);
  });
}

// The same where neighbouring units lie beside one another in memory: a thread has a share of the
// units, one after another, and then takes what is left of the others' shares. Units rise within a
// share; the next one may begin lower.
template <typename Body>
void ForEachNear(ExecContext& context, int64_t units, double total_ns, Body body) {
  const int threads = context.pool().threads();
  if (threads == 1 || units <= 1 || total_ns < kInlineNs) {
    return ForEachTaken(context, units, total_ns, body);
  }
  struct alignas(64) Left {
    std::atomic<int64_t> next;
    int64_t end;
  };
  constexpr int kMostShares = 64;
  Left left[kMostShares];
  const int shares = std::min(threads, kMostShares);
  for (int i = 0; i < shares; ++i) {
    const auto [begin, end] = ShareOf(units, i, shares);
    left[i].next.store(begin, std::memory_order_relaxed);
    left[i].end = end;
  }
  context.pool().RunShared([&](int thread) {
    int at = thread % shares, seen = 0;
    body(
        [&] {
          for (; seen < shares; ++seen) {
            const int64_t unit = left[at].next.fetch_add(1, std::memory_order_relaxed);
            if (unit < left[at].end) return unit;
            at = at + 1 == shares ? 0 : at + 1;
          }
          return units;
        },
        thread);
  });
}

// body(begin, end, thread) over all of [0, units) in a few equal parts a thread.
template <typename Body>
void ForShares(ExecContext& context, int64_t units, double total_ns, Body body) {
  if (units <= 0) return;
  const int64_t threads = context.pool().threads();
  if (threads == 1 || total_ns < kInlineNs) return body(int64_t{0}, units, 0);
  const int64_t parts = std::min(units, threads * 4);
  ForEachTaken(context, parts, total_ns, [&](auto next, int thread) {
    for (int64_t part = next(); part < parts; part = next()) {
      body(units * part / parts, units * (part + 1) / parts, thread);
    }
  });
}

}  // namespace tessera::kernels::cpu
