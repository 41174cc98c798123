#include "kernels/cpu/parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "kernels/exec_context.h"
#include "kernels/thread_pool.h"

namespace tessera::kernels::cpu {
namespace {

constexpr double kMuch = 1e9;  // ns of a launch that is shared

class ParallelTest : public testing::TestWithParam<int> {
 protected:
  // How often each of `units` was taken, and by whom last.
  struct Taken {
    std::vector<std::atomic<int>> times;
    std::vector<int> thread;
    explicit Taken(int64_t units) : times(units), thread(units, -1) {}
  };

  ThreadPool pool_{{.threads = GetParam()}};
  ExecContext context_{pool_, 0};
};

TEST_P(ParallelTest, NearUnitsAreTakenOnceAndRiseWithinAShare) {
  for (const int64_t units : {1, 2, 3, 7, 64, 1000}) {
    Taken taken(units);
    std::atomic<int> falls = 0;
    ForEachNear(context_, units, kMuch, [&](auto next, int thread) {
      int64_t last = -1;
      for (int64_t unit = next(); unit < units; unit = next()) {
        if (unit <= last) ++falls;
        last = unit;
        ++taken.times[unit];
        taken.thread[unit] = thread;
      }
      EXPECT_GE(next(), units);  // also when asked again
    });
    for (int64_t unit = 0; unit < units; ++unit) {
      EXPECT_EQ(taken.times[unit], 1) << unit << " of " << units;
      EXPECT_LT(taken.thread[unit], GetParam());
    }
    // A thread goes through each share once.
    EXPECT_LE(falls, GetParam() * GetParam());
  }
}

TEST_P(ParallelTest, WhatALateThreadLeavesIsTakenByOthers) {
  constexpr int64_t kUnits = 40;
  Taken taken(kUnits);
  std::atomic<int64_t> all = 0, own = 0;
  ForEachNear(context_, kUnits, kMuch, [&](auto next, int thread) {
    for (int64_t unit = next(); unit < kUnits; unit = next()) {
      ++taken.times[unit];
      ++all;
      if (thread == 0) {
        ++own;
      } else {
        // As late as can be: the first thread has all the rest to do.
        while (all < kUnits) std::this_thread::yield();
      }
    }
  });
  for (const std::atomic<int>& times : taken.times) EXPECT_EQ(times, 1);
  EXPECT_GE(own, kUnits - (GetParam() - 1));
}

INSTANTIATE_TEST_SUITE_P(Threads, ParallelTest, testing::Values(1, 2, 3, 5, 70));

}  // namespace
}  // namespace tessera::kernels::cpu
