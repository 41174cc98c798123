#include <gtest/gtest.h>

#include "blockzoo/import/architecture.h"
#include "blockzoo/import/format.h"
#include "tests/support/cut_checkpoint.h"
#include "tests/support/test_data.h"
#include "tests/support/tiny_checkpoint.h"

namespace tessera::blockzoo {
namespace {

using testing::CutGguf;
using testing::CutPath;
using testing::ExpectRefused;
using testing::GgufWriter;
using testing::TempDirectory;
using testing::TinyCheckpoint;
using testing::TinyGguf;
using testing::WriteFile;
using testing::WriteTinyHuggingFace;

StatusOr<ChainPlan> CutHuggingFace(const TinyCheckpoint& tiny, const std::string& config) {
  const TempDirectory directory;
  WriteTinyHuggingFace(tiny, directory.path("m"), config);
  return CutPath(directory.path("m"));
}

const CheckpointTensor* Part(const BlockPlan& block, const std::string& role) {
  for (const BlockPlan::Part& part : block.tensors) {
    if (part.role == role) return &part.tensor;
  }
  return nullptr;
}

TEST(LlamaTest, CutsGguf) {
  const auto plan = CutGguf(TinyGguf({}));
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_EQ(plan->blocks.size(), 8u);
  EXPECT_EQ(plan->chain.width, 64u);
  EXPECT_EQ(plan->chain.vocab, 40u);
  EXPECT_EQ(plan->chain.max_context, 256u);
  ASSERT_EQ(plan->chain.rotary.size(), 1u);
  EXPECT_EQ(plan->chain.rotary[0].dim, 16u);
  EXPECT_EQ(plan->chain.rotary[0].base, 10000.0);
  const char* types[] = {"embedding", "attention", "ffn", "attention",
                         "ffn",       "attention", "ffn", "lm_head"};
  for (size_t i = 0; i < 8; ++i) EXPECT_EQ(plan->blocks[i].type, types[i]);
  const BlockPlan& attention = plan->blocks[3];
  EXPECT_EQ(*attention.attributes.Text("rope_style"), "interleaved");
  EXPECT_EQ(*attention.attributes.Integer("kv_heads", 1, 9), 2);
  EXPECT_EQ(*attention.attributes.Integer("rotary", 0, 0), 0);
  EXPECT_EQ(Part(attention, "k")->name, "blk.1.attn_k.weight");
  EXPECT_EQ(Part(attention, "k")->shape, (Shape{32, 64}));
  EXPECT_EQ(Part(attention, "k_bias"), nullptr);
  EXPECT_EQ(Part(plan->blocks[2], "down")->shape, (Shape{64, 96}));
  EXPECT_EQ(Part(plan->blocks[7], "head")->name, "output.weight");
}

TEST(LlamaTest, TiesTheHeadWhereItIsMissing) {
  const auto gguf = CutGguf(TinyGguf({.skipped = {"output.weight"}}));
  ASSERT_TRUE(gguf.ok()) << gguf.status();
  EXPECT_EQ(Part(gguf->blocks.back(), "head")->name, "token_embd.weight");
  const auto missing = CutHuggingFace({.skipped = {"lm_head.weight"}}, "");
  ASSERT_TRUE(missing.ok()) << missing.status();
  EXPECT_EQ(Part(missing->blocks.back(), "head")->name, "model.embed_tokens.weight");
  const auto tied = CutHuggingFace({}, ",\"tie_word_embeddings\":true");
  ASSERT_TRUE(tied.ok()) << tied.status();
  EXPECT_EQ(Part(tied->blocks.back(), "head")->name, "model.embed_tokens.weight");
}

TEST(LlamaTest, CutsHuggingFace) {
  const auto plan = CutHuggingFace(
      {.extra = {"model.layers.0.self_attn.q_proj.bias",
                 "model.layers.0.self_attn.rotary_emb.inv_freq"}},
      ",\"rope_theta\":500000.0,\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,"
      "\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
      "\"original_max_position_embeddings\":64},\"sliding_window\":null");
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(*plan->blocks[1].attributes.Text("rope_style"), "half");
  EXPECT_EQ(Part(plan->blocks[1], "q_bias")->shape, Shape{64});
  const RotarySettings& rotary = plan->chain.rotary[0];
  EXPECT_EQ(rotary.base, 500000.0);
  EXPECT_EQ(rotary.scaling, "llama3");
  EXPECT_EQ(rotary.factor, 8.0);
  EXPECT_EQ(rotary.original_context, 64u);
}

TEST(LlamaTest, ReadsRotaryScalingOfBothFormats) {
  GgufWriter gguf = TinyGguf({});
  gguf.Text("llama.rope.scaling.type", "linear").F32("llama.rope.scaling.factor", 4);
  const auto linear = CutGguf(gguf);
  ASSERT_TRUE(linear.ok()) << linear.status();
  EXPECT_EQ(linear->chain.rotary[0].scaling, "linear");
  EXPECT_EQ(linear->chain.rotary[0].factor, 4.0);

  std::string factors;
  for (int i = 0; i < 8; ++i) factors += GgufWriter::Scalar(1.0f + i);
  const auto table = CutGguf(TinyGguf({}).Tensor("rope_freqs.weight", 0, {8}, factors));
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->chain.rotary[0].frequency_factors[7], 8.0);

