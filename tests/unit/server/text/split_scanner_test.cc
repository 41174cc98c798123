#include "server/text/split_scanner.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "config/foundation/text.h"
#include "server/text/regex.h"
#include "server/text/unicode_classes.h"

namespace tessera::server {
namespace {

// Characters of all classes that the patterns tell apart, all of them old.
constexpr char32_t kCharacters[] = {
    U'a',   U'b',   U'Z',   U's',   U't',   U'r',   U'e',   U'v',   U'm',   U'l',   U'L',
    U'd',   U'S',   U'0',   U'7',   U'\'',  U'\'',  U' ',   U' ',   U' ',   U'\n',  U'\n',
    U'\r',  U'\t',  U'!',   U'/',   U'$',   U'_',   U'.',   U'-',   0x00A0, 0x2003, 0x3000,
    0x0085, 0x0000, 0x200B, 0x00E9, 0x00C9, 0x01C5, 0x02B0, 0x00AA, 0x0301, 0x093E, 0x20DD,
    0x4E2D, 0x3042, 0x00BD, 0x0663, 0x2160, 0x20AC, 0x2014, 0x017F, 0x0130, 0x1F600};

std::string RandomText(std::mt19937* random) {
  std::string text;
  const size_t length = (*random)() % 24;
  while (text.size() < length) {
    const char32_t code = kCharacters[(*random)() % std::size(kCharacters)];
    const size_t times = (*random)() % 4 == 0 ? 1 + (*random)() % 4 : 1;
    for (size_t i = 0; i < times; ++i) AppendUtf8(code, &text);
  }
  return text;
}

std::vector<size_t> Cuts(const Regex& regex, absl::string_view text) {
  std::vector<size_t> cuts;
  for (size_t from = 0; from < text.size();) {
    const auto match = regex.Find(text, from);
    EXPECT_TRUE(match.ok()) << match.status();
    if (!match.ok() || !match->found) break;
    cuts.push_back(match->begin);
    cuts.push_back(match->end);
    from = match->end;
  }
  return cuts;
}

class Scanners : public ::testing::TestWithParam<size_t> {};

TEST_P(Scanners, FindWhatThePatternFinds) {
  const absl::string_view pattern = ScannedPatterns()[GetParam()].pattern;
  const auto scanned = Regex::Compile(pattern);
  const auto reference = Regex::Compile(pattern, PatternEngine::kLibrary);
  ASSERT_TRUE(scanned.ok() && reference.ok()) << scanned.status() << reference.status();
  std::mt19937 random(static_cast<uint32_t>(GetParam()));
  for (int round = 0; round < 20000; ++round) {
    const std::string text = RandomText(&random);
    ASSERT_EQ(Cuts(*scanned, text), Cuts(*reference, text)) << "text: \"" << text << "\"";
  }
}

INSTANTIATE_TEST_SUITE_P(All, Scanners, ::testing::Range<size_t>(0, ScannedPatterns().size()));

TEST(Scanners, AreFoundByTheExactPattern) {
  EXPECT_NE(FindScanner("\\p{N}{1,3}"), nullptr);
  EXPECT_EQ(FindScanner("\\p{N}{1,4}"), nullptr);
}

TEST(CharClasses, KnowOldAndNewCharacters) {
  EXPECT_EQ(ClassesOf('A') & kLetter, static_cast<uint32_t>(kUpperLetter));
  EXPECT_EQ(ClassesOf('$'), kSymbol | kBertPunctuation);
  EXPECT_EQ(ClassesOf(0x3000), static_cast<uint32_t>(kWhiteSpace));
  EXPECT_EQ(ClassesOf(0x1C89) & kLetter, static_cast<uint32_t>(kUpperLetter));  // Unicode 16
  EXPECT_NE(ClassesOf(0x2E5D) & kPunctuation, 0u);                              // Unicode 14
  EXPECT_EQ(ClassesOf(0x2E5D) & kBertPunctuation, 0u);
  EXPECT_NE(ClassesOf(0xE000) & kBertControl, 0u);
  EXPECT_EQ(ClassesOf(0x10FFFF + 1), 0u);
  EXPECT_EQ(LowerCaseOf(U'Ä'), U'ä');
  EXPECT_EQ(LowerCaseOf(0x10D51), char32_t{0x10D71});
}

}  // namespace
}  // namespace tessera::server
