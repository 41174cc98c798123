// Sharing the work of one launch.
#pragma once

#include <atomic>
#include <cstdint>

#include "kernels/exec_context.h"

namespace tessera::kernels::cpu {

// Below this a launch runs on the calling thread: handing work over and waiting costs about as
// much.
inline constexpr double kInlineNs = 2500;

// body(begin, end, thread) over [0, units) in equal shares; `total_ns` is a rough cost of all.
template <typename Body>
void ForShares(ExecContext& context, int64_t units, double total_ns, Body body) {
  const int threads = context.pool().threads();
  if (threads == 1 || units <= 1 || total_ns < kInlineNs) {
    if (units > 0) body(int64_t{0}, units, 0);
    return;
  }
  context.pool().Run([&](int thread) {
    const Share share = ShareOf(units, thread, threads);
    if (share.begin < share.end) body(share.begin, share.end, thread);
  });
}

// body(next, thread), where next() gives the units of [0, units) that this thread takes, rising,
// and then a value >= units. For units of unequal cost, and for threads that start late.
template <typename Body>
void ForEachTaken(ExecContext& context, int64_t units, double total_ns, Body body) {
  if (context.pool().threads() == 1 || units <= 1 || total_ns < kInlineNs) {
    int64_t next = 0;
    body([&] { return next++; }, 0);
    return;
  }
  alignas(64) std::atomic<int64_t> next{0};
  context.pool().Run([&](int thread) {
    body([&] { return next.fetch_add(1, std::memory_order_relaxed); }, thread);
  });
}

}  // namespace tessera::kernels::cpu
