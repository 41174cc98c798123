// What blocks compute, through the engine, against float64; and what they refuse.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/engine_fixture.h"
#include "tests/support/reference_chain.h"
#include "tests/support/varied_chain.h"

namespace tessera::testing {
namespace {

// Families of RMS norms.
std::vector<ChainVariant> RmsVariants() {
  return {
      {.name = "plain"},
      {.name = "windows", .window = 20},
      {.name = "gemma 2",
       .post_norm = true,
       .activation = "gelu_tanh",
       .window = 37,
       .softcap = 5,
       .scale = 0.3,
       .embedding_scale = 6.92820323,
       .head_softcap = 3},
      {.name = "gemma 3",
       .post_norm = true,
       .activation = "gelu_tanh",
       .qk_norm = "head",
       .window = 64,
       .all_windows = true},
      {.name = "olmo 2", .norm = "none", .post_norm = true, .qk_norm = "full"},
      {.name = "granite", .residual_scale = 0.22, .embedding_scale = 12, .head_scale = 0.125},
  };
}

std::vector<ChainVariant> Variants() {
  const blockzoo::RotarySettings yarn{.scaling = "yarn", .factor = 4, .original_context = 64};
  std::vector<ChainVariant> variants = RmsVariants();
  const ChainVariant others[] = {
      {.name = "gpt 2",
       .norm = "layer",
       .norm_bias = true,
       .biases = true,
       .gated = false,
       .activation = "gelu_tanh",
       .rotates = false,
       .positions = true},
      {.name = "neox",
       .norm = "layer",
       .norm_bias = true,
       .biases = true,
       .parallel = true,
       .own_ffn_norm = true,
       .gated = false,
       .activation = "gelu",
       .rotary_dim = 8},
      {.name = "cohere",
       .norm = "layer",
       .parallel = true,
       .qk_norm = "head_layer",
       .rope_style = "interleaved",
       .head_scale = 0.0625},
      {.name = "stablelm",
       .norm = "layer",
       .norm_bias = true,
       .qk_norm = "head_layer",
       .rotary_dim = 6},
      {.name = "sinks", .biases = true, .window = 33, .sinks = true, .rotary = yarn},
      {.name = "everything",
       .norm = "layer",
       .norm_bias = true,
       .post_norm = true,
       .biases = true,
       .parallel = true,
       .own_ffn_norm = true,
       .activation = "relu2",
       .qk_norm = "head",
       .window = 50,
       .softcap = 4,
       .sinks = true,
       .residual_scale = 0.5,
       .positions = true,
       .embedding_norm = true,
       .head_bias = true,
       .head_softcap = 8},
      {.name = "relu", .gated = false, .activation = "relu", .rotates = false},
  };
  variants.insert(variants.end(), std::begin(others), std::end(others));
  return variants;
}

class BlocksTest : public EngineFixture {
 protected:
  void SetUp() override {
    EngineFixture::SetUp();
    if (!backend_->memory().host_addressable()) GTEST_SKIP() << "a device computes in bfloat16";
  }

