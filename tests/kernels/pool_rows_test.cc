// The sums that pooling takes over rows.
#include "tests/kernels/kernel_test_support.h"

namespace tessera::kernels {
namespace {

class PoolRowsTest : public IsaTest {};
TESSERA_EACH_ISA(PoolRowsTest);

TEST_P(PoolRowsTest, SumsAreThoseOfFloat64HoweverRowsAreCut) {
  Machine machine(GetParam(), 2);
  Random random(1);
  for (const int width : {1, 7, 255, 256, 257, 1000}) {
    constexpr int kRows = 40;
    const std::vector<float> x = random.Floats(static_cast<size_t>(kRows * width), 3.0f);
    // Rows 0..11 of one sequence and 12..39 of another.
    std::vector<double> want[2];
    for (std::vector<double>& sums : want) sums.assign(static_cast<size_t>(width), 0.0);
    for (int r = 0; r < kRows; ++r) {
      for (int c = 0; c < width; ++c) {
        want[r < 12 ? 0 : 1][static_cast<size_t>(c)] +=
            double{x[static_cast<size_t>(r * width + c)]};
      }
    }
    for (const int cut : {12, 13, 25, 39}) {
      std::vector<double> sums[2];
      for (std::vector<double>& one : sums) one.assign(static_cast<size_t>(width), 0.0);
      const PoolRowsTask first[] = {{sums[0].data(), 0, 12}, {sums[1].data(), 12, cut - 12}};
      const PoolRowsTask second[] = {{sums[1].data(), cut, kRows - cut}};
      for (const std::span<const PoolRowsTask> tasks :
           {std::span<const PoolRowsTask>(first), std::span<const PoolRowsTask>(second)}) {
        machine.Run<PoolRowsOp>({.width = width}, {.tasks = tasks, .x = x.data(), .width = width});
      }
      EXPECT_EQ(sums[0], want[0]) << width;
      EXPECT_EQ(sums[1], want[1]) << width << " cut at " << cut;
    }
  }
}

}  // namespace
}  // namespace tessera::kernels
