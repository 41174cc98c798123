#include "server/text/detokenizer.h"

#include <gtest/gtest.h>

#include <random>

#include "server/text/utf8.h"

namespace tessera::server {
namespace {

constexpr char kScripts[] =
    "plain ASCII, äöüß, Ελληνικά, Български, ไทย, 한국어 문장, 日本語テキスト, العربية, हिन्दी, "
    "🦙🚀😶‍🌫️, 𝔘𝔫𝔦𝔠𝔬𝔡𝔢, \xEF\xBF\xBD itself, e\xCC\x81";

// A table of random slices of `text`, in order, so that the tokens write the text.
TokenBytes SliceTokens(const std::string& text, uint32_t seed) {
  std::mt19937 random(seed);
  TokenBytes bytes;
  for (size_t pos = 0; pos < text.size();) {
    const size_t length = 1 + random() % 5;
    bytes.Add(absl::string_view(text).substr(pos, length), TokenKind::kNormal);
    pos += length;
  }
  return bytes;
}

std::vector<TokenId> AllIds(const TokenBytes& bytes) {
  std::vector<TokenId> ids(bytes.size());
  for (TokenId i = 0; i < ids.size(); ++i) ids[i] = i;
  return ids;
}

void ExpectDeltasEqualWhole(const TokenBytes& bytes) {
  const std::vector<TokenId> ids = AllIds(bytes);
  Detokenizer detokenizer(bytes, {});
  std::string all;
  for (const TokenId id : ids) {
    std::string delta;
    detokenizer.Append(id, &delta);
    EXPECT_FALSE(FindInvalidUtf8(delta).has_value());
    EXPECT_LE(detokenizer.held_back_bytes(), 3u);
    all += delta;
  }
  detokenizer.Flush(&all);
  EXPECT_EQ(all, Decode(bytes, ids, {}));
}

TEST(Detokenizer, DeltasEqualTheTextForAnySplit) {
  for (uint32_t seed = 0; seed < 300; ++seed) {
    const TokenBytes bytes = SliceTokens(kScripts, seed);
    ExpectDeltasEqualWhole(bytes);
    EXPECT_EQ(Decode(bytes, AllIds(bytes), {}), kScripts);
  }
}

TEST(Detokenizer, DeltasEqualTheWholeForRandomBytes) {
  for (uint32_t seed = 0; seed < 500; ++seed) {
    std::mt19937 random(seed);
    std::string text;
    // Bytes that begin, continue and break characters, more often than chance would give.
    const char pool[] = "a\x80\xBF\xC2\xE0\xA0\xED\x9F\xF0\x90\xF4\x8F\xFF\xC0\xE2\x82\xAC";
    for (int i = 0; i < 60; ++i) text.push_back(pool[random() % (sizeof(pool) - 1)]);
    ExpectDeltasEqualWhole(SliceTokens(text, seed));
  }
}

std::string Repaired(absl::string_view bytes) {
  Utf8Repair repair;
  std::string out;
  repair.Append(bytes, &out);
  repair.Flush(&out);
  return out;
}

// What Python's bytes.decode("utf-8", errors="replace") gives.
TEST(Utf8Repair, ReplacesMaximalBrokenParts) {
  const std::string r = "\xEF\xBF\xBD";
  EXPECT_EQ(Repaired("\xE2\x82"), r);
  EXPECT_EQ(Repaired("\xE2\x82z"), r + "z");
  EXPECT_EQ(Repaired("\xE2z\x82"), r + "z" + r);
  EXPECT_EQ(Repaired("\xC0\x80"), r + r);
  EXPECT_EQ(Repaired("\xED\xA0\x80"), r + r + r);
  EXPECT_EQ(Repaired("\xF0\x9F\xA6\xF0\x9F\xA6\x99"), r + "\xF0\x9F\xA6\x99");
  EXPECT_EQ(Repaired("\xF4\x90\x80\x80"), r + r + r + r);
  EXPECT_EQ(Repaired("\xF5\xFF"), r + r);
}

TEST(Detokenizer, LeadingSpaceAndSpecialTokens) {
  TokenBytes bytes;
  bytes.Add("<s>", TokenKind::kControl);
  bytes.Add(" Hello", TokenKind::kNormal);
  bytes.Add(" world", TokenKind::kNormal);
  bytes.set_first_token(FirstToken::kWithoutOneSpace);
  const std::vector<TokenId> ids = {0, 1, 2};
  EXPECT_EQ(Decode(bytes, ids, {}), " Hello world");
  EXPECT_EQ(Decode(bytes, ids, {.leading_space = LeadingSpace::kStrip}), "Hello world");
  EXPECT_EQ(Decode(bytes, ids, {.show_special = ShowSpecial::kYes}), "<s> Hello world");
  EXPECT_EQ(Decode(bytes, std::vector<TokenId>{7, 1}, {}), " Hello");
  bytes.set_first_token(FirstToken::kAsOthers);
  EXPECT_EQ(Decode(bytes, ids, {.leading_space = LeadingSpace::kStrip}), " Hello world");
}

}  // namespace
}  // namespace tessera::server
