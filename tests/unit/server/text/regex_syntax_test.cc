#include "server/text/regex_syntax.h"

#include <gtest/gtest.h>

#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/text/regex.h"

namespace tessera::server {
namespace {

// What the pattern finds in `text`, each match in brackets.
std::string Found(absl::string_view pattern, absl::string_view text) {
  const StatusOr<Regex> regex = Regex::Compile(pattern, PatternEngine::kLibrary);
  if (!regex.ok()) return regex.status().ToString();
  std::string found;
  for (size_t from = 0; from <= text.size();) {
    const StatusOr<Regex::Match> match = regex->Find(text, from);
    if (!match.ok() || !match->found || match->begin == match->end) break;
    absl::StrAppend(&found, "[", text.substr(match->begin, match->end - match->begin), "]");
    from = match->end;
  }
  return found;
}

TEST(RegexSyntax, ClassesHoldClassesAndIntersections) {
  EXPECT_EQ(Found("[a[bc]]+", "abcd"), "[abc]");
  EXPECT_EQ(Found("[a-z&&[^m]]+", "klmno"), "[kl][no]");
  EXPECT_EQ(Found("[a-z&&[b-y]&&[^m]]+", "abmyz"), "[b][y]");
  EXPECT_EQ(Found("[^a-z&&[^m]]+", "AmBc"), "[AmB]");
  EXPECT_EQ(Found("[x[^a-y]]+", "axz\n"), "[xz\n]");
  EXPECT_EQ(Found("[\\p{L}&&[^\\p{Han}]]+", "ab\u4f60c"), "[ab][c]");
  EXPECT_EQ(Found("[]a]+", "]ab"), "[]a]");
  EXPECT_EQ(Found("[[:alpha:]\\]]+", "a]1"), "[a]]");
}

TEST(RegexSyntax, EscapesMeanWhatOnigurumaMeans) {
  EXPECT_EQ(Found("\\h+", "af09 g"), "[af09]");
  EXPECT_EQ(Found("[\\H]+", "aég"), "[ég]");
  EXPECT_EQ(Found("\\w+", "a\u0301_\u0662-"), "[a\u0301_\u0662]");
  EXPECT_EQ(Found("\\s", "\u180e\u3000"), "[\u3000]");
  EXPECT_EQ(Found("[^\\W\\d]+", "a1b"), "[a][b]");
  EXPECT_EQ(Found("\\p{^L}+|\\P{N}", "1a2"), "[1][a][2]");
}

TEST(RegexSyntax, CharactersThatTheLibraryDoesNotKnow) {
  EXPECT_EQ(Found("\\d+", "a\U00010d45\U000116e3"), "[\U00010d45\U000116e3]");  // Unicode 16
  EXPECT_EQ(Found("[^\\p{N}]+", "a\U00011f59b"), "[a][b]");                     // Unicode 15
  EXPECT_EQ(Found("\\p{Lu}", "\ua7dc"), "[\ua7dc]");
  EXPECT_EQ(Found("[\\P{L}]+", "\U000105c0."), "[.]");
}

TEST(RegexSyntax, RefusesWhatDoesNotEnd) {
  for (const char* pattern : {"[a", "[a&&", "[a[b]", "[\\"}) {
    const StatusOr<std::string> text = ToLibrarySyntax(pattern);
    EXPECT_TRUE(absl::IsInvalidArgument(text.status())) << pattern;
  }
  EXPECT_TRUE(absl::IsInvalidArgument(ToLibrarySyntax("[a&&]").status()));
  const StatusOr<std::string> deep = ToLibrarySyntax(std::string(40, '['));
  EXPECT_TRUE(absl::StrContains(deep.status().message(), "nest too deep")) << deep.status();
  std::string long_class = "[";
  for (int i = 0; i < 4000; ++i) long_class += "\\W";
  EXPECT_TRUE(absl::IsInvalidArgument(ToLibrarySyntax(long_class + "]").status()));
}

}  // namespace
}  // namespace tessera::server
