#include "server/core/timer.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <vector>

namespace tessera::server {
namespace {

using std::chrono::milliseconds;
TimePoint In(Duration time) { return std::chrono::steady_clock::now() + time; }

TEST(Timer, CallsComeInTheOrderOfTheirTimes) {
  std::vector<int> order;
  std::promise<void> done;
  Timer timer;
  const TimePoint base = In(milliseconds(30));
  timer.At(base + milliseconds(20), [&] {
    order.push_back(3);
    done.set_value();
  });
  timer.At(base, [&] { order.push_back(1); });
  timer.At(base, [&] { order.push_back(2); });
  done.get_future().wait();
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
}

TEST(Timer, NeverEarlyAndTheEarlierOvertakesTheLater) {
  Timer timer;
  timer.At(In(std::chrono::hours(1)), [] { FAIL() << "an hour has not passed"; });
  const TimePoint at = In(milliseconds(20));
  std::promise<TimePoint> when;
  timer.At(at, [&] { when.set_value(std::chrono::steady_clock::now()); });
  EXPECT_GE(when.get_future().get(), at);
}

TEST(Timer, WhatIsCancelledDoesNotRunAndIsFreed) {
  Timer timer;
  auto held = std::make_shared<int>(0);
  std::atomic<bool> ran{false};
  const Timer::Ticket ticket = timer.At(In(milliseconds(20)), [held, &ran] { ran = true; });
  EXPECT_EQ(held.use_count(), 2);
  timer.Cancel(ticket);
  EXPECT_EQ(held.use_count(), 1);
  timer.Cancel(ticket);  // without effect
  timer.Cancel(12345);
  std::promise<void> later;
  timer.At(In(milliseconds(40)), [&] { later.set_value(); });
  later.get_future().wait();
  EXPECT_FALSE(ran);
}

TEST(Timer, ACallMayUseTheTimer) {
  Timer timer;
  std::promise<void> done;
  timer.At(In(milliseconds(1)), [&] {
    const Timer::Ticket other = timer.At(In(std::chrono::hours(1)), [] {});
    timer.Cancel(other);
    timer.At(In(milliseconds(1)), [&] { done.set_value(); });
  });
  done.get_future().wait();
}

TEST(Timer, StopDropsWhatIsPendingAndWaitsForWhatRuns) {
  Timer timer;
  std::promise<void> entered;
  std::atomic<bool> left{false};
  std::atomic<bool> ran{false};
  auto held = std::make_shared<int>(0);
  timer.At(In(milliseconds(0)), [&] {
    entered.set_value();
    std::this_thread::sleep_for(milliseconds(20));
    left = true;
  });
  timer.At(In(milliseconds(5)), [held, &ran] { ran = true; });
  entered.get_future().wait();
  timer.Stop();
  EXPECT_TRUE(left);
  EXPECT_EQ(held.use_count(), 1);
  timer.At(In(milliseconds(0)), [&] { ran = true; });
  timer.Stop();
  EXPECT_FALSE(ran);
}

}  // namespace
}  // namespace tessera::server
