#include "blockzoo/manifest.h"

#include <gtest/gtest.h>

#include "blockzoo/manifest_text.h"

namespace tessera::blockzoo {
namespace {

using kernels::DType;

BlockManifest SomeBlock() {
  BlockManifest block{"ffn", {}, {}};
  block.attributes.Set("width", int64_t{64});
  block.attributes.Set("norm_epsilon", 1e-5);
  block.attributes.Set("whole", 10000.0);
  block.attributes.Set("activation", std::string("si\"lu\n"));
  block.attributes.Set("list", std::vector<double>{0.1, 2});
  Digest digest;
  digest.bytes[0] = 7;
  block.tensors = {{"down", digest, DType::kQ8_0, {64, 96}}, {"up", digest, DType::kF32, {96, 64}}};
  return block;
}

ChainManifest SomeChain() {
  ChainManifest chain;
  chain.name = "a:b";
  chain.architecture = "llama";
  chain.blocks.resize(3);
  chain.blocks[1].bytes[3] = 9;
  RotarySettings rotary{.dim = 4, .base = 1e6, .scaling = "llama3", .factor = 8};
  rotary.frequency_factors = {1, 0.3333333333333333};
  chain.rotary = {rotary};
  chain.width = 64;
  chain.vocab = 100;
  chain.max_context = 256;
  chain.end_token_ids = {2, 5};
  chain.assets["chat_template"] = Digest{};
  chain.provenance["source"] = "x.gguf";
  return chain;
}

TEST(ManifestTest, BlockReadsBackAsWritten) {
  const BlockManifest block = SomeBlock();
  const StatusOr<BlockManifest> parsed = ParseBlockManifest(CanonicalText(block));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(*parsed, block);
  EXPECT_EQ(CanonicalText(*parsed), CanonicalText(block));
  EXPECT_EQ(IdentityOf(*parsed), IdentityOf(block));
}

TEST(ManifestTest, EveryRotarySettingReadsBack) {
  ChainManifest chain = SomeChain();
  const std::string usual = CanonicalText(chain);
  EXPECT_EQ(usual.find("beta_fast"), std::string::npos) << "defaults are not written";
  RotarySettings& rotary = chain.rotary[0];
  rotary.attention_factor = 1.25;
  rotary.beta_fast = 16;
  rotary.beta_slow = 2;
  rotary.mscale = 0.5;
  rotary.mscale_all_dim = 0.75;
  rotary.truncate = false;
  rotary.short_factor = {1, 2};
  rotary.long_factor = {3, 4.5};
  rotary.length = 9000;
  const StatusOr<ChainManifest> parsed = ParseChainManifest(CanonicalText(chain));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->rotary, chain.rotary);
  EXPECT_NE(RevisionOf(*parsed), RevisionOf(SomeChain()));
  chain.rotary[0].long_factor = {1};
  const Status odd = ParseChainManifest(CanonicalText(chain)).status();
  EXPECT_EQ(odd.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(odd.message().find("long_factor"), absl::string_view::npos) << odd;
}

TEST(ManifestTest, CanonicalTextIgnoresTheOrderOfTensors) {
  BlockManifest block = SomeBlock();
  const Digest identity = IdentityOf(block);
  std::swap(block.tensors[0], block.tensors[1]);
  EXPECT_EQ(IdentityOf(block), identity);
  block.attributes.Set("width", int64_t{65});
  EXPECT_NE(IdentityOf(block), identity);
}

TEST(ManifestTest, NumbersReadBackExactly) {
  for (const double value : {0.1, 1e-5, 10000.0, 1e22, -0.0, 5e-324, 1.7976931348623157e308}) {
    Attributes attributes;
    attributes.Set("x", value);
    BlockManifest block{"t", attributes, {}};
    const auto parsed = ParseBlockManifest(CanonicalText(block));
    ASSERT_TRUE(parsed.ok()) << JsonNumber(value);
    EXPECT_EQ(parsed->attributes, attributes) << JsonNumber(value);
  }
}

TEST(ManifestTest, ChainReadsBackAsWritten) {
  const ChainManifest chain = SomeChain();
  const StatusOr<ChainManifest> parsed = ParseChainManifest(CanonicalText(chain));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(*parsed, chain);
}

TEST(ManifestTest, RevisionIsWhatIsServed) {
  ChainManifest chain = SomeChain();
  const Digest revision = RevisionOf(chain);
  chain.name = "other";
  chain.provenance["source"] = "y.gguf";
  EXPECT_EQ(RevisionOf(chain), revision);
  chain.end_token_ids.push_back(6);
  EXPECT_NE(RevisionOf(chain), revision);
}

TEST(ManifestTest, EveryCutOfATextIsRefused) {
  for (const std::string& text : {CanonicalText(SomeBlock()), CanonicalText(SomeChain())}) {
    for (size_t size = 0; size < text.size(); ++size) {
      EXPECT_FALSE(ParseBlockManifest(text.substr(0, size)).ok());
      EXPECT_FALSE(ParseChainManifest(text.substr(0, size)).ok());
    }
  }
}

TEST(ManifestTest, RefusesWrongFields) {
  const std::string block = CanonicalText(SomeBlock());
  const auto replaced = [&](const std::string& from, const std::string& to) {
    std::string text = block;
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return text.replace(at, from.size(), to);
  };
  for (const std::string& text :
       {replaced("\"Q8_0\"", "\"Q4_K\""), replaced("[64,96]", "[64,95]"), replaced("[64,96]", "[]"),
        replaced("[64,96]", "[0,96]"), replaced("[64,96]", "[4294967296,2147483648,32]"),
        replaced("[64,96]", "[-1,96]"), replaced("\"down\"", "\"up\""),
        replaced("\"role\":\"down\"", "\"role\":5"), replaced("\"type\"", "\"kind\""),
        replaced("64", "null")}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseBlockManifest(text).status())) << text;
  }
}

