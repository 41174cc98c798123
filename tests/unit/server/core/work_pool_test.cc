#include "server/core/work_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <set>

namespace tessera::server {
namespace {

// A job that holds a thread until it is let go.
class Gate {
 public:
  std::function<void()> Job() {
    return [this] {
      entered_.set_value();
      open_.get_future().wait();
    };
  }
  void WaitForEntry() { entered_.get_future().wait(); }
  void Open() { open_.set_value(); }

 private:
  std::promise<void> entered_, open_;
};

TEST(WorkPool, RunsJobsInOrderOnOneThread) {
  std::vector<int> order;
  {
    WorkPool pool({.threads = 1});
    for (int i = 0; i < 100; ++i) pool.Post([&order, i] { order.push_back(i); });
  }
  ASSERT_EQ(order.size(), 100u);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(order[i], i);
}

TEST(WorkPool, ThreadsWorkAtOnce) {
  WorkPool pool({.threads = 2});
  std::promise<void> first, second;
  pool.Post([&] {
    first.set_value();
    second.get_future().wait();
  });
  first.get_future().wait();
  // Only another thread can end the first job.
  pool.Post([&] { second.set_value(); });
  pool.Stop();
}

TEST(WorkPool, OfferRefusesWhenTooMuchWaitsAndPostDoesNot) {
  std::atomic<int> ran{0};
  WorkPool pool({.threads = 1, .max_offered = 2});
  Gate gate;
  pool.Post(gate.Job());
  gate.WaitForEntry();
  EXPECT_TRUE(pool.Offer([&] { ++ran; }));
  EXPECT_TRUE(pool.Offer([&] { ++ran; }));
  EXPECT_FALSE(pool.Offer([&] { ran += 100; }));
  pool.Post([&] { ++ran; });
  gate.Open();
  pool.Stop();
  EXPECT_EQ(ran, 3);
}

TEST(WorkPool, StopRunsWhatIsQueuedAndLaterJobsRunAtOnce) {
  std::atomic<int> ran{0};
  WorkPool pool({.threads = 1});
  Gate gate;
  pool.Post(gate.Job());
  gate.WaitForEntry();
  for (int i = 0; i < 10; ++i) pool.Post([&] { ++ran; });
  gate.Open();
  pool.Stop();
  EXPECT_EQ(ran, 10);
  std::thread::id where;
  pool.Post([&] { where = std::this_thread::get_id(); });
  EXPECT_EQ(where, std::this_thread::get_id());
  EXPECT_FALSE(pool.Offer([] {}));
  pool.Stop();
}

}  // namespace
}  // namespace tessera::server
