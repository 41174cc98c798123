#include "server/cli/console.h"

#include <gtest/gtest.h>

namespace tessera::server::cli {
namespace {

TEST(ConsoleTest, TableColumnsAreAsWideAsTheirWidestCell) {
  EXPECT_EQ(Table({"NAME", ">SIZE", "NOTE"}, {{"a", "1", "x"}, {"longer", "12345", ""}}),
            "NAME     SIZE  NOTE\n"
            "a           1  x\n"
            "longer  12345\n");
  EXPECT_EQ(Table({"ONLY"}, {}), "ONLY\n");
}

TEST(ConsoleTest, TableCountsCharactersNotBytes) {
  EXPECT_EQ(Table({"T", "U"}, {{"é", "1"}, {"ab", "2"}}), "T   U\né   1\nab  2\n");
}

TEST(ConsoleTest, SizesForPeople) {
  EXPECT_EQ(HumanBytes(0), "0 B");
  EXPECT_EQ(HumanBytes(1023), "1023 B");
  EXPECT_EQ(HumanBytes(1024), "1.0 KiB");
  EXPECT_EQ(HumanBytes(102'872'000), "98.1 MiB");
  EXPECT_EQ(HumanBytes(uint64_t{5} << 40), "5.0 TiB");
  EXPECT_EQ(HumanBytes(uint64_t{5} << 50), "5120.0 TiB");
}

TEST(ConsoleTest, CountsForPeople) {
  EXPECT_EQ(HumanCount(999), "999");
  EXPECT_EQ(HumanCount(1234), "1,234");
  EXPECT_EQ(HumanCount(1004), "1,004");
  EXPECT_EQ(HumanCount(134'515'008), "134.5M");
  EXPECT_EQ(HumanCount(1'240'000'000), "1.24B");
}

TEST(ConsoleTest, TimesForPeople) {
  EXPECT_EQ(HumanSeconds(0), "0 us");
  EXPECT_EQ(HumanSeconds(0.000'25), "250 us");
  EXPECT_EQ(HumanSeconds(0.0123), "12.3 ms");
  EXPECT_EQ(HumanSeconds(4.56), "4.56 s");
  EXPECT_EQ(HumanSeconds(125), "2 min 5 s");
  EXPECT_EQ(HumanSeconds(3 * 86400 + 4 * 3600 + 59), "3 d 4 h");
}

TEST(ConsoleTest, WithoutATerminalTextIsPlain) {
  if (IsTerminal(Stream::kOut)) GTEST_SKIP() << "standard output is a terminal";
  EXPECT_EQ(Styled(Stream::kOut, Style::kRed, "red"), "red");
  EXPECT_EQ(ForTerminal("a\x1b[2Jb"), "a\x1b[2Jb");
}

TEST(ConsoleTest, ControlCharactersAreTakenOut) {
  EXPECT_EQ(WithoutControls("a\x1b[2Jb\x07\x7f"), "a[2Jb");
  EXPECT_EQ(WithoutControls("line\n\ttab\r"), "line\n\ttab");
  EXPECT_EQ(WithoutControls("\xc2\x9b"
                            "31mred"),
            "31mred");
  EXPECT_EQ(WithoutControls("\xc3\x9b h\xc3\xa9"), "\xc3\x9b h\xc3\xa9");
}

TEST(ConsoleTest, AnErrorHasFourLines) {
  const Status status = Error(absl::StatusCode::kInvalidArgument,
                              {.what = "bad", .where = "f:3", .why = "one\ntwo", .fix = "do"});
  ::testing::internal::CaptureStderr();
  PrintStatus(status);
  EXPECT_EQ(::testing::internal::GetCapturedStderr(),
            "error: bad\n"
            "  where  f:3\n"
            "  why    one\n"
            "         two\n"
            "  fix    do\n");
  ::testing::internal::CaptureStderr();
  PrintStatus(absl::NotFoundError("gone"));
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "error: gone\n");
}

}  // namespace
}  // namespace tessera::server::cli