TEST(ManifestTest, TensorBytesIsOverflowSafe) {
  EXPECT_EQ(*TensorBytes(DType::kF32, {3}), 12u);
  EXPECT_EQ(*TensorBytes(DType::kQ4_1, {2, 64}), 80u);
  const uint64_t most = (uint64_t{1} << 31) - 1;
  EXPECT_FALSE(TensorBytes(DType::kF32, {most, most, most}).ok());
  EXPECT_FALSE(TensorBytes(DType::kF32, {most, most, 2, 2}).ok());
  EXPECT_FALSE(TensorBytes(DType::kF32, {1, 1, 1, 1, 1}).ok());
  EXPECT_FALSE(TensorBytes(DType::kQ8_0, {33}).ok());
  EXPECT_FALSE(TensorBytes(DType::kF8Channel, {most + 1, 1}).ok());
}

TEST(ManifestTest, WeightsWithPlanesAreMatrices) {
  EXPECT_EQ(*TensorBytes(DType::kF8Channel, {2, 8}), 24u);
  EXPECT_EQ(*TensorBytes(DType::kI4G64, {2, 64}), 68u);
  EXPECT_FALSE(TensorBytes(DType::kF8Channel, {8}).ok());
  EXPECT_FALSE(TensorBytes(DType::kI4G64, {2, 2, 64}).ok());
  const Status columns = TensorBytes(DType::kI4G128, {2, 192}).status();
  EXPECT_NE(columns.message().find("I4_G128 blocks of 128"), absl::string_view::npos) << columns;
}

TEST(ManifestTest, TypesOfKeysAndValuesAreNoWeights) {
  BlockManifest block{"t", {}, {{"a", Digest(), DType::kF8Channel, {2, 8}}}};
  EXPECT_TRUE(ParseBlockManifest(CanonicalText(block)).ok());
  block.tensors[0].dtype = DType::kF8E4M3;
  const Status status = ParseBlockManifest(CanonicalText(block)).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_NE(status.message().find("keys and values only"), absl::string_view::npos) << status;
}

}  // namespace
}  // namespace tessera::blockzoo
