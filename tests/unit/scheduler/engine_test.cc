#include "scheduler/engine.h"

#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/support/engine_fixture.h"

namespace tessera::testing {
namespace {

using scheduler::EngineOptions;
using scheduler::FinishReason;
using scheduler::GenerationRequest;

class EngineTest : public EngineFixture {};

const std::vector<uint32_t> kLayers = {1, 2, 3};

TEST_F(EngineTest, GreedyAnswerIsRepeatedAndEndsAtMaxTokens) {
  Start();
  const ChainId chain = Add("a", tiny_.Make("a", {}, kLayers, 9));
  const Answer first = Run(Ask(chain, Prompt(1, 20), 12));
  const Answer second = Run(Ask(chain, Prompt(1, 20), 12));
  ASSERT_TRUE(first.error.ok()) << first.error;
  EXPECT_EQ(first.tokens[0].size(), 12u);
  EXPECT_EQ(first.tokens, second.tokens);
  ASSERT_EQ(first.finished.size(), 1u);
  EXPECT_EQ(first.finished[0].reason, FinishReason::kMaxTokens);
  EXPECT_EQ(first.finished[0].completion_tokens, 12u);
  EXPECT_EQ(first.started->prompt_tokens, 20u);
}

// A sequence's tokens depend neither on its batch mates, nor on chunks, nor on prefix hits.
TEST_F(EngineTest, AnswersDoNotDependOnTheBatch) {
  if (!backend_->memory().host_addressable()) {
    GTEST_SKIP() << "on a device a row's last bits depend on how many rows there are";
  }
  for (const kernels::DType dtype :
       {kernels::DType::kF32, kernels::DType::kQ8_0, kernels::DType::kQ4_0, kernels::DType::kQ4_1,
        kernels::DType::kBF16, kernels::DType::kF16}) {
    TinyShape shape;
    shape.dtype = dtype;
    const blockzoo::ChainManifest manifest = tiny_.Make("a", shape, kLayers, 9);
    std::vector<std::vector<TokenId>> alone;
    Start({.prefix_reuse = false, .max_batch_tokens = 512});
    ChainId chain = Add("a", manifest);
    for (uint32_t i = 0; i < 12; ++i) {
      GenerationRequest request = Ask(chain, Prompt(i, 5 + 23 * i), 40);
      if (i % 2 == 1) {
        request.sampling.temperature = 0.9f;
        request.sampling.seed = i;
      }
      alone.push_back(Run(std::move(request)).tokens[0]);
    }
    Start({.max_batch_tokens = 37});
    chain = Add("a", manifest);
    for (int round = 0; round < 2; ++round) {
      std::vector<std::unique_ptr<Reader>> readers;
      for (uint32_t i = 0; i < 12; ++i) {
        GenerationRequest request = Ask(chain, Prompt(i, 5 + 23 * i), 40);
        if (i % 2 == 1) {
          request.sampling.temperature = 0.9f;
          request.sampling.seed = i;
        }
        readers.push_back(Submit(std::move(request)));
      }
      for (uint32_t i = 0; i < 12; ++i) {
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

TEST_F(EngineTest, ChainsThatShareLayersAnswerAsAlone) {
  const blockzoo::ChainManifest a = tiny_.Make("a", {}, {1, 2, 3}, 9);
  const blockzoo::ChainManifest b = tiny_.Make("b", {}, {1, 2, 4}, 9);
  const blockzoo::ChainManifest shallow = tiny_.Make("s", {}, {1, 2}, 9);
  TinyShape narrow;
  narrow.width = 32;
  const blockzoo::ChainManifest other = tiny_.Make("o", narrow, {5}, 8);
  std::vector<std::vector<std::vector<TokenId>>> alone;
  for (const blockzoo::ChainManifest* manifest : {&a, &b, &shallow, &other}) {
    Start();
    const ChainId chain = Add(manifest->name, *manifest);
    alone.emplace_back();
    for (uint32_t i = 0; i < 3; ++i) {
      alone.back().push_back(Run(Ask(chain, Prompt(i, 70 + i), 20)).tokens[0]);
    }
  }
  EXPECT_NE(alone[0], alone[1]);
  Start();
  std::vector<ChainId> chains;
  for (const blockzoo::ChainManifest* manifest : {&a, &b, &shallow, &other}) {
    chains.push_back(Add(manifest->name, *manifest));
  }
  std::vector<std::unique_ptr<Reader>> readers;
  for (ChainId chain : chains) {
    for (uint32_t i = 0; i < 3; ++i) readers.push_back(Submit(Ask(chain, Prompt(i, 70 + i), 20)));
  }
  for (size_t r = 0; r < readers.size(); ++r) {
    EXPECT_EQ(readers[r]->Wait().tokens[0], alone[r / 3][r % 3]) << "chain " << r / 3;
  }
}

// Two chains whose layers part and whose lm_head is one block: a step has one product of it.
TEST_F(EngineTest, ChainsWithOneHeadReadItOnce) {
  const TinyShape shape;
  Start();
  if (!backend_->memory().host_addressable()) {
    GTEST_SKIP() << "a profile counts the processor's kernels";
  }
  const ChainId chains[] = {Add("a", tiny_.Make("a", shape, {1, 2}, 9)),
                            Add("b", tiny_.Make("b", shape, {1, 3}, 9))};
  engine_->StartProfile();
  std::vector<std::unique_ptr<Reader>> readers;
  for (const ChainId chain : chains) readers.push_back(Submit(Ask(chain, Prompt(1, 70), 40)));
  for (const auto& reader : readers) EXPECT_TRUE(reader->Wait().error.ok());
  const scheduler::EngineProfile profile = engine_->TakeProfile();
  uint64_t heads = 0;
  const std::string out = absl::StrCat("[", shape.vocab, ",");
  for (const kernels::OpProfile::Line& line : profile.ops) {
    if (line.op == "linear" && absl::StrContains(line.what, out)) heads += line.calls;
  }
  EXPECT_GE(heads, 40);
  EXPECT_LE(heads, profile.steps);
}

// With pages for about two of the sequences, the others are preempted and computed again.
TEST_F(EngineTest, PreemptionDoesNotChangeAnswers) {
  const blockzoo::ChainManifest manifest = tiny_.Make("a", {}, kLayers, 9);
  Start();
  ChainId chain = Add("a", manifest);
  std::vector<std::vector<TokenId>> alone;
  for (uint32_t i = 0; i < 6; ++i) {
    alone.push_back(Run(Ask(chain, Prompt(i, 50), 900)).tokens[0]);
  }
  const uint64_t one = Bind(manifest)->cache_layout()->BytesFor(950);
  Start({.cache_bytes = one * 5 / 2 + (1 << 20)});
  chain = Add("a", manifest);
  std::vector<std::unique_ptr<Reader>> readers;
  for (uint32_t i = 0; i < 6; ++i) readers.push_back(Submit(Ask(chain, Prompt(i, 50), 900)));
  uint32_t preemptions = 0;
  for (uint32_t i = 0; i < 6; ++i) {
    const Answer answer = readers[i]->Wait();
    ASSERT_TRUE(answer.error.ok()) << answer.error;
    EXPECT_EQ(answer.tokens[0], alone[i]) << "request " << i;
    preemptions += answer.finished[0].preemptions;
  }
  EXPECT_GT(preemptions, 0u);
}

TEST_F(EngineTest, ChoicesShareThePromptAndDrawApart) {
  Start();
  const ChainId chain = Add("a", tiny_.Make("a", {}, kLayers, 9));
  GenerationRequest request = Ask(chain, Prompt(3, 90), 30);
  request.sampling.temperature = 1.0f;
  request.sampling.seed = 77;
  request.n = 4;
  const Answer many = Run(std::move(request));
  ASSERT_TRUE(many.error.ok()) << many.error;
  ASSERT_EQ(many.finished.size(), 4u);
  for (uint32_t c = 0; c < 4; ++c) {
    GenerationRequest single = Ask(chain, Prompt(3, 90), 30);
    single.sampling.temperature = 1.0f;
    single.sampling.seed = 77 + c;
    EXPECT_EQ(Run(std::move(single)).tokens[0], many.tokens[c]) << "choice " << c;
  }
  EXPECT_NE(many.tokens[0], many.tokens[1]);
}

TEST_F(EngineTest, SharedPrefixIsComputedOnce) {
  Start();
  const ChainId chain = Add("a", tiny_.Make("a", {}, kLayers, 9));
  std::vector<TokenId> start = Prompt(5, 512);
  std::vector<TokenId> first = start;
  std::vector<TokenId> second = start;
  for (TokenId token : Prompt(6, 32)) first.push_back(token);
  for (TokenId token : Prompt(7, 32)) second.push_back(token);
  const Answer cold = Run(Ask(chain, first, 4));
  EXPECT_EQ(cold.started->cached_tokens, 0u);
  const Answer warm = Run(Ask(chain, second, 4));
  EXPECT_EQ(warm.started->cached_tokens, 512u);
}

// Variants share the pages of their equal lower layers, and answer as if they did not.
TEST_F(EngineTest, VariantsShareLowerPages) {
  const blockzoo::ChainManifest a = tiny_.Make("a", {}, {1, 2, 3}, 9);
  const blockzoo::ChainManifest b = tiny_.Make("b", {}, {1, 2, 4}, 9);
  Start();
  const ChainId only_b = Add("b", b);
  const Answer alone = Run(Ask(only_b, Prompt(1, 200), 10));
  Start();
  const ChainId first = Add("a", a);
  const ChainId second = Add("b", b);
  (void)Run(Ask(first, Prompt(1, 200), 10));
  const uint64_t one = engine_->Stats().cache.cached_bytes;
  const Answer shared = Run(Ask(second, Prompt(1, 200), 10));
  EXPECT_EQ(shared.tokens, alone.tokens);
  const uint64_t both = engine_->Stats().cache.cached_bytes;
  EXPECT_GT(one, 0u);
  EXPECT_LT(both, 2 * one);
}

TEST_F(EngineTest, StopStringsCutTheOutput) {
  Start();
  const ChainId chain = Add("a", tiny_.Make("a", {}, kLayers, 9));
  const Answer whole = Run(Ask(chain, Prompt(2, 10), 30));
  std::string text;
  for (TokenId token : whole.tokens[0]) text.push_back(static_cast<char>('a' + token % 26));
  GenerationRequest request = Ask(chain, Prompt(2, 10), 30);
  request.stopping.stop = {text.substr(10, 3)};
  const size_t at = text.find(text.substr(10, 3));
  const Answer cut = Run(request);
  EXPECT_EQ(cut.tokens[0].size(), at);
  ASSERT_EQ(cut.finished.size(), 1u);
  EXPECT_EQ(cut.finished[0].reason, FinishReason::kStop);
  EXPECT_EQ(cut.finished[0].stop_index, 0);
  EXPECT_EQ(cut.finished[0].completion_tokens, at);
  request.id = RequestId(1000);
  request.stopping.include_stop = true;
  EXPECT_EQ(Run(request).tokens[0].size(), at + 3);
}

TEST_F(EngineTest, EndTokenStopsUnlessIgnoredOrTooEarly) {
  Start();
  const ChainId chain = Add("a", tiny_.Make("a", {}, kLayers, 9));
  const Answer whole = Run(Ask(chain, Prompt(4, 10), 20));
  const TokenId end = whole.tokens[0][5];
  size_t at = 0;
  while (whole.tokens[0][at] != end) ++at;
  GenerationRequest request = Ask(chain, Prompt(4, 10), 20);
  request.stopping.ignore_eos = false;
  request.stopping.end_token_ids = {end};
  const Answer ended = Run(request);
  EXPECT_EQ(ended.tokens[0].size(), at + 1);
  EXPECT_EQ(ended.events.back().visible_bytes, 0u);
  EXPECT_EQ(ended.finished[0].reason, FinishReason::kEos);
  EXPECT_EQ(ended.finished[0].stop_token, end);
  request.id = RequestId(1001);
  request.stopping.min_tokens = 15;
  const Answer later = Run(request);
  EXPECT_GE(later.tokens[0].size(), 15u);
  for (size_t i = 0; i < 15; ++i) EXPECT_NE(later.tokens[0][i], end);
}

TEST_F(EngineTest, PromptLogprobsCoverEveryTokenAndBypassHits) {
  Start({.max_batch_tokens = 48});
  const ChainId chain = Add("a", tiny_.Make("a", {}, kLayers, 9));
  (void)Run(Ask(chain, Prompt(8, 150), 4));
  GenerationRequest request = Ask(chain, Prompt(8, 150), 4);
  request.output.prompt_logprobs = 2;
  request.output.logprobs = 3;
  const Answer scored = Run(request);
  EXPECT_EQ(scored.started->cached_tokens, 0u);
  ASSERT_EQ(scored.prompt_events.size(), 149u);
  for (size_t i = 0; i < 149; ++i) {
    EXPECT_EQ(scored.prompt_events[i].token, request.prompt[i + 1]);
    EXPECT_LE(scored.prompt_events[i].logprob, 0.0f);
  }
  ASSERT_EQ(scored.top.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    ASSERT_EQ(scored.top[i].size(), 3u);
    EXPECT_EQ(scored.top[i][0].id, scored.tokens[0][i]);
    EXPECT_GE(scored.top[i][0].logprob, scored.top[i][1].logprob);
    EXPECT_FLOAT_EQ(scored.top[i][0].logprob, scored.events[i].logprob);
  }
}

TEST_F(EngineTest, ReleaseFreesEverything) {
  Start();
  const ChainId chain = Add("a", tiny_.Make("a", {}, kLayers, 9));
  GenerationRequest request = Ask(chain, Prompt(8, 40), 900);
  const RequestId id = request.id;
  request.bypass_prefix_cache = true;
  std::unique_ptr<Reader> reader = Submit(std::move(request));
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  engine_->inbox().PostRelease(id);
  for (int i = 0; i < 100 && engine_->Stats().cache.used_bytes > 0; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  EXPECT_EQ(engine_->Stats().cache.used_bytes, 0u);
  EXPECT_EQ(engine_->Stats().running, 0u);
  EXPECT_EQ(engine_->inbox().waiting_requests(), 0u);
}

TEST_F(EngineTest, FullLineRefusesAtOnce) {
  EngineOptions options;
  options.inbox.max_requests = 2;
  Start(options);
  EXPECT_TRUE(engine_->inbox().Reserve().ok());
  EXPECT_TRUE(engine_->inbox().Reserve().ok());
  EXPECT_EQ(engine_->inbox().Reserve().code(), absl::StatusCode::kUnavailable);
  engine_->inbox().CancelReservation();
  EXPECT_TRUE(engine_->inbox().Reserve().ok());
}

TEST_F(EngineTest, DeadlineEndsTheRequest) {
  Start();
  TinyShape slow;
  slow.width = 256;
  slow.hidden = 2048;
  slow.head_dim = 64;
  const ChainId chain = Add("a", tiny_.Make("a", slow, {1, 2, 3, 4, 5, 6, 7, 8}, 9));
  GenerationRequest request = Ask(chain, Prompt(8, 40), 900);
  request.deadline = SystemClock().Now() + std::chrono::milliseconds(5);
  const Answer answer = Run(std::move(request));
  EXPECT_EQ(answer.error.code(), absl::StatusCode::kDeadlineExceeded);
  GenerationRequest soft = Ask(chain, Prompt(8, 40), 900);
  soft.stopping.soft_deadline = SystemClock().Now() + std::chrono::milliseconds(20);
  const Answer ended = Run(std::move(soft));
  ASSERT_TRUE(ended.error.ok());
  EXPECT_EQ(ended.finished[0].reason, FinishReason::kTimeLimit);
}

TEST_F(EngineTest, SlowReaderIsParkedThenAborted) {
  EngineOptions options;
  options.park_above_tokens = 8;
  options.park_limit = std::chrono::milliseconds(200);
  Start(options);
  const ChainId chain = Add("a", tiny_.Make("a", {}, kLayers, 9));
  std::unique_ptr<Reader> slow = Submit(Ask(chain, Prompt(8, 40), 900));
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_LE(slow->mailbox()->backlog_tokens(), 10u);
  const Answer other = Run(Ask(chain, Prompt(9, 40), 4));
  EXPECT_TRUE(other.error.ok());
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  EXPECT_EQ(slow->Wait().error.code(), absl::StatusCode::kAborted);
}

TEST_F(EngineTest, RemovedChainServesItsStreamsToTheEnd) {
  Start();
  const ChainId chain = Add("a", tiny_.Make("a", {}, kLayers, 9));
  std::unique_ptr<Reader> reader = Submit(Ask(chain, Prompt(8, 40), 300));
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
  std::atomic<bool> dropped{false};
  engine_->RemoveChain(chain, [&] { dropped = true; });
  const Answer answer = reader->Wait();
  EXPECT_TRUE(answer.error.ok());
  EXPECT_EQ(answer.tokens[0].size(), 300u);
  for (int i = 0; i < 100 && !dropped; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_TRUE(dropped);
  EXPECT_EQ(Run(Ask(chain, Prompt(8, 40), 3)).error.code(), absl::StatusCode::kUnavailable);
}

TEST_F(EngineTest, RequestThatCannotFitIsRefused) {
  Start({.cache_bytes = 2 << 20});
  const std::shared_ptr<const blockzoo::Chain> chain = Bind(tiny_.Make("a", {}, kLayers, 9));
  EXPECT_TRUE(engine_->CheckFits(*chain, 10, 10).ok());
  EXPECT_EQ(engine_->CheckFits(*chain, 1000, 100).code(), absl::StatusCode::kInvalidArgument);
  const uint64_t most = engine_->MaxSequenceTokens(*chain);
  EXPECT_TRUE(engine_->CheckFits(*chain, most - 1, 1).ok());
  if (most < chain->max_context()) {
    EXPECT_FALSE(engine_->CheckFits(*chain, most, 1).ok());
  }
}

}  // namespace
}  // namespace tessera::testing
