#include <gtest/gtest.h>

#include "server/text/detokenizer.h"
#include "server/text/tokenizer.h"

namespace tessera::server {
namespace {

constexpr EncodeOptions kDefault{AddSpecial::kDefault, ParseSpecial::kOn};

TEST(ByteTokenizerTest, ATextIsItsBytes) {
  const auto tokenizer = TokenizerFromAssets({{"byte_vocabulary.json", "{\"vocab\":300}"}});
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const Tokenizer& t = **tokenizer;
  EXPECT_EQ(t.vocab_size(), 300u);
  EXPECT_EQ(t.eos(), std::nullopt);
  EXPECT_EQ(*t.Encode("a\xC3\xA9\n", kDefault), (std::vector<TokenId>{'a', 0xC3, 0xA9, '\n'}));
  EXPECT_EQ(*t.Encode("", kDefault), std::vector<TokenId>{});
  EXPECT_EQ(t.TokenToId("a"), TokenId{'a'});
  EXPECT_EQ(t.TokenToId("ab"), std::nullopt);
  const auto ranges = t.EncodeWithRanges("xy", kDefault);
  ASSERT_TRUE(ranges.ok());
  EXPECT_EQ(ranges->ranges[1].begin, 1u);
  EXPECT_EQ(ranges->ranges[1].end, 2u);
  EXPECT_EQ(t.token_bytes().bytes(0xC3), "\xC3");
  EXPECT_EQ(t.token_bytes().bytes(299), " 299");
}

TEST(ByteTokenizerTest, RefusesOtherSizes) {
  for (const char* json : {"", "[]", "{}", "{\"vocab\":255}", "{\"vocab\":-1}",
                           "{\"vocab\":\"300\"}", "{\"vocab\":300.5}", "{\"vocab\":99999999}"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(TokenizerFromByteVocabulary(json).status())) << json;
  }
}

}  // namespace
}  // namespace tessera::server
