// Small random chains with whatever the families differ in: norms, biases, windows, caps, sinks,
// parallel residuals, learned positions. F32 weights.
#pragma once

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/tiny_chain.h"

namespace tessera::testing {

struct ChainVariant {
  std::string name;
  std::string norm;  // the attribute; empty: left out
  bool norm_bias = false;
  bool post_norm = false;
  bool biases = false;  // of every product
  bool parallel = false;
  bool own_ffn_norm = false;  // of a parallel block
  bool gated = true;
  std::string activation = "silu";
  std::string qk_norm;  // the attribute; empty: none
  int64_t window = 0;
  bool all_windows = false;  // else every second layer has one
  double softcap = 0;
  double scale = 0;  // of scores; 0: the usual one
  bool sinks = false;
  double residual_scale = 1;
  bool rotates = true;
  int64_t rotary_dim = 0;  // 0: the whole head
  std::string rope_style = "half";
  blockzoo::RotarySettings rotary;
  bool positions = false;
  bool embedding_norm = false;
  double embedding_scale = 1;
  bool head_bias = false;
  double head_scale = 1;
  double head_softcap = 0;
};

class VariedChains {
 public:
  static constexpr uint64_t kWidth = 48, kQHeads = 4, kKvHeads = 2, kHeadDim = 24, kHidden = 80,
                            kVocab = 61, kContext = 512, kPositionsOffset = 2;

  explicit VariedChains(MemoryWeights& weights) : weights_(weights) {}

  blockzoo::ChainManifest Make(const ChainVariant& variant, uint32_t seed, int layers = 2) {
    engine_.seed(seed);
    blockzoo::ChainManifest chain;
    chain.name = variant.name;
    chain.architecture = "test";
    chain.width = kWidth;
    chain.vocab = kVocab;
    chain.max_context = kContext;
    chain.end_token_ids = {2};
    blockzoo::RotarySettings rotary = variant.rotary;
    rotary.dim = static_cast<uint32_t>(variant.rotary_dim == 0 ? kHeadDim : variant.rotary_dim);
    chain.rotary = {rotary};
    chain.blocks.push_back(Embedding(variant));
    for (int layer = 0; layer < layers; ++layer) {
      blockzoo::BlockManifest attention = Attention(variant, layer);
      blockzoo::BlockManifest ffn{.type = "ffn"};
      blockzoo::BlockManifest& holder = variant.parallel ? attention : ffn;
      AddFfn(variant, holder, variant.parallel ? "ffn_" : "");
      if (variant.parallel) attention.type = "parallel";
      chain.blocks.push_back(weights_.AddBlock(std::move(attention)));
      if (!variant.parallel) chain.blocks.push_back(weights_.AddBlock(std::move(ffn)));
    }
    chain.blocks.push_back(Head(variant));
    return chain;
  }

 private:
  void Add(blockzoo::BlockManifest& block, const std::string& role, blockzoo::Shape shape,
           float spread, float middle = 0) {
    uint64_t count = 1;
    for (const uint64_t dimension : shape) count *= dimension;
    std::normal_distribution<float> normal(middle, spread);
    std::vector<std::byte> bytes(count * 4);
    for (uint64_t i = 0; i < count; ++i) {
      const float value = normal(engine_);
      std::memcpy(&bytes[i * 4], &value, 4);
    }
    block.tensors.push_back(
        weights_.Add(role, kernels::DType::kF32, std::move(shape), std::move(bytes)));
  }
  void AddWeight(const ChainVariant& variant, blockzoo::BlockManifest& block,
                 const std::string& role, uint64_t out, uint64_t in) {
    Add(block, role, {out, in}, 1.2f / std::sqrt(static_cast<float>(in)));
    if (variant.biases) Add(block, role + "_bias", {out}, 0.2f);
  }
  void AddNorm(const ChainVariant& variant, blockzoo::BlockManifest& block,
               const std::string& role) {
    Add(block, role, {kWidth}, 0.1f, 1);
    if (variant.norm_bias) Add(block, role + "_bias", {kWidth}, 0.1f);
  }
  static void SetNorm(const ChainVariant& variant, blockzoo::BlockManifest& block) {
    block.attributes.Set("width", static_cast<int64_t>(kWidth));
    block.attributes.Set("norm_epsilon", 1e-5);
    if (!variant.norm.empty()) block.attributes.Set("norm", variant.norm);
    if (variant.residual_scale != 1) {
      block.attributes.Set("residual_scale", variant.residual_scale);
    }
  }

