// Requests that want their prompt computed and nothing drawn: scores and pooled hidden states.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <thread>

#include "tests/support/engine_fixture.h"

namespace tessera::testing {
namespace {

using scheduler::EngineOptions;
using scheduler::GenerationRequest;
using scheduler::Pooling;

class PromptOnlyTest : public EngineFixture {
 protected:
  void SetUp() override {
    EngineFixture::SetUp();
    if (!backend_->memory().host_addressable()) {
      GTEST_SKIP() << "a device has no kernel that pools, and bits there depend on the batch";
    }
    manifest_ = tiny_.Make("a", {}, {1, 2, 3}, 9);
  }

  GenerationRequest Score(ChainId chain, std::vector<TokenId> prompt, uint32_t from) {
    GenerationRequest request = Ask(chain, std::move(prompt), 0);
    request.prompt_only = true;
    request.output.prompt_logprobs = 0;
    request.output.prompt_logprobs_from = from;
    return request;
  }
  GenerationRequest Embed(ChainId chain, std::vector<TokenId> prompt, Pooling pooling) {
    GenerationRequest request = Ask(chain, std::move(prompt), 0);
    request.prompt_only = true;
    request.pooling = pooling;
    return request;
  }
  std::vector<float> Pooled(ChainId chain, std::vector<TokenId> prompt, Pooling pooling) {
    const Answer answer = Run(Embed(chain, std::move(prompt), pooling));
    EXPECT_TRUE(answer.error.ok()) << answer.error;
    EXPECT_TRUE(answer.tokens[0].empty());
    return answer.pooled;
  }

  static std::vector<float> LogprobsOf(const Answer& answer) {
    std::vector<float> logprobs;
    for (const scheduler::TokenEvent& event : answer.prompt_events) {
      logprobs.push_back(event.logprob);
    }
    return logprobs;
  }

