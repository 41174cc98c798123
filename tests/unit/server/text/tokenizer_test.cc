#include "server/text/tokenizer.h"

#include <gtest/gtest.h>

#include "server/text/detokenizer.h"
#include "server/text/utf8.h"

namespace tessera::server {
namespace {

using Ids = std::vector<TokenId>;
constexpr EncodeOptions kPlain{AddSpecial::kNone, ParseSpecial::kOff};

// Bytes 0 to 255 in the byte alphabet, then "ab", " ab", then the control token <|x|> and the
// user-defined token <tool>.
GgufVocabulary ByteVocabulary() {
  GgufVocabulary v;
  v.model = "gpt2";
  v.pre = "gpt-2";
  for (int b = 0; b < 256; ++b) {
    std::string text;
    AppendUtf8(ByteToSymbol(static_cast<uint8_t>(b)), &text);
    v.tokens.push_back(text);
    v.token_types.push_back(1);
  }
  const auto add = [&](const char* text, int32_t type) {
    v.tokens.push_back(text);
    v.token_types.push_back(type);
  };
  add("ab", 1);
  add("\xC4\xA0"
      "ab",
      1);
  add("<|x|>", 3);
  add("<tool>", 4);
  v.merges = {"a b", "\xC4\xA0 ab"};
  v.bos_token_id = 258;
  v.eos_token_id = 258;
  return v;
}

std::shared_ptr<const Tokenizer> Make(const GgufVocabulary& v) {
  auto tokenizer = TokenizerFromGgufVocabulary(v);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *tokenizer : nullptr;
}

TEST(Tokenizer, MergesByRank) {
  const auto t = Make(ByteVocabulary());
  EXPECT_EQ(*t->Encode("ab ab", kPlain), (Ids{256, 257}));
  EXPECT_EQ(*t->Encode("ab ab", kPlain), (Ids{256, 257}));
  EXPECT_EQ(*t->Encode("ba", kPlain), (Ids{'b', 'a'}));
  EXPECT_EQ(*t->Encode("", kPlain), Ids{});
}

TEST(Tokenizer, SpecialTokensOnlyWhereAllowed) {
  const auto t = Make(ByteVocabulary());
  EXPECT_EQ(*t->Encode("<|x|>", {AddSpecial::kNone, ParseSpecial::kOn}), Ids{258});
  EXPECT_EQ(t->Encode("<|x|>", kPlain)->size(), 5u);
  EXPECT_EQ(*t->Encode("<tool>", kPlain), Ids{259});
  EXPECT_EQ(*t->Encode("<|x|>", {AddSpecial::kNone, ParseSpecial::kOn}), Ids{258});
}

TEST(Tokenizer, DataNeverBecomesAControlToken) {
  const auto t = Make(ByteVocabulary());
  const auto encode = [&](std::vector<TextSegment> segments) {
    return *t->EncodeSegments(segments);
  };
  EXPECT_EQ(encode({{"<|x|>", TextOrigin::kTemplate}}), Ids{258});
  EXPECT_EQ(encode({{"<|x", TextOrigin::kTemplate}, {"|>", TextOrigin::kTemplate}}), Ids{258});
  EXPECT_EQ(encode({{"<|x|>", TextOrigin::kData}}).size(), 5u);
  EXPECT_EQ(
      encode(
          {{"<|", TextOrigin::kTemplate}, {"x", TextOrigin::kData}, {"|>", TextOrigin::kTemplate}})
          .size(),
      5u);
  // Text on both sides of a seam is still merged as one text.
  EXPECT_EQ(encode({{"<|x|>a", TextOrigin::kTemplate}, {"b", TextOrigin::kData}}), (Ids{258, 256}));
}

TEST(Tokenizer, AddsBosAndEosByFlags) {
  GgufVocabulary v = ByteVocabulary();
  EXPECT_EQ(*Make(v)->Encode("ab", {}), Ids{256});
  v.add_bos_token = true;
  v.add_eos_token = true;
  EXPECT_EQ(*Make(v)->Encode("ab", {}), (Ids{258, 256, 258}));
  EXPECT_EQ(*Make(v)->Encode("ab", kPlain), Ids{256});
}

TEST(Tokenizer, RefusesBadText) {
  const auto t = Make(ByteVocabulary());
  const auto bad = t->Encode("ok\xFF", kPlain);
  EXPECT_EQ(bad.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(bad.status().message().find("byte 2"), std::string::npos);
  EXPECT_EQ(t->Encode(std::string(kMaxEncodeBytes + 1, 'a'), kPlain).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(Tokenizer, TokenToIdKnowsNamesAndTexts) {
  const auto t = Make(ByteVocabulary());
  EXPECT_EQ(t->TokenToId("<|x|>"), 258u);
  EXPECT_EQ(t->TokenToId(" ab"), 257u);
  EXPECT_EQ(t->TokenToId("absent"), std::nullopt);
}

TEST(Tokenizer, RefusesBrokenVocabularies) {
  const auto why = [](const GgufVocabulary& v) {
    return std::string(TokenizerFromGgufVocabulary(v).status().message());
  };
  GgufVocabulary v = ByteVocabulary();
  v.bos_token_id = 4000;
  EXPECT_NE(why(v).find("bos_token_id"), std::string::npos) << why(v);
  v = ByteVocabulary();
  v.token_types.pop_back();
  EXPECT_NE(why(v).find("token_type"), std::string::npos) << why(v);
  v = ByteVocabulary();
  v.merges = {"onlyone"};
  EXPECT_NE(why(v).find("merges[0]"), std::string::npos) << why(v);
  v = ByteVocabulary();
  v.pre = "no-such-rules";
  EXPECT_NE(why(v).find("no-such-rules"), std::string::npos) << why(v);
  v = ByteVocabulary();
  v.tokens[65] = "gone";
  EXPECT_NE(why(v).find("no token for byte 65"), std::string::npos) << why(v);
  v = ByteVocabulary();
  v.model = "rwkv";
  EXPECT_NE(why(v).find("rwkv"), std::string::npos) << why(v);
  EXPECT_EQ(TokenizerFromAssets({}).status().code(), absl::StatusCode::kNotFound);
}

constexpr char kTinyJson[] = R"({
  "added_tokens": [{"id": 8, "content": "<s>", "special": true}],
  "normalizer": {"type": "Sequence", "normalizers": [
    {"type": "Prepend", "prepend": "▁"},
    {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
  "post_processor": {"type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [8], "tokens": ["<s>"]}}},
  "decoder": {"type": "Sequence", "decoders": [
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
    {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
  "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true,
    "vocab": {"<unk>": 0, "▁": 1, "h": 2, "i": 3, "hi": 4, "▁hi": 5, "!": 6},
    "merges": ["h i", ["▁", "hi"]]}})";

TEST(HuggingFaceTokenizer, CharacterBpe) {
  const auto t = TokenizerFromHuggingFace(kTinyJson, R"({"bos_token": {"content": "<s>"}})");
  ASSERT_TRUE(t.ok()) << t.status();
  EXPECT_EQ(*(*t)->Encode("hi hi!", {}), (Ids{8, 5, 5, 6}));
  EXPECT_EQ(*(*t)->Encode("hi ??", kPlain), (Ids{5, 1, 0}));
  EXPECT_EQ((*t)->bos(), 8u);
  EXPECT_EQ((*t)->vocab_size(), 9u);
  EXPECT_EQ(Decode((*t)->token_bytes(), Ids{8, 5, 5, 6}, {.leading_space = LeadingSpace::kStrip}),
            "hi hi!");
  const auto ranges = (*t)->EncodeWithRanges("hi hi!", kPlain);
  EXPECT_EQ(ranges->ranges, (std::vector<ByteRange>{{0, 2}, {2, 5}, {5, 6}}));
}

// The library reads the last score as -13.1, so the token ties with its halves and comes first.
TEST(HuggingFaceTokenizer, TiesBetweenScoresAreThoseOfTheLibrary) {
  const auto t = TokenizerFromHuggingFace(R"({"model": {"type": "Unigram", "unk_id": 0, "vocab": [
      ["<unk>", 0], ["a", -6.55], ["b", -6.55], ["ab", -13.100000000000001]]}})",
                                          "");
  ASSERT_TRUE(t.ok()) << t.status();
  EXPECT_EQ(*(*t)->Encode("ab", kPlain), (Ids{3}));
}

TEST(HuggingFaceTokenizer, RefusesByName) {
  const auto why = [](const char* json) {
    return std::string(TokenizerFromHuggingFace(json, "").status().message());
  };
  EXPECT_NE(why("[]").find("JSON object"), std::string::npos);
  EXPECT_NE(why(R"({"model": {"type": "Magic", "vocab": {"a": 0}}})").find("Magic"),
            std::string::npos);
  EXPECT_NE(why(R"({"model": {"type": "BPE", "vocab": {"a": 99999999999}}})").find("too large"),
            std::string::npos);
  EXPECT_NE(
      why(R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}})").find("merges[0]"),
      std::string::npos);
  EXPECT_NE(why(R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []},
                    "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}}})")
                .find("compile"),
            std::string::npos);
  EXPECT_NE(why(R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []},
                    "normalizer": {"type": "Precompiled"}})")
                .find("precompiled_charsmap"),
            std::string::npos);
}

}  // namespace
}  // namespace tessera::server
