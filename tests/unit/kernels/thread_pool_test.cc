#include "kernels/thread_pool.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>
#include <vector>

#include "kernels/processors.h"

namespace tessera::kernels {
namespace {

TEST(ThreadPoolTest, EachWorkerRunsOnceAndResultsAreVisible) {
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool({.threads = threads});
    std::vector<int> runs(static_cast<size_t>(threads));
    for (int i = 0; i < 2000; ++i) {
      pool.Run([&](int thread) { ++runs[static_cast<size_t>(thread)]; });
    }
    for (const int r : runs) EXPECT_EQ(r, 2000);
  }
}

TEST(ThreadPoolTest, SleepersWake) {
  ThreadPool pool({.threads = 3, .spin_us = 0});
  std::atomic<int> runs = 0;
  for (int i = 0; i < 50; ++i) {
    if (i % 10 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    pool.Run([&](int) { runs.fetch_add(1); });
  }
  EXPECT_EQ(runs, 150);
}

TEST(ThreadPoolTest, SharedWorkIsDoneOnceWithoutWaitingForLateWorkers) {
  for (const int spin_us : {0, 50}) {
    ThreadPool pool({.threads = 4, .spin_us = spin_us});
    std::vector<int> done(64);
    for (int i = 0; i < 3000; ++i) {
      std::atomic<size_t> next = 0;
      pool.RunShared([&](int) {
        for (size_t unit = next.fetch_add(1); unit < done.size(); unit = next.fetch_add(1))
          ++done[unit];
      });
      // Mixed with regions that everyone must join.
      if (i % 16 == 0) {
        std::atomic<int> runs = 0;
        pool.Run([&](int) { runs.fetch_add(1); });
        ASSERT_EQ(runs, 4);
      }
    }
    for (const int d : done) EXPECT_EQ(d, 3000);
  }
}

TEST(ThreadPoolTest, SharesCoverEverythingOnce) {
  for (const int64_t count : {0, 1, 7, 1000}) {
    int64_t at = 0;
    for (int t = 0; t < 3; ++t) {
      const Share share = ShareOf(count, t, 3);
      EXPECT_EQ(share.begin, at);
      at = share.end;
    }
    EXPECT_EQ(at, count);
  }
}

TEST(ThreadPoolTest, AtLeastOneProcessor) {
  EXPECT_GE(ThreadPool::UsableCores(), 1);
  EXPECT_GE(ThreadPool::UsableProcessors(), ThreadPool::UsableCores());
}

// A folder that stands for one of the kernel's.
class CgroupTest : public ::testing::Test {
 protected:
  void Write(const std::string& path, const std::string& text) {
    const std::filesystem::path file = root_ / path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  ~CgroupTest() override { std::filesystem::remove_all(root_); }
  std::filesystem::path root_ =
      std::filesystem::path(::testing::TempDir()) / ("cgroup" + std::to_string(getpid()));
};

TEST_F(CgroupTest, VersionTwoTakesTheSmallestOnTheWayUp) {
  Write("a/b/cpu.max", "max 100000\n");
  EXPECT_EQ(CgroupProcessors("0::/a/b\n", root_.string()), std::nullopt);
  Write("a/cpu.max", "150000 100000\n");
  EXPECT_EQ(CgroupProcessors("0::/a/b\n", root_.string()), 2);
  Write("a/b/cpu.max", "50000 100000\n");
  EXPECT_EQ(CgroupProcessors("0::/a/b\n", root_.string()), 1);
}

TEST_F(CgroupTest, VersionOneReadsTheCpuController) {
  Write("cpu,cpuacct/x/cpu.cfs_quota_us", "250000\n");
  Write("cpu,cpuacct/x/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(CgroupProcessors("4:memory:/y\n3:cpu,cpuacct:/x\n", root_.string()), 3);
  Write("cpu,cpuacct/x/cpu.cfs_quota_us", "-1\n");
  EXPECT_EQ(CgroupProcessors("3:cpu,cpuacct:/x\n", root_.string()), std::nullopt);
}

TEST_F(CgroupTest, NonsenseIsNoLimit) {
  Write("cpu.max", "soon now\n");
  EXPECT_EQ(CgroupProcessors("0::/\nrubbish\n", root_.string()), std::nullopt);
}

using TopologyTest = CgroupTest;

TEST(ProcessorListTest, RangesAndNumbers) {
  EXPECT_EQ(ParseProcessorList("0-3,8,10-11\n"), (std::vector<int>{0, 1, 2, 3, 8, 10, 11}));
  EXPECT_EQ(ParseProcessorList("5,1,1-2"), (std::vector<int>{1, 2, 5}));
  EXPECT_TRUE(ParseProcessorList("").empty());
  EXPECT_EQ(ParseProcessorList("x,3-1,7-,4,-2,99999999"), (std::vector<int>{4}));
}

// Two packages of two cores of two hyper-threads, a memory node each.
TEST_F(TopologyTest, HyperThreadsAreOneCore) {
  for (int id = 0; id < 8; ++id) {
    const std::string folder = "cpu/cpu" + std::to_string(id) + "/topology/";
    Write(folder + "physical_package_id", std::to_string(id / 2 % 2) + "\n");
    Write(folder + "core_id", std::to_string(id % 2) + "\n");
  }
  Write("node/online", "0-1\n");
  Write("node/node0/cpulist", "0-1,4-5\n");
  Write("node/node1/cpulist", "2-3,6-7\n");
  const auto all = ReadTopology(root_.string(), {7, 6, 5, 4, 3, 2, 1, 0});
  ASSERT_EQ(all.size(), 8u);
  EXPECT_EQ(all[6], (Processor{.id = 6, .package = 1, .core = 0, .node = 1}));
  EXPECT_EQ(CountCores(all), 4);
  EXPECT_EQ(CountNodes(all), 2);
  // A mask that leaves both threads of one core and one thread of another.
  const auto some = ReadTopology(root_.string(), {0, 1, 4});
  EXPECT_EQ(CountCores(some), 2);
  EXPECT_EQ(CountNodes(some), 1);
}

TEST_F(TopologyTest, WhatCannotBeReadIsACoreOfItsOwn) {
  Write("cpu/cpu0/topology/core_id", "0\n");
  Write("cpu/cpu1/topology/core_id", "none\n");
  const auto processors = ReadTopology(root_.string(), {0, 1, 2});
  EXPECT_EQ(CountCores(processors), 3);
  EXPECT_EQ(CountNodes(processors), 1);
}

}  // namespace
}  // namespace tessera::kernels
