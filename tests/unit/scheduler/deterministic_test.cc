// Deterministic requests: their tokens are those that they have alone, whatever runs beside them,
// whatever the cache holds, and however often they are preempted.
//
// On the processor no row depends on its batch, so that the engine has nothing to do; a backend
// that says otherwise of the same kernels shows what it does on a device. The same test on a
// device: TESSERA_TEST_DEVICE=cuda.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/strings/match.h"
#include "tests/support/engine_fixture.h"

namespace tessera::testing {
namespace {

using kernels::DType;
using kernels::Numerics;
using scheduler::Determinism;
using scheduler::EngineOptions;
using scheduler::GenerationRequest;

// Steps by their numerics.
struct Steps {
  std::atomic<int> fast{0}, prompts{0}, decoding{0};
};

// The host's kernels, of which it says that rows depend on their batch.
class DependentContext final : public kernels::ExecContext {
 public:
  DependentContext(kernels::ThreadPool& pool, size_t scratch, const Status& able, Steps& steps)
      : ExecContext(pool, scratch), able_(able), steps_(steps) {}
  bool batch_invariant() const override { return false; }
  Status deterministic() const override { return able_; }
  void SetNumerics(Numerics numerics) override {
    numerics_ = numerics;
    ++(numerics == Numerics::kFast         ? steps_.fast
       : numerics == Numerics::kDecodeRows ? steps_.decoding
                                           : steps_.prompts);
  }
  void PrepareAttention(const kernels::AttentionShape& /*shape*/, kernels::AttentionPlan& plan,
                        kernels::StepArena& /*inputs*/) override {
    if (numerics_ != Numerics::kDecodeRows) return;
    for (const kernels::AttentionRow& row : plan.rows) EXPECT_EQ(row.q_rows, 1);
  }

 private:
  const Status able_;
  Steps& steps_;
  Numerics numerics_ = Numerics::kFast;
};

class DependentBackend final : public kernels::Backend {
 public:
  DependentBackend(std::shared_ptr<const Backend> host, Status able)
      : host_(std::move(host)), able_(std::move(able)) {}
  std::string name() const override { return host_->name(); }
  const kernels::Catalog& catalog() const override { return host_->catalog(); }
  StatusOr<kernels::WeightLayout> LinearLayout(DType dtype, uint64_t out,
                                               uint64_t in) const override {
    return host_->LinearLayout(dtype, out, in);
  }
  void PackLinear(DType dtype, uint64_t out, uint64_t in, const std::byte* canonical,
                  std::byte* packed) const override {
    host_->PackLinear(dtype, out, in, canonical, packed);
  }
  uint64_t LinearRowStep() const override { return host_->LinearRowStep(); }
  size_t ScratchBytes(const ContextNeeds& needs) const override {
    return host_->ScratchBytes(needs);
  }
  StatusOr<std::unique_ptr<kernels::ExecContext>> MakeContext(
      kernels::ThreadPool& pool, const ContextNeeds& needs) const override {
    return std::make_unique<DependentContext>(pool, ScratchBytes(needs), able_, steps_);
  }
  [[nodiscard]] const Steps& steps() const { return steps_; }

 private:
  std::shared_ptr<const Backend> host_;
  Status able_;
  mutable Steps steps_;
};

class DeterministicTest : public EngineFixture {
 protected:
  static constexpr uint32_t kMaxPrompt = 150, kMaxOutput = 60;

  void UseDependent(Status able = absl::OkStatus()) {
    auto made = std::make_shared<DependentBackend>(backend_, std::move(able));
    dependent_ = made.get();
    Use(std::move(made));
  }

  static TinyShape Shape(DType dtype) {
    TinyShape shape;
    shape.dtype = dtype;
    shape.width = 128;
    shape.hidden = 256;
    shape.head_dim = 64;
    return shape;
  }

  // Request `i` of the mixture. Every fifth goes on from the answer of the one before.
  GenerationRequest MixedRequest(ChainId chain, uint32_t i, const std::vector<Answer>& answers) {
    std::mt19937 random(i);
    const uint32_t earlier = i - i % 5;
    std::vector<TokenId> prompt = Prompt(earlier, 1 + std::mt19937(earlier)() % kMaxPrompt);
    if (i % 5 == 4) {
      const std::vector<TokenId>& said = answers[earlier].tokens[0];
      prompt.insert(prompt.end(), said.begin(), said.end());
    } else if (i % 5 != 0) {
      prompt = Prompt(i, 1 + random() % kMaxPrompt);
    }
    GenerationRequest request = Ask(chain, std::move(prompt), 1 + random() % kMaxOutput);
    request.deterministic = true;
    request.output.logprobs = 0;
    if (i % 2 == 1) {
      request.sampling.temperature = 0.5f + 0.1f * static_cast<float>(random() % 8);
      request.sampling.seed = random();
      if (i % 4 == 1) request.sampling.top_p = 0.9f;
      if (i % 3 == 0) request.sampling.repetition_penalty = 1.2f;
    }
    return request;
  }