  const auto newer = CutHuggingFace(
      {}, ",\"rope_parameters\":{\"rope_theta\":7e4,\"rope_type\":\"linear\",\"factor\":2}");
  ASSERT_TRUE(newer.ok()) << newer.status();
  EXPECT_EQ(newer->chain.rotary[0].base, 7e4);
  EXPECT_EQ(newer->chain.rotary[0].factor, 2.0);
}

TEST(LlamaTest, RefusesByNameWhatItLacks) {
  using absl::StatusCode;
  const struct {
    const char* config;
    const char* name;
  } cases[] = {
      {",\"sliding_window\":64", "sliding_window"},
      {",\"rope_scaling\":{\"type\":\"mrope\",\"factor\":4.0}", "mrope"},
      {",\"num_local_experts\":8", "experts"},
      {",\"attn_logit_softcapping\":50.0", "attention scores"},
      {",\"quantization_config\":{\"quant_method\":\"bitsandbytes\"}", "bitsandbytes"},
  };
  for (const auto& [config, name] : cases) {
    ExpectRefused(CutHuggingFace({}, config).status(), StatusCode::kUnimplemented, name);
  }
  ExpectRefused(CutGguf(TinyGguf({}).Text("llama.rope.scaling.type", "spiral")).status(),
                StatusCode::kUnimplemented, "spiral");
  ExpectRefused(CutGguf(TinyGguf({}).U32("llama.attention.sliding_window", 128)).status(),
                StatusCode::kUnimplemented, "sliding");
  ExpectRefused(CutGguf(GgufWriter().Text("general.architecture", "mamba")).status(),
                StatusCode::kUnimplemented, "mamba");
}

TEST(LlamaTest, AcceptsWhatIsThereButNotInUse) {
  EXPECT_TRUE(CutHuggingFace({}, ",\"sliding_window\":256").ok());
  EXPECT_TRUE(CutHuggingFace({}, ",\"sliding_window\":8,\"use_sliding_window\":false").ok());
  EXPECT_TRUE(CutHuggingFace({}, ",\"rope_scaling\":null").ok());
  EXPECT_TRUE(CutGguf(TinyGguf({}).U32("llama.expert_count", 0)).ok());
}

TEST(LlamaTest, NamesTensorsThatAreMissingMisshapenOrLeft) {
  using absl::StatusCode;
  ExpectRefused(CutGguf(TinyGguf({.skipped = {"blk.2.ffn_up.weight"}})).status(),
                StatusCode::kNotFound, "blk.2.ffn_up.weight");
  ExpectRefused(CutGguf(TinyGguf({.extra = {"blk.9.strange"}})).status(),
                StatusCode::kInvalidArgument, "blk.9.strange");
  GgufWriter misshapen = TinyGguf({.skipped = {"blk.1.attn_v.weight"}});
  misshapen.Tensor("blk.1.attn_v.weight", 0, {64, 32}, std::string(64 * 32 * 4, 0));
  const Status status = CutGguf(misshapen).status();
  ExpectRefused(status, StatusCode::kInvalidArgument, "blk.1.attn_v.weight");
  ExpectRefused(status, StatusCode::kInvalidArgument, "[32, 64]");
}

TEST(LlamaTest, ChecksSettings) {
  EXPECT_FALSE(CutGguf(TinyGguf({.layers = 0})).ok());
  EXPECT_FALSE(CutGguf(TinyGguf({.q_heads = 3, .kv_heads = 2})).ok());
  EXPECT_FALSE(CutHuggingFace({}, ",\"hidden_size\":65").ok());
  EXPECT_FALSE(CutHuggingFace({}, ",\"num_hidden_layers\":\"3\"").ok());
  EXPECT_FALSE(CutHuggingFace({}, ",\"head_dim\":17").ok());
}

TEST(LlamaTest, CutsStories260K) {
  const auto path = testing::TestDataPath("models/stories260K/stories260K.gguf");
  if (!path.has_value()) GTEST_SKIP() << "shared data is missing (set TESSERA_TEST_DATA)";
  const auto plan = CutPath(*path);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->blocks.size(), 12u);
  EXPECT_EQ(plan->chain.vocab, 512u);
  EXPECT_EQ(plan->chain.rotary[0].dim, 8u);
}

}  // namespace
}  // namespace tessera::blockzoo
