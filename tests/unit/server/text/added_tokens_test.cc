#include "server/text/added_tokens.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace tessera::server {
namespace {

constexpr TokenId kMark = 1;
constexpr TokenId kSpaces = 2;

// The fragments of `text`: texts in quotes, tokens as numbers. "##" swallows the white space behind
// it, and two spaces are a token too.
std::string Cut(absl::string_view text, AddedToken spaces) {
  spaces.text = "  ";
  spaces.id = kSpaces;
  const AddedTokens tokens({{.text = "##", .id = kMark, .rstrip = true}, spaces});
  std::string written;
  for (const Fragment& fragment : tokens.Split(text, {})) {
    const auto [begin, end] = fragment.range;
    absl::StrAppend(&written, written.empty() ? "" : " ");
    if (fragment.token.has_value()) {
      absl::StrAppend(&written, *fragment.token);
    } else {
      absl::StrAppend(&written, "'", text.substr(begin, end - begin), "'");
    }
  }
  return written;
}

// What `tokenizers` 0.23 gives.
TEST(AddedTokens, SwallowedWhiteSpaceMayBeATokenAndTextBehindIt) {
  EXPECT_EQ(Cut("## M", {}), "1 'M'");
  EXPECT_EQ(Cut("##  M", {}), "1 2 'M'");
  EXPECT_EQ(Cut("##   M", {}), "1 2 ' M'");
  EXPECT_EQ(Cut("##    M", {}), "1 2 2 'M'");
  // Where one of them may not stand, the white space behind the last is text.
  EXPECT_EQ(Cut("##  M", {.single_word = true}), "1 'M'");
  EXPECT_EQ(Cut("##    M", {.single_word = true}), "1 2 '  M'");
  EXPECT_EQ(Cut("##    ", {.single_word = true}), "1 2 2");
  // One that swallows as well takes all that is left.
  EXPECT_EQ(Cut("##     M", {.rstrip = true}), "1 2 2 'M'");
}

TEST(AddedTokens, OneThatSwallowsBackwardsHasNothingLeftInSwallowedWhiteSpace) {
  EXPECT_EQ(Cut("##  M", {.lstrip = true}), "1 'M'");
  EXPECT_EQ(Cut("a    M", {.lstrip = true}), "'a' 2 2 'M'");
  // `tokenizers` panics here.
  EXPECT_EQ(Cut("##     M", {.lstrip = true}), "1 'M'");
}

}  // namespace
}  // namespace tessera::server
