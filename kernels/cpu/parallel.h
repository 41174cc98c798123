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