  blockzoo::ChainManifest manifest_;
};

TEST_F(PromptOnlyTest, AScoreIsTheSameInAnyBatchAndAfterAPrefixHit) {
  std::vector<std::vector<float>> alone;
  Start({.prefix_reuse = false});
  ChainId chain = Add("a", manifest_);
  for (uint32_t i = 0; i < 10; ++i) {
    const Answer answer = Run(Score(chain, Prompt(i, 150 + 17 * i), 130));
    ASSERT_TRUE(answer.error.ok()) << answer.error;
    EXPECT_TRUE(answer.tokens[0].empty());
    ASSERT_EQ(answer.prompt_events.size(), 20 + 17 * i);
    alone.push_back(LogprobsOf(answer));
    // The same as the end of the whole prompt's.
    const std::vector<float> whole = LogprobsOf(Run(Score(chain, Prompt(i, 150 + 17 * i), 1)));
    EXPECT_TRUE(std::equal(alone.back().rbegin(), alone.back().rend(), whole.rbegin()));
  }
  Start({.max_batch_tokens = 37});
  chain = Add("a", manifest_);
  for (int round = 0; round < 2; ++round) {
    std::vector<std::unique_ptr<Reader>> readers;
    for (uint32_t i = 0; i < 10; ++i) {
      readers.push_back(Submit(Score(chain, Prompt(i, 150 + 17 * i), 130)));
      readers.push_back(Submit(Ask(chain, Prompt(100 + i, 30), 20)));
    }
    for (uint32_t i = 0; i < 10; ++i) {
      const Answer answer = readers[2 * i]->Wait();
      EXPECT_EQ(LogprobsOf(answer), alone[i]) << i;
      EXPECT_EQ(answer.started->cached_tokens, round == 0 ? 0u : 128u);
      EXPECT_EQ(readers[2 * i + 1]->Wait().tokens[0].size(), 20u);
    }
  }
}

TEST_F(PromptOnlyTest, TheLastHiddenStateMakesTheNextToken) {
  Start();
  const ChainId chain = Add("a", manifest_);
  const blockzoo::BlockManifest head = weights_.Block(manifest_.blocks.back()).value();
  const blockzoo::TensorRef* table = head.Find("head");
  ASSERT_NE(table, nullptr);
  const blockzoo::WeightHandle bytes = weights_.Canonical(*table).value();
  const auto* weights = reinterpret_cast<const float*>(bytes.data());
  for (const size_t length : {size_t{1}, size_t{64}, size_t{65}, size_t{200}}) {
    const std::vector<float> hidden = Pooled(chain, Prompt(4, length), Pooling::kLast);
    ASSERT_EQ(hidden.size(), manifest_.width);
    std::vector<double> logits(manifest_.vocab);
    for (size_t t = 0; t < logits.size(); ++t) {
      for (size_t c = 0; c < hidden.size(); ++c) {
        logits[t] += double{weights[t * hidden.size() + c]} * hidden[c];
      }
    }
    double sum = 0;
    for (const double logit : logits) sum += std::exp(logit);
    const auto best = std::max_element(logits.begin(), logits.end());
    GenerationRequest request = Ask(chain, Prompt(4, length), 1);
    request.output.logprobs = 1;
    const Answer next = Run(std::move(request));
    EXPECT_EQ(next.tokens[0][0], static_cast<TokenId>(best - logits.begin())) << length;
    EXPECT_NEAR(next.events[0].logprob, *best - std::log(sum), 1e-4) << length;
  }
}

TEST_F(PromptOnlyTest, MeanAndFirstFollowFromTheLastOfEachPrefix) {
  Start({.max_batch_tokens = 16});
  const ChainId chain = Add("a", manifest_);
  const std::vector<TokenId> prompt = Prompt(5, 70);
  std::vector<double> mean(manifest_.width);
  std::vector<float> first;
  for (size_t length = 1; length <= prompt.size(); ++length) {
    const std::vector<float> last = Pooled(
        chain, {prompt.begin(), prompt.begin() + static_cast<ptrdiff_t>(length)}, Pooling::kLast);
    if (first.empty()) first = last;
    for (size_t c = 0; c < mean.size(); ++c) mean[c] += double{last[c]};
  }
  for (double& value : mean) value /= static_cast<double>(prompt.size());
  EXPECT_EQ(Pooled(chain, prompt, Pooling::kMean), std::vector<float>(mean.begin(), mean.end()));
  EXPECT_EQ(Pooled(chain, prompt, Pooling::kFirst), first);
}

// Sequences that decode grow into the room of the prompt that is computed beside them.
TEST_F(PromptOnlyTest, AVectorIsTheSameInAnyBatchAndAfterPreemptions) {
  constexpr Pooling kKinds[] = {Pooling::kMean, Pooling::kLast, Pooling::kFirst};
  constexpr uint32_t kVectors = 12, kDecoding = 3;
  Start({.prefix_reuse = false});
  ChainId chain = Add("a", manifest_);
  std::vector<std::vector<float>> alone;
  for (uint32_t i = 0; i < kVectors; ++i) {
    alone.push_back(Pooled(chain, Prompt(i, 500 + i), kKinds[i % 3]));
  }
  EXPECT_NE(alone[0], alone[1]);
  const uint64_t one = Bind(manifest_)->cache_layout()->BytesFor(800);
  Start({.cache_bytes = one * 5 / 2, .max_batch_tokens = 13});
  chain = Add("a", manifest_);
  std::vector<std::unique_ptr<Reader>> decoding, embedding;
  for (uint32_t i = 0; i < kDecoding; ++i) {
    decoding.push_back(Submit(Ask(chain, Prompt(50 + i, 100), 700)));
  }
  for (uint32_t i = 0; i < kVectors; ++i) {
    embedding.push_back(Submit(Embed(chain, Prompt(i, 500 + i), kKinds[i % 3])));
  }
  uint32_t preemptions = 0;
  for (uint32_t i = 0; i < kVectors; ++i) {
    const Answer answer = embedding[i]->Wait();
    ASSERT_TRUE(answer.error.ok()) << answer.error;
    EXPECT_EQ(answer.pooled, alone[i]) << i;
    preemptions += answer.finished[0].preemptions;
  }
  for (const auto& reader : decoding) EXPECT_TRUE(reader->Wait().error.ok());
  EXPECT_GT(preemptions, 0u) << "of a cache of " << one * 5 / 2 << " bytes";
}

TEST_F(PromptOnlyTest, OneThatIsCancelledOrLateLeavesNothing) {
  Start({.max_batch_tokens = 8});
  TinyShape slow;
  slow.width = 256;
  slow.hidden = 2048;
  const ChainId chain = Add("a", tiny_.Make("slow", slow, {1, 2, 3, 4, 5, 6}, 9));
  GenerationRequest late = Embed(chain, Prompt(1, 900), Pooling::kMean);
  late.deadline = SystemClock().Now() + std::chrono::milliseconds(10);
  const Answer answer = Run(std::move(late));
  EXPECT_EQ(answer.error.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(answer.pooled.empty());
  for (GenerationRequest& request : std::vector<GenerationRequest>{
           Embed(chain, Prompt(2, 900), Pooling::kMean), Score(chain, Prompt(3, 900), 1)}) {
    const RequestId id = request.id;
    request.bypass_prefix_cache = true;
    const std::unique_ptr<Reader> reader = Submit(std::move(request));
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    engine_->inbox().PostRelease(id);
  }
  for (int i = 0; i < 500 && engine_->Stats().cache.used_bytes > 0; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_EQ(engine_->Stats().cache.used_bytes, 0u);
  EXPECT_EQ(engine_->inbox().waiting_requests(), 0u);
}

// Chains that share layers pool each with its own head.
TEST_F(PromptOnlyTest, ChainsInOneStepPoolApart) {
  const blockzoo::ChainManifest other = tiny_.Make("b", {}, {1, 2, 3}, 8);
  TinyShape narrow;
  narrow.width = 32;
  const blockzoo::ChainManifest small = tiny_.Make("o", narrow, {5}, 8);
  const std::vector<const blockzoo::ChainManifest*> manifests = {&manifest_, &other, &small};
  std::vector<std::vector<float>> alone;
  for (const blockzoo::ChainManifest* manifest : manifests) {
    Start();
    const ChainId chain = Add("x", *manifest);
    alone.push_back(Pooled(chain, Prompt(1, 100), Pooling::kMean));
  }
  Start();
  std::vector<std::unique_ptr<Reader>> readers;
  for (const blockzoo::ChainManifest* manifest : manifests) {
    const ChainId chain = Add(manifest->name, *manifest);
    readers.push_back(Submit(Ask(chain, Prompt(2, 30), 4)));
    readers.push_back(Submit(Embed(chain, Prompt(1, 100), Pooling::kMean)));
  }
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(readers[2 * i + 1]->Wait().pooled, alone[i]) << i;
}

}  // namespace
}  // namespace tessera::testing
