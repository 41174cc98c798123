#include "config/units.h"

#include <gtest/gtest.h>

#include <limits>

namespace tessera {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(UnitsTest, DurationsNeedUnits) {
  EXPECT_EQ(*ParseDuration("30s"), seconds(30));
  EXPECT_EQ(*ParseDuration("500ms"), milliseconds(500));
  EXPECT_EQ(*ParseDuration("10m"), seconds(600));
  EXPECT_EQ(*ParseDuration("2d"), hours(48));
  EXPECT_EQ(*ParseDuration("1.5s"), milliseconds(1500));
  EXPECT_EQ(*ParseDuration("0s"), Duration(0));
  for (const char* bad : {"", "30", "s", "-1s", "+1s", "1 s", " 1s", "1s ", "1S", "1.s", ".5s",
                          "1e3s", "0.5ns", "99999999999999999999s", "9223372036854775807h"}) {
    EXPECT_FALSE(ParseDuration(bad).ok()) << bad;
  }
}

TEST(UnitsTest, SizesNeedBinaryUnits) {
  EXPECT_EQ(ParseByteSize("16MiB")->bytes, 16 << 20);
  EXPECT_EQ(ParseByteSize("1.5GiB")->bytes, int64_t{3} << 29);
  EXPECT_EQ(ParseByteSize("256B")->bytes, 256);
  for (const char* bad :
       {"", "16", "16MB", "16M", "0.5B", "-1B", "9999999TiB", "1.0000000000MiB"}) {
    EXPECT_FALSE(ParseByteSize(bad).ok()) << bad;
  }
}

TEST(UnitsTest, NumbersAreWholeText) {
  EXPECT_EQ(*ParseInt("-5"), -5);
  EXPECT_EQ(*ParseDouble("0.95"), 0.95);
  EXPECT_TRUE(*ParseBool("true"));
  for (const char* bad : {"", " 5", "5 ", "+5", "5.0", "0x5", "9223372036854775808"}) {
    EXPECT_FALSE(ParseInt(bad).ok()) << bad;
  }
  for (const char* bad : {"", "nan", "inf", "1e999", "0x1p3", " 1", "1,5"}) {
    EXPECT_FALSE(ParseDouble(bad).ok()) << bad;
  }
  for (const char* bad : {"True", "yes", "1", ""}) EXPECT_FALSE(ParseBool(bad).ok()) << bad;
}

TEST(UnitsTest, FormatsReadBack) {
  for (const int64_t ns : {int64_t{0}, int64_t{1}, int64_t{1500}, int64_t{90'000'000'000},
                           std::numeric_limits<int64_t>::max()}) {
    EXPECT_EQ(ParseDuration(FormatValue(Duration(ns)))->count(), ns);
    EXPECT_EQ(ParseByteSize(FormatValue(ByteSize{ns}))->bytes, ns);
  }
  EXPECT_EQ(FormatValue(Duration(seconds(120))), "2m");
  EXPECT_EQ(FormatValue(MiB(16)), "16MiB");
  for (const double value : {0.1, 0.95, 1e-6, 1.0 / 3, 12345678.9}) {
    EXPECT_EQ(*ParseDouble(FormatValue(value)), value);
  }
}

}  // namespace
}  // namespace tessera
