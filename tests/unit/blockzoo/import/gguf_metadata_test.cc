#include "blockzoo/import/gguf_metadata.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "blockzoo/zoo_io.h"
#include "tests/support/gguf_writer.h"

namespace tessera::blockzoo {
namespace {

using nlohmann::json;
using testing::GgufWriter;

GgufWriter Vocabulary() {
  GgufWriter gguf;
  gguf.Text("tokenizer.ggml.model", "gpt2")
      .Texts("tokenizer.ggml.tokens", {"<|endoftext|>", "a", "<|im_end|>", "<end_of_turn>", "</s>"})
      .Numbers<int32_t>("tokenizer.ggml.token_type", GgufWriter::kI32, {3, 1, 1, 1, 1})
      .Texts("tokenizer.ggml.merges", {"a b"})
      .U32("tokenizer.ggml.bos_token_id", 1)
      .U32("tokenizer.ggml.padding_token_id", 4294967295u)
      .Bool("tokenizer.ggml.add_bos_token", 0);
  return gguf;
}

template <typename Result, typename Function>
StatusOr<Result> With(const GgufWriter& gguf, Function function) {
  const std::string file = gguf.Build();
  const StatusOr<GgufFile> parsed = ParseGguf(BytesOf(file));
  if (!parsed.ok()) return parsed.status();
  return function(*parsed);
}

TEST(GgufMetadataTest, WritesTheVocabulary) {
  const auto text = With<std::string>(Vocabulary(), GgufVocabularyJson);
  ASSERT_TRUE(text.ok()) << text.status();
  const json vocabulary = json::parse(*text);
  EXPECT_EQ(vocabulary["model"], "gpt2");
  EXPECT_EQ(vocabulary["tokens"].size(), 5u);
  EXPECT_EQ(vocabulary["token_types"][0], 3);
  EXPECT_EQ(vocabulary["merges"][0], "a b");
  EXPECT_EQ(vocabulary["bos_token_id"], 1);
  EXPECT_EQ(vocabulary["add_bos_token"], false);
  for (const char* absent :
       {"padding_token_id", "eos_token_id", "scores", "pre", "add_eos_token"}) {
    EXPECT_FALSE(vocabulary.contains(absent)) << absent;
  }
}

TEST(GgufMetadataTest, EndTokensAreIdsControlTokensAndWhatTheTemplateWrites) {
  GgufWriter gguf = Vocabulary();
  gguf.U32("tokenizer.ggml.eot_token_id", 1).Text("tokenizer.chat_template", "{{ x }}<|im_end|>");
  const auto ids = With<std::vector<uint32_t>>(gguf, GgufEndTokenIds);
  ASSERT_TRUE(ids.ok()) << ids.status();
  EXPECT_EQ(*ids, (std::vector<uint32_t>{0, 1, 2}));
}

TEST(GgufMetadataTest, RefusesBadVocabularies) {
  const auto fails = [](const GgufWriter& gguf) {
    return absl::IsInvalidArgument(With<std::string>(gguf, GgufVocabularyJson).status());
  };
  EXPECT_TRUE(fails(GgufWriter().Texts("tokenizer.ggml.tokens", {"a", "\xff"})));
  EXPECT_TRUE(fails(GgufWriter().U32("tokenizer.ggml.tokens", 5)));
  EXPECT_TRUE(fails(Vocabulary().U32("tokenizer.ggml.eos_token_id", 5)));
  EXPECT_TRUE(fails(Vocabulary().Numbers<float>("tokenizer.ggml.scores", GgufWriter::kF32, {1})));
  EXPECT_TRUE(fails(Vocabulary().Text("tokenizer.ggml.pre", "\xc0\x80")));
}

}  // namespace
}  // namespace tessera::blockzoo
