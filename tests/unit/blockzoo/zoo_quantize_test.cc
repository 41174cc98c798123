// Chains in another element type: what is converted, what stays shared, and what is said of it.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "blockzoo/chain.h"
#include "blockzoo/quantizer.h"
#include "blockzoo/zoo.h"
#include "blockzoo/zoo_report.h"
#include "tests/support/tiny_checkpoint.h"

namespace tessera::blockzoo {
namespace {

using kernels::DType;
using testing::TempDirectory;
using testing::TinyCheckpoint;
using testing::WriteFile;

class ZooQuantizeTest : public ::testing::Test {
 protected:
  ZooQuantizeTest() {
    StatusOr<std::unique_ptr<Zoo>> zoo =
        Zoo::Open({.directory = directory_.path("zoo"), .mode = ZooMode::kCreate});
    EXPECT_TRUE(zoo.ok()) << zoo.status();
    zoo_ = *std::move(zoo);
  }
  void Import(const std::string& name, const TinyCheckpoint& tiny) {
    WriteFile(directory_.path("a.gguf"), TinyGguf(tiny).Build());
    const auto report = zoo_->Import({.path = directory_.path("a.gguf"), .name = name});
    ASSERT_TRUE(report.ok()) << report.status();
  }
  QuantizeReport Quantize(const QuantizeOptions& options) {
    const StatusOr<QuantizeReport> report = zoo_->Quantize(options);
    EXPECT_TRUE(report.ok()) << report.status();
    return report.value_or(QuantizeReport());
  }
  DType TypeOf(const ChainManifest& chain, size_t block, const char* role) {
    const StatusOr<BlockManifest> manifest = zoo_->Block(chain.blocks[block]);
    EXPECT_TRUE(manifest.ok()) << manifest.status();
    return manifest->Find(role)->dtype;
  }
  void ExpectSound() {
    const StatusOr<VerifyReport> report = zoo_->Verify(nullptr);
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_TRUE(report->problems.empty()) << Render(*report);
  }

