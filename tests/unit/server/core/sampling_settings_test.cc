#include "server/core/sampling_settings.h"

#include <gtest/gtest.h>

#include "tests/unit/server/core/core_fixture.h"

namespace tessera::server {
namespace {

using testing::ByteIds;
using testing::kEndToken;
using testing::MakeByteModel;

scheduler::SamplingSettings Make(const LoadedModel& model, const SamplingSpec& spec) {
  const StatusOr<scheduler::SamplingSettings> made = MakeSampling(model, spec, 77);
  EXPECT_TRUE(made.ok()) << made.status();
  return made.ok() ? *made : scheduler::SamplingSettings();
}

TEST(MakeSampling, WithoutAnyWishEverythingIsOff) {
  const scheduler::SamplingSettings made = Make(*MakeByteModel(), {});
  EXPECT_EQ(made.temperature, 1.0f);
  EXPECT_EQ(made.top_p, 1.0f);
  EXPECT_EQ(made.top_k, 0u);
  EXPECT_EQ(made.min_p, 0.0f);
  EXPECT_EQ(made.typical_p, 1.0f);
  EXPECT_EQ(made.repetition_penalty, 1.0f);
  EXPECT_EQ(made.presence_penalty, 0.0f);
  EXPECT_EQ(made.frequency_penalty, 0.0f);
  EXPECT_EQ(made.seed, 77u);
  EXPECT_TRUE(made.bias.empty() && made.allowed.empty() && made.bad_words.empty());
}

TEST(MakeSampling, RequestThenModel) {
  auto model = MakeByteModel();
  model->defaults = {.temperature = 0.5,
                     .top_p = 0.9,
                     .top_k = 40,
                     .min_p = 0.05,
                     .typical_p = 0.8,
                     .repetition_penalty = 1.2,
                     .presence_penalty = 0.3,
                     .frequency_penalty = 0.4};
  const scheduler::SamplingSettings usual = Make(*model, {});
  EXPECT_EQ(usual.temperature, 0.5f);
  EXPECT_EQ(usual.top_p, 0.9f);
  EXPECT_EQ(usual.top_k, 40u);
  EXPECT_EQ(usual.min_p, 0.05f);
  EXPECT_EQ(usual.typical_p, 0.8f);
  EXPECT_EQ(usual.repetition_penalty, 1.2f);
  EXPECT_EQ(usual.presence_penalty, 0.3f);
  EXPECT_EQ(usual.frequency_penalty, 0.4f);
  const scheduler::SamplingSettings asked = Make(*model, {.temperature = 0.0f,
                                                          .top_p = 1.0f,
                                                          .top_k = 0,
                                                          .min_p = 0.0f,
                                                          .typical_p = 1.0f,
                                                          .repetition_penalty = 1.0f,
                                                          .presence_penalty = 0.0f,
                                                          .frequency_penalty = 0.0f,
                                                          .seed = 5});
  EXPECT_EQ(asked.temperature, 0.0f);
  EXPECT_EQ(asked.top_p, 1.0f);
  EXPECT_EQ(asked.top_k, 0u);
  EXPECT_EQ(asked.min_p, 0.0f);
  EXPECT_EQ(asked.typical_p, 1.0f);
  EXPECT_EQ(asked.repetition_penalty, 1.0f);
  EXPECT_EQ(asked.presence_penalty, 0.0f);
  EXPECT_EQ(asked.frequency_penalty, 0.0f);
  EXPECT_EQ(asked.seed, 5u);
}

TEST(MakeSampling, TinyTemperaturesAreRaisedAndZeroStaysGreedy) {
  const auto model = MakeByteModel();
  EXPECT_EQ(Make(*model, {.temperature = 1e-9f}).temperature, 0.01f);
  EXPECT_EQ(Make(*model, {.temperature = 0.0f}).temperature, 0.0f);
  EXPECT_EQ(Make(*model, {.temperature = 0.02f}).temperature, 0.02f);
}

TEST(MakeSampling, AModelsTopKOfMinusOneIsOff) {
  auto model = MakeByteModel();
  model->defaults.top_k = -1;
  EXPECT_EQ(Make(*model, {}).top_k, 0u);
}

// The engine's contract: sorted and without duplicates.
TEST(MakeSampling, ListsAreSortedAndUnique) {
  SamplingSpec spec;
  spec.logit_bias = {{9, 1.0f}, {3, -1.0f}, {9, 1.0f}};
  spec.allowed_token_ids = {5, 1, 5, 3};
  const scheduler::SamplingSettings made = Make(*MakeByteModel(), spec);
  ASSERT_EQ(made.bias.size(), 2u);
  EXPECT_EQ(made.bias[0].id, 3u);
  EXPECT_EQ(made.bias[1].id, 9u);
  EXPECT_EQ(made.allowed, (std::vector<TokenId>{1, 3, 5}));
}

TEST(MakeSampling, BadWordsStandAtAStartAndAfterASpace) {
  SamplingSpec spec;
  spec.bad_words = {"ab", "<end>", "ab"};
  const scheduler::SamplingSettings made = Make(*MakeByteModel(), spec);
  // A control token's name in a word is text.
  EXPECT_EQ(made.bad_words,
            (std::vector<std::vector<TokenId>>{ByteIds("ab"), ByteIds(" ab"), ByteIds("<end>"),
                                               ByteIds(" <end>")}));
}

TEST(MakeSampling, BadWordsThatAreNoTextAreRefused) {
  SamplingSpec spec;
  spec.bad_words = {"a\xff"};
  EXPECT_EQ(MakeSampling(*MakeByteModel(), spec, 1).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(MakeStopping, FillsInTheModelsEndsAndTheDeadline) {
  const auto model = MakeByteModel();
  StoppingSpec spec;
  spec.min_tokens = 50;
  spec.stop = {"x", "y"};
  spec.stop_token_ids = {4};
  spec.include_stop = true;
  spec.ignore_eos = true;
  spec.time_limit = std::chrono::seconds(3);
  const TimePoint arrival = TimePoint(std::chrono::seconds(100));
  const scheduler::StoppingSettings made = MakeStopping(*model, spec, arrival, 20);
  EXPECT_EQ(made.max_tokens, 20u);
  EXPECT_EQ(made.min_tokens, 20u);
  EXPECT_EQ(made.stop, spec.stop);
  EXPECT_EQ(made.stop_token_ids, spec.stop_token_ids);
  EXPECT_EQ(made.end_token_ids, std::vector<TokenId>{kEndToken});
  EXPECT_TRUE(made.include_stop);
  EXPECT_TRUE(made.ignore_eos);
  EXPECT_EQ(made.soft_deadline, arrival + std::chrono::seconds(3));
  EXPECT_EQ(MakeStopping(*model, {}, arrival, 20).soft_deadline, std::nullopt);
}

}  // namespace
}  // namespace tessera::server
