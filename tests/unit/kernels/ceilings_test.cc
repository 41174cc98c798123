#include "kernels/ceilings.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace tessera::kernels {
namespace {

TEST(CeilingsTest, AnythingCanBeRead) {
  ThreadPool pool({.threads = 2});
  for (const uint64_t bytes : {uint64_t{0}, uint64_t{100}, uint64_t{5} << 20}) {
    EXPECT_GT(MeasureReadRate(pool, bytes), 1e6) << bytes;
  }
}

TEST(CeilingsTest, EverySetOfTheMachineHasPeaksAndNoOther) {
  ThreadPool pool({.threads = 1});
  const std::vector<CpuIsa> have = SupportedCpuIsas();
  for (const CpuIsa isa : {CpuIsa::kAmx, CpuIsa::kAvx512, CpuIsa::kAvx2}) {
    const bool there = std::find(have.begin(), have.end(), isa) != have.end();
    const std::vector<ArithmeticPeak> peaks = MeasurePeaks(pool, isa);
    EXPECT_EQ(peaks.empty(), !there) << NameOf(isa);
    for (const ArithmeticPeak& peak : peaks) EXPECT_GT(peak.ops_per_s, 1e8) << peak.name;
  }
  EXPECT_FALSE(MeasurePeaks(pool, CpuIsa::kAuto).empty());
}

}  // namespace
}  // namespace tessera::kernels