  std::vector<Answer> RunAlone(const blockzoo::ChainManifest& manifest, uint32_t requests) {
    Start({.prefix_reuse = false, .max_batch_tokens = 512, .determinism = Determinism::kOnRequest});
    const ChainId chain = Add("a", manifest);
    std::vector<Answer> alone;
    for (uint32_t i = 0; i < requests; ++i) {
      alone.push_back(Run(MixedRequest(chain, i, alone)));
      EXPECT_TRUE(alone.back().error.ok()) << alone.back().error;
    }
    return alone;
  }

  // To the last bit of the log-probabilities, which shows far smaller differences than tokens do.
  static bool Equal(const Answer& a, const Answer& b) {
    return a.tokens == b.tokens && a.events.size() == b.events.size() &&
           std::equal(a.events.begin(), a.events.end(), b.events.begin(),
                      [](const scheduler::TokenEvent& x, const scheduler::TokenEvent& y) {
                        return x.logprob == y.logprob && x.rank == y.rank;
                      });
  }

  // All at once, with short steps, others' requests between them, and pages for few of them.
  void ExpectEqualAlone(DType dtype, uint32_t requests) {
    const blockzoo::ChainManifest manifest = tiny_.Make("a", Shape(dtype), {1, 2, 3}, 9);
    const std::vector<Answer> alone = RunAlone(manifest, requests);
    const uint64_t one = Bind(manifest)->cache_layout()->BytesFor(2 * (kMaxPrompt + kMaxOutput));
    Start({.cache_bytes = 2 * one + (1 << 20),
           .max_batch_tokens = 96,
           .max_running = 64,
           .determinism = Determinism::kOnRequest});
    const ChainId chain = Add("a", manifest);
    uint32_t preemptions = 0, differ = 0;
    for (int round = 0; round < 2; ++round) {
      std::vector<std::unique_ptr<Reader>> readers, others;
      for (uint32_t i = 0; i < requests; ++i) {
        readers.push_back(Submit(MixedRequest(chain, i, alone)));
        if (i % 8 != 0) continue;
        GenerationRequest other = MixedRequest(chain, i, alone);
        other.deterministic = false;
        others.push_back(Submit(std::move(other)));
      }
      for (uint32_t i = 0; i < requests; ++i) {
        const Answer answer = readers[i]->Wait();
        ASSERT_TRUE(answer.error.ok()) << answer.error;
        differ += Equal(answer, alone[i]) ? 0 : 1;
        EXPECT_EQ(answer.tokens[0], alone[i].tokens[0])
            << kernels::InfoOf(dtype).name << " request " << i << " round " << round;
        preemptions += answer.finished[0].preemptions;
      }
      for (const std::unique_ptr<Reader>& other : others) EXPECT_TRUE(other->Wait().error.ok());
    }
    std::printf("%s: %u of %u answers differ from those alone, %u preemptions\n",
                kernels::InfoOf(dtype).name, differ, 2 * requests, preemptions);
    EXPECT_EQ(differ, 0u) << kernels::InfoOf(dtype).name;
    EXPECT_GT(preemptions, 0u);
    EXPECT_GT(engine_->Stats().cache.prefix_hits_tokens, 0u);
  }

