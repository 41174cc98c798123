// Chains of mixtures of experts and latent attention, through an engine: what a sequence answers
// depends on nothing but itself.
#include <gtest/gtest.h>

#include "tests/support/engine_fixture.h"

namespace tessera::testing {
namespace {

class MixtureTest : public EngineFixture {
 protected:
  void SetUp() override {
    EngineFixture::SetUp();
    if (!backend_->memory().host_addressable()) {
      GTEST_SKIP() << "mixtures and latent attention run on the CPU";
    }
  }
};

TinyShape Shape(kernels::DType dtype) {
  TinyShape shape;
  shape.dtype = dtype;
  shape.head_dim = 64;
  shape.experts = 5;
  shape.latent_rank = 32;
  return shape;
}

// Chunks, neighbours and prefix hits change no token.
TEST_F(MixtureTest, AnswersDoNotDependOnTheBatch) {
  for (const kernels::DType dtype : {kernels::DType::kF32, kernels::DType::kQ8_0,
                                     kernels::DType::kQ4_1, kernels::DType::kBF16}) {
    const blockzoo::ChainManifest manifest = tiny_.Make("a", Shape(dtype), {1, 2}, 9);
    std::vector<std::vector<TokenId>> alone;
    Start({.prefix_reuse = false, .max_batch_tokens = 512});
    ChainId chain = Add("a", manifest);
    for (uint32_t i = 0; i < 8; ++i) {
      alone.push_back(Run(Ask(chain, Prompt(i, 5 + 23 * i), 24)).tokens[0]);
    }
    EXPECT_NE(alone[0], alone[1]);
    Start({.max_batch_tokens = 37});
    chain = Add("a", manifest);
    for (int round = 0; round < 2; ++round) {
      std::vector<std::unique_ptr<Reader>> readers;
      for (uint32_t i = 0; i < 8; ++i) {
        readers.push_back(Submit(Ask(chain, Prompt(i, 5 + 23 * i), 24)));
      }
      for (uint32_t i = 0; i < 8; ++i) {
        const Answer answer = readers[i]->Wait();
        ASSERT_TRUE(answer.error.ok()) << answer.error;
        EXPECT_EQ(answer.tokens[0], alone[i])
            << kernels::InfoOf(dtype).name << " request " << i << " round " << round;
        if (round == 1) {
          EXPECT_EQ(answer.started->cached_tokens, (5 + 23 * i - 1) / 64 * 64);
        }
      }
    }
  }
}

// Private blocks of several chains run in one launch, each with its own experts.
TEST_F(MixtureTest, GroupedChainsAnswerAsAlone) {
  const TinyShape shape = Shape(kernels::DType::kF32);
  const blockzoo::ChainManifest manifests[] = {tiny_.Make("a", shape, {1, 2, 3}, 9),
                                               tiny_.Make("b", shape, {1, 4, 5}, 9),
                                               tiny_.Make("c", shape, {1, 2, 6}, 9)};
  std::vector<std::vector<TokenId>> alone;
  for (const blockzoo::ChainManifest& manifest : manifests) {
    Start();
    const ChainId chain = Add(manifest.name, manifest);
    for (uint32_t i = 0; i < 3; ++i) {
      alone.push_back(Run(Ask(chain, Prompt(i, 70 + i), 20)).tokens[0]);
    }
  }
  EXPECT_NE(alone[0], alone[3]);
  EXPECT_NE(alone[0], alone[6]);
  Start();
  std::vector<ChainId> chains;
  for (const blockzoo::ChainManifest& manifest : manifests) {
    chains.push_back(Add(manifest.name, manifest));
  }
  std::vector<std::unique_ptr<Reader>> readers;
  for (ChainId chain : chains) {
    for (uint32_t i = 0; i < 3; ++i) readers.push_back(Submit(Ask(chain, Prompt(i, 70 + i), 20)));
  }
  for (size_t r = 0; r < readers.size(); ++r) {
    EXPECT_EQ(readers[r]->Wait().tokens[0], alone[r]) << "request " << r;
  }
}

// One plane of latents: less than half of what keys and values of as many heads take.
TEST_F(MixtureTest, ATokensStateIsOneLatent) {
  const auto chain = Bind(tiny_.Make("a", Shape(kernels::DType::kF32), {1, 2}, 9));
  ASSERT_NE(chain, nullptr);
  // 64 tokens of 32 + 32 floats in each of two layers.
  EXPECT_EQ(chain->cache_layout()->BytesFor(1), 2u * 64 * 64 * 4);
}

}  // namespace
}  // namespace tessera::testing