  const TempDirectory directory_;
  std::unique_ptr<Zoo> zoo_;
};

TEST_F(ZooQuantizeTest, MatricesOfLayersAreConvertedAndTheLossIsSaid) {
  Import("a", {.layers = 2});
  const QuantizeReport report = Quantize({.source = "a", .name = "q", .to = DType::kI8Channel});
  EXPECT_EQ(report.tensors, 2u * 7 + 2);
  EXPECT_GT(report.mean_error, 0.0005);
  EXPECT_LE(report.mean_error, report.worst_error);
  EXPECT_LT(report.worst_error, 0.01);
  EXPECT_LT(report.bytes, report.source_bytes / 3);
  for (const char* role : {"q", "k", "v", "o"}) {
    EXPECT_EQ(TypeOf(report.chain, 1, role), DType::kI8Channel);
  }
  EXPECT_EQ(TypeOf(report.chain, 1, "norm"), DType::kF32);
  EXPECT_EQ(TypeOf(report.chain, 0, "table"), DType::kBF16);
  EXPECT_EQ(TypeOf(report.chain, 5, "head"), DType::kBF16);
  const ChainManifest source = *zoo_->Chain("a");
  EXPECT_EQ(report.chain.assets, source.assets);
  EXPECT_EQ(report.chain.rotary, source.rotary);
  EXPECT_EQ(report.chain.end_token_ids, source.end_token_ids);
  EXPECT_EQ(report.chain.provenance.at("quantized_to"), "I8_CHANNEL");
  EXPECT_EQ(report.chain.provenance.at("quantized_from"),
            absl::StrCat("a@", RevisionOf(source).Short()));
  const std::string shown = Render(*zoo_->Show("q"));
  EXPECT_NE(shown.find("relative L2 error of 16 tensors: mean 0.00"), std::string::npos) << shown;
  EXPECT_NE(Render(report).find(report.worst_tensor), std::string::npos);
  ExpectSound();
}

TEST_F(ZooQuantizeTest, ASecondRunWritesNothing) {
  Import("a", {.layers = 2});
  const QuantizeReport first = Quantize({.source = "a", .name = "q"});
  EXPECT_GT(first.new_bytes, 0u);
  EXPECT_EQ(Quantize({.source = "a", .name = "q"}).new_bytes, 0u);
  const QuantizeReport other = Quantize({.source = "a", .name = "other"});
  EXPECT_EQ(other.new_bytes, 0u);
  EXPECT_EQ(RevisionOf(other.chain), RevisionOf(first.chain));
  EXPECT_TRUE(absl::IsAlreadyExists(
      zoo_->Quantize({.source = "a", .name = "q", .to = DType::kBF16}).status()));
  EXPECT_TRUE(absl::IsAlreadyExists(zoo_->Quantize({.source = "a", .name = "a"}).status()));
}

TEST_F(ZooQuantizeTest, WhatChainsShareTheyGoOnSharing) {
  Import("a", {});
  Import("b", {.upper_seed = 2, .upper_from = 2});
  const ChainManifest a = Quantize({.source = "a", .name = "qa"}).chain;
  const QuantizeReport b = Quantize({.source = "b", .name = "qb"});
  for (size_t block = 0; block < a.blocks.size(); ++block) {
    EXPECT_EQ(a.blocks[block] == b.chain.blocks[block], block != 5 && block != 6) << block;
  }
  EXPECT_LT(b.new_bytes, b.bytes / 2);
}

TEST_F(ZooQuantizeTest, TheHeadIsTreatedAsAsked) {
  Import("a", {.layers = 1, .skipped = {"output.weight"}});  // tied
  const ChainManifest source = *zoo_->Chain("a");
  const ChainManifest kept =
      Quantize({.source = "a", .name = "kept", .head = QuantizedHead::kKeep}).chain;
  EXPECT_EQ(kept.blocks[0], source.blocks[0]);
  EXPECT_EQ(kept.blocks[3], source.blocks[3]);
  const ChainManifest small =
      Quantize({.source = "a", .name = "small", .head = QuantizedHead::kQuantized}).chain;
  EXPECT_EQ(TypeOf(small, 0, "table"), DType::kBF16);
  EXPECT_EQ(TypeOf(small, 3, "head"), DType::kF8Channel);
  const ChainManifest plain = Quantize({.source = "a", .name = "plain"}).chain;
  EXPECT_EQ(zoo_->Block(plain.blocks[0])->Find("table")->tensor,
            zoo_->Block(plain.blocks[3])->Find("head")->tensor);
}

TEST_F(ZooQuantizeTest, EverySourceTypeIsReadAndTheResultBinds) {
  const std::shared_ptr<const kernels::Backend> backend =
      kernels::MakeCpuBackend(kernels::CpuIsa::kAuto).value();
  int made = 0;
  for (const uint32_t type :
       {0u, 2u, 3u, 8u, 30u, 6u, 7u, 10u, 11u, 12u, 13u, 14u, 20u, 23u, 39u}) {
    Import(absl::StrCat("t", type), {.layers = 1,
                                     .width = 256,
                                     .hidden = 256,
                                     .q_heads = 4,
                                     .head_dim = 64,
                                     .matrix_type = type});
    for (const DType to : {DType::kBF16, DType::kF8Block128, DType::kI4G64Zero}) {
      const QuantizeReport report = Quantize(
          {.source = absl::StrCat("t", type), .name = absl::StrCat("q", ++made), .to = to});
      ChainBinder binder(backend, {});
      const auto chain = binder.Bind(report.chain, *zoo_);
      EXPECT_TRUE(chain.ok()) << chain.status();
    }
  }
  // Of one that was quantized, and of one that is made at load.
  const SynthOptions synth{.like = "tiny", .name = "s", .dtype = DType::kF8Channel};
  ASSERT_TRUE(zoo_->Synthesise(synth).ok());
  EXPECT_LT(Quantize({.source = "s", .name = "sb", .to = DType::kBF16}).worst_error, 0.003);
  ExpectSound();
}

// Rows of 256 take the type itself, the others its neighbour with blocks of 32, and that is said.
TEST_F(ZooQuantizeTest, NarrowRowsTakeBlocksOf32) {
  Import("a", {.layers = 1, .width = 64, .hidden = 256});
  const QuantizeReport report =
      Quantize({.source = "a", .name = "q", .to = DType::kQ4_K, .head = QuantizedHead::kQuantized});
  EXPECT_EQ(TypeOf(report.chain, 2, "down"), DType::kQ4_K);
  EXPECT_EQ(TypeOf(report.chain, 2, "up"), DType::kQ5_0);
  EXPECT_EQ(TypeOf(report.chain, 1, "q"), DType::kQ5_0);
  EXPECT_EQ(TypeOf(report.chain, 3, "head"), DType::kQ5_0);
  EXPECT_EQ(report.fallback_tensors, 7u);
  EXPECT_EQ(report.fallback_type, "Q5_0");
  EXPECT_NE(Render(report).find("7 tensors in Q5_0"), std::string::npos) << Render(report);
  EXPECT_EQ(report.chain.provenance.at("quantized_fallback"), "7 tensors in Q5_0");
  const std::shared_ptr<const kernels::Backend> backend =
      kernels::MakeCpuBackend(kernels::CpuIsa::kAuto).value();
  ChainBinder binder(backend, {});
  const auto chain = binder.Bind(report.chain, *zoo_);
  EXPECT_TRUE(chain.ok()) << chain.status();
}

// As "Q4_K_M" files are: types differ from tensor to tensor of a block.
TEST_F(ZooQuantizeTest, FilesWithMixedTypesAreReadAndBind) {
  TinyCheckpoint tiny{.layers = 1,
                      .width = 256,
                      .hidden = 256,
                      .q_heads = 4,
                      .head_dim = 64,
                      .matrix_type = 12,
                      .skipped = {"blk.0.attn_v.weight", "blk.0.ffn_down.weight"}};
  const uint64_t kv = tiny.kv_heads * tiny.head_dim;
  const std::string file =
      TinyGguf(tiny)
          .Tensor("blk.0.attn_v.weight", 14, {kv, 256}, testing::TinyBytes(kv * 210, 14, 1))
          .Tensor("blk.0.ffn_down.weight", 14, {256, 256}, testing::TinyBytes(256 * 210, 14, 2))
          .Build();
  WriteFile(directory_.path("m.gguf"), file);
  const auto report = zoo_->Import({.path = directory_.path("m.gguf"), .name = "m"});
  ASSERT_TRUE(report.ok()) << report.status();
  const ChainManifest chain = *zoo_->Chain("m");
  EXPECT_EQ(TypeOf(chain, 1, "q"), DType::kQ4_K);
  EXPECT_EQ(TypeOf(chain, 1, "v"), DType::kQ6_K);
  const std::shared_ptr<const kernels::Backend> backend =
      kernels::MakeCpuBackend(kernels::CpuIsa::kAuto).value();
  ChainBinder binder(backend, {});
  EXPECT_TRUE(binder.Bind(chain, *zoo_).ok());
}

TEST_F(ZooQuantizeTest, RefusesWhatDoesNotFitByName) {
  Import("a", {});
  const Status columns = zoo_->Quantize({.source = "a", .name = "q", .to = DType::kI4G64}).status();
  EXPECT_TRUE(absl::IsInvalidArgument(columns)) << columns;
  EXPECT_NE(columns.message().find("block 2 (ffn) down"), absl::string_view::npos) << columns;
  EXPECT_TRUE(absl::IsInvalidArgument(
      zoo_->Quantize({.source = "a", .name = "q", .to = DType::kF16}).status()));
  EXPECT_TRUE(absl::IsNotFound(zoo_->Quantize({.source = "x", .name = "q"}).status()));
  EXPECT_TRUE(absl::IsNotFound(zoo_->Chain("q").status()));
  std::vector<float> values(64, 1.0f);
  values[9] = INFINITY;
  const TensorRef ref{.role = "q", .dtype = DType::kF32, .shape = {1, 64}};
  EXPECT_TRUE(absl::IsInvalidArgument(
      QuantizeTensor(ref, std::as_bytes(std::span(values)), DType::kF8Channel).status()));
  ExpectSound();
}

}  // namespace
}  // namespace tessera::blockzoo
