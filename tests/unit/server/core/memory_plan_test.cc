#include "server/core/memory_plan.h"

#include <gtest/gtest.h>

#include "absl/strings/match.h"

namespace tessera::server {
namespace {

constexpr uint64_t kGiB = uint64_t{1} << 30;

TEST(PlanMemory, HalfOfTheFractionIsTheCaches) {
  EngineSettings settings;
  settings.memory_fraction = 0.5;
  const MemoryPlan plan = PlanMemory(settings, 8 * kGiB);
  EXPECT_EQ(plan.free_bytes, 8 * kGiB);
  EXPECT_EQ(plan.cache_bytes, 2 * kGiB);
  EXPECT_EQ(plan.weight_bytes, 2 * kGiB);
}

TEST(PlanMemory, AGivenCacheIsTakenAndLeavesTheFractionToWeights) {
  EngineSettings settings;
  settings.memory_fraction = 0.25;
  settings.memory.bytes = 3 * kGiB;
  const MemoryPlan plan = PlanMemory(settings, 8 * kGiB);
  EXPECT_EQ(plan.cache_bytes, 3 * kGiB);
  EXPECT_EQ(plan.weight_bytes, 2 * kGiB);
}

TEST(PlanMemory, NothingFreeIsNothingPlanned) {
  const MemoryPlan plan = PlanMemory({}, 0);
  EXPECT_EQ(plan.cache_bytes, 0u);
  EXPECT_EQ(plan.weight_bytes, 0u);
}

TEST(MeminfoBytes, ReadsTheKeysLine) {
  constexpr const char* kText =
      "MemTotal:       8000000 kB\nMemAvailableX:  1 kB\nMemAvailable:   2048 kB\nHuge: x kB\n";
  EXPECT_EQ(MeminfoBytes(kText, "MemAvailable"), 2048u << 10);
  EXPECT_EQ(MeminfoBytes(kText, "MemTotal"), 8000000ull << 10);
  EXPECT_EQ(MeminfoBytes(kText, "Huge"), 0u);
  EXPECT_EQ(MeminfoBytes(kText, "Absent"), 0u);
  EXPECT_EQ(MeminfoBytes("", "MemTotal"), 0u);
}

TEST(FreeMemoryBytes, IsNoMoreThanTheMachineHas) {
  const uint64_t free = FreeMemoryBytes();
  EXPECT_GT(free, uint64_t{1} << 20);
  EXPECT_LT(free, uint64_t{1} << 46);
}

TEST(MemoryPlan, DescribesItselfInMiB) {
  const std::string text =
      MemoryPlan{.free_bytes = 3 * kGiB, .cache_bytes = kGiB, .weight_bytes = 2 * kGiB}.Describe();
  for (const char* figure : {"3072 MiB free", "up to 1024 MiB", "up to 2048 MiB"}) {
    EXPECT_TRUE(absl::StrContains(text, figure)) << text;
  }
}

}  // namespace
}  // namespace tessera::server