  VariedChains varied_{weights_};
};

TEST_F(BlocksTest, EveryVariantMatchesFloat64) {
  const std::vector<TokenId> prompt = Prompt(5, 150, VariedChains::kVocab);
  for (const ChainVariant& variant : Variants()) {
    SCOPED_TRACE(variant.name);
    const blockzoo::ChainManifest manifest = varied_.Make(variant, 11);
    Start({.max_batch_tokens = 49});
    const ChainId chain = Add(variant.name, manifest);
    ASSERT_TRUE(chain.valid());
    scheduler::GenerationRequest request = Ask(chain, prompt, 1);
    request.output.prompt_logprobs = 0;
    const Answer answer = Run(std::move(request));
    ASSERT_TRUE(answer.error.ok()) << answer.error;
    ASSERT_EQ(answer.prompt_events.size(), prompt.size() - 1);
    const ReferenceChain::Rows logits = ReferenceChain(weights_, manifest).Logits(prompt);
    double worst = 0;
    for (size_t t = 0; t + 1 < prompt.size(); ++t) {
      double total = 0, largest = 0;
      for (const double logit : logits[t]) {
        total += std::exp(logit);
        largest = std::max(largest, std::abs(logit));
      }
      const double want = logits[t][prompt[t + 1]] - std::log(total);
      worst = std::max(worst, std::abs(answer.prompt_events[t].logprob - want) / largest);
    }
    EXPECT_LE(worst, 2e-5);
  }
}

// A sequence's tokens depend neither on its batch mates, nor on chunks, nor on prefix hits: two
// chains of equal shape, whose blocks are members of one launch.
TEST_F(BlocksTest, AnswersDoNotDependOnTheBatch) {
  for (const ChainVariant& variant : Variants()) {
    SCOPED_TRACE(variant.name);
    const blockzoo::ChainManifest a = varied_.Make(variant, 11);
    const blockzoo::ChainManifest b = varied_.Make(variant, 12);
    std::vector<std::vector<TokenId>> alone;
    Start({.prefix_reuse = false, .max_batch_tokens = 512});
    ChainId chains[] = {Add("a", a), Add("b", b)};
    const auto ask = [&](uint32_t i) {
      return Ask(chains[i % 2], Prompt(i / 2, 5 + 33 * i, VariedChains::kVocab), 24);
    };
    for (uint32_t i = 0; i < 6; ++i) alone.push_back(Run(ask(i)).tokens[0]);
    Start({.max_batch_tokens = 31});
    chains[0] = Add("a", a);
    chains[1] = Add("b", b);
    for (int round = 0; round < 2; ++round) {
      std::vector<std::unique_ptr<Reader>> readers;
      for (uint32_t i = 0; i < 6; ++i) readers.push_back(Submit(ask(i)));
      for (uint32_t i = 0; i < 6; ++i) {
        const Answer answer = readers[i]->Wait();
        ASSERT_TRUE(answer.error.ok()) << answer.error;
        EXPECT_EQ(answer.tokens[0], alone[i]) << "request " << i << " round " << round;
      }
    }
  }
}

class RefusalTest : public BlocksTest {
 protected:
  // The error of binding a chain of `variant` whose block `index` was changed.
  template <typename Change>
  Status Refused(const ChainVariant& variant, size_t index, Change change) {
    blockzoo::ChainManifest chain = varied_.Make(variant, 1);
    blockzoo::BlockManifest block = weights_.Block(chain.blocks[index]).value();
    change(block);
    chain.blocks[index] = weights_.AddBlock(std::move(block));
    return binder_->Bind(chain, weights_).status();
  }
  static void Drop(blockzoo::BlockManifest& block, const std::string& role) {
    std::erase_if(block.tensors, [&](const auto& tensor) { return tensor.role == role; });
  }
  static void Rename(blockzoo::BlockManifest& block, const std::string& role,
                     const std::string& to) {
    for (blockzoo::TensorRef& tensor : block.tensors) {
      if (tensor.role == role) tensor.role = to;
    }
  }
};

TEST_F(RefusalTest, WhatABlockDoesNotKnowIsNamed) {
  using Block = blockzoo::BlockManifest;
  struct Case {
    size_t block;
    void (*change)(Block&);
    const char* named;
  };
  const Case cases[] = {
      {1, [](Block& b) { b.attributes.Set("alibi", int64_t{1}); }, "alibi"},
      {1, [](Block& b) { Rename(b, "q_norm", "q_sub_norm"); }, "q_norm"},
      {1, [](Block& b) { b.attributes.Set("qk_norm", std::string("l2")); }, "l2"},
      {1, [](Block& b) { b.attributes.Set("norm", std::string("batch")); }, "batch"},
      {1, [](Block& b) { b.attributes.Set("window", int64_t{0}); }, "window"},
      {1, [](Block& b) { b.attributes.Set("softcap", 0.0); }, "softcap"},
      {1, [](Block& b) { b.attributes.Set("rope_style", std::string("spiral")); }, "spiral"},
      {1, [](Block& b) { Drop(b, "k_norm"); }, "k_norm"},
      {1, [](Block& b) { Rename(b, "o_bias", "norm_bias"); }, "norm_bias"},
      {2, [](Block& b) { b.attributes.Set("activation", std::string("tanh")); }, "tanh"},
      {2, [](Block& b) { b.attributes.Set("residual_scale", 1e9); }, "residual_scale"},
      {2, [](Block& b) { Rename(b, "gate", "gate_up"); }, "gate_up"},
      {5, [](Block& b) { b.attributes.Set("scale", std::string("x")); }, "scale"},
      {5, [](Block& b) { Drop(b, "head"); }, "head"},
      {0, [](Block& b) { b.attributes.Set("positions_offset", int64_t{600}); }, "positions"},
      {0, [](Block& b) { b.attributes.Set("positions_offset", int64_t{3}); }, "positions"},
  };
  const ChainVariant variant{.name = "a", .biases = true, .qk_norm = "head", .positions = true};
  for (const Case& c : cases) {
    const Status status = Refused(variant, c.block, c.change);
    EXPECT_FALSE(status.ok()) << c.named;
    EXPECT_NE(status.message().find(c.named), absl::string_view::npos) << status;
  }
}

TEST_F(RefusalTest, SettingsOfAbsentThingsAreRefused) {
  const ChainVariant nope{.name = "a", .rotates = false};
  const Status rotary = Refused(nope, 1, [](blockzoo::BlockManifest& block) {
    block.attributes.Set("rotary_dim", int64_t{8});
  });
  EXPECT_NE(rotary.message().find("rotary_dim"), absl::string_view::npos) << rotary;
  const ChainVariant rms{.name = "a"};
  const Status norm = Refused(rms, 1, [](blockzoo::BlockManifest& block) {
    block.attributes.Set("norm", std::string("none"));
  });
  EXPECT_NE(norm.message().find("\"norm\""), absl::string_view::npos) << norm;
}

}  // namespace
}  // namespace tessera::testing
