#include "scheduler/stop_matcher.h"

#include <gtest/gtest.h>

#include <random>

namespace tessera::scheduler {
namespace {

TEST(StopMatcher, FindsAcrossTokensAndHoldsBack) {
  const std::vector<std::string> stop = {"END", "stop here"};
  StopMatcher matcher(&stop);
  EXPECT_EQ(matcher.Add("abcE").stop_index, -1);
  EXPECT_EQ(matcher.safe_bytes(), 3u);
  EXPECT_EQ(matcher.Add("N").stop_index, -1);
  EXPECT_EQ(matcher.safe_bytes(), 3u);
  const StopMatcher::Match match = matcher.Add("Dxyz");
  EXPECT_EQ(match.stop_index, 0);
  EXPECT_EQ(match.begin, 3u);
  EXPECT_EQ(match.end, 6u);
}

TEST(StopMatcher, FalseAlarmIsReleased) {
  const std::vector<std::string> stop = {"aab"};
  StopMatcher matcher(&stop);
  EXPECT_EQ(matcher.Add("aa").stop_index, -1);
  EXPECT_EQ(matcher.safe_bytes(), 0u);
  EXPECT_EQ(matcher.Add("a").stop_index, -1);
  EXPECT_EQ(matcher.safe_bytes(), 1u);
  EXPECT_EQ(matcher.Add("c").stop_index, -1);
  EXPECT_EQ(matcher.safe_bytes(), 4u);
}

TEST(StopMatcher, WithoutStopStringsAllIsSafe) {
  const std::vector<std::string> none;
  StopMatcher matcher(&none);
  (void)matcher.Add("anything");
  EXPECT_EQ(matcher.safe_bytes(), 8u);
}

TEST(StopMatcher, SkippedBytesNeverMatch) {
  const std::vector<std::string> stop = {"ab"};
  StopMatcher matcher(&stop);
  matcher.Skip("xa");
  EXPECT_EQ(matcher.Add("b").stop_index, -1);
  EXPECT_EQ(matcher.Add("ab").begin, 3u);
}

// Against a search of the whole text, for random texts, stops and token cuts.
TEST(StopMatcher, AgreesWithAWholeSearch) {
  for (uint32_t seed = 0; seed < 3000; ++seed) {
    std::mt19937 engine(seed);
    const auto random = [&](size_t longest) {
      std::string text(1 + engine() % longest, ' ');
      for (char& c : text) c = static_cast<char>('a' + engine() % 2);
      return text;
    };
    const std::vector<std::string> stop = {random(5), random(4)};
    const std::string text = random(40);
    size_t first_end = std::string::npos;
    for (const std::string& s : stop) {
      const size_t at = text.find(s);
      if (at != std::string::npos) first_end = std::min(first_end, at + s.size());
    }
    StopMatcher matcher(&stop);
    size_t at = 0;
    StopMatcher::Match match;
    while (at < text.size() && match.stop_index < 0) {
      const size_t length = std::min<size_t>(1 + engine() % 4, text.size() - at);
      match = matcher.Add(text.substr(at, length));
      at += length;
      if (match.stop_index < 0) {
        ASSERT_TRUE(first_end == std::string::npos || first_end > at) << "seed " << seed;
        if (first_end != std::string::npos) {
          ASSERT_LE(matcher.safe_bytes(), first_end - 1) << "seed " << seed;
        }
      }
    }
    ASSERT_EQ(match.stop_index >= 0, first_end != std::string::npos) << "seed " << seed;
    if (match.stop_index >= 0) {
      ASSERT_EQ(match.end, first_end) << "seed " << seed;
    }
  }
}

}  // namespace
}  // namespace tessera::scheduler