  const DependentBackend* dependent_ = nullptr;
};

TEST_F(DeterministicTest, TwoHundredMixedRequestsAnswerAsAlone) {
  ExpectEqualAlone(DType::kBF16, 200);
}

TEST_F(DeterministicTest, EveryWeightTypeAnswersAsAlone) {
  for (const DType dtype : {DType::kF32, DType::kQ8_0, DType::kF8Channel, DType::kF8Block128,
                            DType::kI8Channel, DType::kI4G128, DType::kI4G64Zero}) {
    ExpectEqualAlone(dtype, 20);
  }
}

TEST_F(DeterministicTest, StepsHaveOneRole) {
  if (!backend_->memory().host_addressable()) GTEST_SKIP() << "of the host's kernels";
  UseDependent();
  ExpectEqualAlone(DType::kBF16, 40);
  EXPECT_GT(dependent_->steps().prompts, 0);
  EXPECT_GT(dependent_->steps().decoding, 0);
}

TEST_F(DeterministicTest, OtherRequestsKeepTheFastSteps) {
  if (!backend_->memory().host_addressable()) GTEST_SKIP() << "of the host's kernels";
  UseDependent();
  Start({.determinism = Determinism::kOnRequest});
  const ChainId chain = Add("a", tiny_.Make("a", {}, {1, 2, 3}, 9));
  EXPECT_TRUE(Run(Ask(chain, Prompt(1, 100), 5)).error.ok());
  EXPECT_GT(dependent_->steps().fast, 0);
  EXPECT_EQ(dependent_->steps().prompts + dependent_->steps().decoding, 0);
  // What they left in the cache is not what a deterministic request would have computed.
  GenerationRequest request = Ask(chain, Prompt(1, 100), 5);
  request.deterministic = true;
  const Answer first = Run(request);
  EXPECT_EQ(first.started->cached_tokens, 0u);
  request.id = RequestId(next_request_++);
  EXPECT_EQ(Run(request).started->cached_tokens, 64u);
  const int fast = dependent_->steps().fast;
  Start({.determinism = Determinism::kAlways});
  const ChainId again = Add("a", tiny_.Make("a", {}, {1, 2, 3}, 9));
  EXPECT_TRUE(Run(Ask(again, Prompt(1, 100), 5)).error.ok());
  EXPECT_EQ(dependent_->steps().fast, fast);
}

// Its own kernels computed an answer; those of prompts give the same tokens other bits.
TEST_F(DeterministicTest, AnswersAreNotFoundAsPrompts) {
  if (!backend_->memory().host_addressable()) GTEST_SKIP() << "of the host's kernels";
  UseDependent();
  Start({.determinism = Determinism::kOnRequest});
  const ChainId chain = Add("a", tiny_.Make("a", {}, {1, 2, 3}, 9));
  for (const bool deterministic : {false, true}) {
    GenerationRequest request = Ask(chain, Prompt(1, 100), 60);
    request.deterministic = deterministic;
    const Answer first = Run(request);
    request.id = RequestId(next_request_++);
    request.prompt.insert(request.prompt.end(), first.tokens[0].begin(), first.tokens[0].end());
    EXPECT_EQ(Run(request).started->cached_tokens, deterministic ? 64u : 128u);
  }
}

TEST_F(DeterministicTest, ChoicesAnswerAsAlone) {
  Start({.determinism = Determinism::kOnRequest});
  const ChainId chain = Add("a", tiny_.Make("a", Shape(DType::kBF16), {1, 2, 3}, 9));
  GenerationRequest request = Ask(chain, Prompt(3, 90), 30);
  request.deterministic = true;
  request.sampling.temperature = 1.0f;
  request.sampling.seed = 77;
  request.n = 4;
  const Answer many = Run(std::move(request));
  ASSERT_TRUE(many.error.ok()) << many.error;
  for (uint32_t c = 0; c < 4; ++c) {
    GenerationRequest single = Ask(chain, Prompt(3, 90), 30);
    single.deterministic = true;
    single.sampling.temperature = 1.0f;
    single.sampling.seed = 77 + c;
    EXPECT_EQ(Run(std::move(single)).tokens[0], many.tokens[c]) << "choice " << c;
  }
}

TEST_F(DeterministicTest, WhatCannotBeGivenIsRefusedByName) {
  if (!backend_->memory().host_addressable()) GTEST_SKIP() << "of the host's kernels";
  const blockzoo::ChainManifest manifest = tiny_.Make("a", {}, {1, 2, 3}, 9);
  const auto refusal = [&](EngineOptions options) {
    Start(std::move(options));
    GenerationRequest request = Ask(Add("a", manifest), Prompt(1, 10), 5);
    request.deterministic = true;
    return Run(std::move(request)).error;
  };
  UseDependent();
  const Status off = refusal({});
  EXPECT_EQ(off.code(), absl::StatusCode::kUnimplemented);
  EXPECT_TRUE(absl::StrContains(off.message(), "engine.deterministic is off")) << off;

  UseDependent(absl::InternalError("no algorithm keeps the bits of a row"));
  const Status lacking = refusal({.determinism = Determinism::kOnRequest});
  EXPECT_EQ(lacking.code(), absl::StatusCode::kUnimplemented);
  EXPECT_TRUE(absl::StrContains(lacking.message(), "no algorithm keeps the bits")) << lacking;

  Start({.determinism = Determinism::kAlways});
  const Status added =
      engine_->AddChain(ChainId(1), {.name = "a", .chain = Bind(manifest), .tokens = nullptr});
  EXPECT_TRUE(absl::StrContains(added.message(), "no algorithm keeps the bits")) << added;
}

}  // namespace
}  // namespace tessera::testing