  Digest Embedding(const ChainVariant& variant) {
    blockzoo::BlockManifest block{.type = "embedding"};
    block.attributes.Set("width", static_cast<int64_t>(kWidth));
    block.attributes.Set("vocab", static_cast<int64_t>(kVocab));
    if (variant.embedding_scale != 1) block.attributes.Set("scale", variant.embedding_scale);
    Add(block, "table", {kVocab, kWidth}, 1);
    if (variant.positions) {
      block.attributes.Set("positions_offset", static_cast<int64_t>(kPositionsOffset));
      Add(block, "positions", {kContext + kPositionsOffset, kWidth}, 0.5f);
    }
    if (variant.embedding_norm) {
      block.attributes.Set("norm_epsilon", 1e-5);
      AddNorm(variant, block, "norm");
    }
    return weights_.AddBlock(std::move(block));
  }

  blockzoo::BlockManifest Attention(const ChainVariant& variant, int layer) {
    blockzoo::BlockManifest block{.type = "attention"};
    SetNorm(variant, block);
    block.attributes.Set("q_heads", static_cast<int64_t>(kQHeads));
    block.attributes.Set("kv_heads", static_cast<int64_t>(kKvHeads));
    block.attributes.Set("head_dim", static_cast<int64_t>(kHeadDim));
    if (variant.rotates) {
      block.attributes.Set("rotary", int64_t{0});
      block.attributes.Set("rope_style", variant.rope_style);
      if (variant.rotary_dim != 0) block.attributes.Set("rotary_dim", variant.rotary_dim);
    }
    if (variant.window != 0 && (variant.all_windows || layer % 2 == 0)) {
      block.attributes.Set("window", variant.window);
    }
    if (variant.softcap != 0) block.attributes.Set("softcap", variant.softcap);
    if (variant.scale != 0) block.attributes.Set("scale", variant.scale);
    if (variant.norm != "none") AddNorm(variant, block, "norm");
    AddWeight(variant, block, "q", kQHeads * kHeadDim, kWidth);
    AddWeight(variant, block, "k", kKvHeads * kHeadDim, kWidth);
    AddWeight(variant, block, "v", kKvHeads * kHeadDim, kWidth);
    AddWeight(variant, block, "o", kWidth, kQHeads * kHeadDim);
    if (variant.sinks) Add(block, "sinks", {kQHeads}, 2);
    if (variant.post_norm) Add(block, "post_norm", {kWidth}, 0.1f, 1);
    if (!variant.qk_norm.empty()) {
      block.attributes.Set("qk_norm", variant.qk_norm);
      AddHeadNorm(variant, block, "q_norm", kQHeads);
      AddHeadNorm(variant, block, "k_norm", kKvHeads);
    }
    return block;
  }

  void AddHeadNorm(const ChainVariant& variant, blockzoo::BlockManifest& block,
                   const std::string& role, uint64_t heads) {
    if (variant.qk_norm == "head") return Add(block, role, {kHeadDim}, 0.2f, 1);
    if (variant.qk_norm == "full") return Add(block, role, {heads * kHeadDim}, 0.2f, 1);
    Add(block, role, {heads, kHeadDim}, 0.2f, 1);
  }

  void AddFfn(const ChainVariant& variant, blockzoo::BlockManifest& block,
              const std::string& prefix) {
    SetNorm(variant, block);
    block.attributes.Set("hidden", static_cast<int64_t>(kHidden));
    block.attributes.Set("activation", variant.activation);
    if (variant.norm != "none" && (!variant.parallel || variant.own_ffn_norm)) {
      AddNorm(variant, block, prefix + "norm");
    }
    if (variant.gated) AddWeight(variant, block, prefix + "gate", kHidden, kWidth);
    AddWeight(variant, block, prefix + "up", kHidden, kWidth);
    AddWeight(variant, block, prefix + "down", kWidth, kHidden);
    if (variant.post_norm) Add(block, prefix + "post_norm", {kWidth}, 0.1f, 1);
  }

  Digest Head(const ChainVariant& variant) {
    blockzoo::BlockManifest block{.type = "lm_head"};
    block.attributes.Set("width", static_cast<int64_t>(kWidth));
    block.attributes.Set("vocab", static_cast<int64_t>(kVocab));
    block.attributes.Set("norm_epsilon", 1e-5);
    if (!variant.norm.empty()) block.attributes.Set("norm", variant.norm);
    if (variant.head_scale != 1) block.attributes.Set("scale", variant.head_scale);
    if (variant.head_softcap != 0) block.attributes.Set("softcap", variant.head_softcap);
    if (variant.norm != "none") AddNorm(variant, block, "norm");
    Add(block, "head", {kVocab, kWidth}, 0.5f);
    if (variant.head_bias) Add(block, "bias", {kVocab}, 1);
    return weights_.AddBlock(std::move(block));
  }

  MemoryWeights& weights_;
  std::mt19937 engine_;
};

}  // namespace tessera::testing
