#include "blockzoo/zoo_progress.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

#include "blockzoo/zoo_io.h"

namespace tessera::blockzoo {
namespace {

TEST(ZooProgressTest, TellsShareRateAndTimeLeft) {
  const std::string bar = ProgressLine("importing", 50 << 20, 100 << 20, 5, ProgressStyle::kBar);
  EXPECT_EQ(bar,
            "importing  [############............]   50%  50.0 MiB of 100.0 MiB  10.0 MiB/s  "
            "0:05 left");
  EXPECT_EQ(ProgressLine("x", 0, 0, 0, ProgressStyle::kLines), "x  100%  0 B of 0 B");
  EXPECT_EQ(ProgressLine("x", 1 << 20, uint64_t{7201} << 20, 1, ProgressStyle::kLines),
            "x    0%  1.00 MiB of 7.03 GiB  1.00 MiB/s  2:00:00 left");
}

TEST(ZooProgressTest, WritesALineEveryThreeSeconds) {
  char* text = nullptr;
  size_t size = 0;
  std::FILE* stream = open_memstream(&text, &size);
  ManualClock clock;
  {
    ProgressPrinter printer("importing", stream, ProgressStyle::kLines, clock);
    for (int i = 1; i <= 10; ++i) {
      clock.Advance(std::chrono::seconds(1));
      printer.Update(i << 20, 10 << 20);
    }
  }
  std::fclose(stream);
  const std::string written(text, size);
  std::free(text);
  EXPECT_EQ(std::count(written.begin(), written.end(), '\n'), 3);
  EXPECT_NE(written.find(" 90%"), std::string::npos) << written;
}

TEST(ZooProgressTest, WritesSizesForPeople) {
  EXPECT_EQ(BytesText(0), "0 B");
  EXPECT_EQ(BytesText(1023), "1023 B");
  EXPECT_EQ(BytesText(1536), "1.50 KiB");
  EXPECT_EQ(BytesText(98362432), "93.8 MiB");
}

}  // namespace
}  // namespace tessera::blockzoo
