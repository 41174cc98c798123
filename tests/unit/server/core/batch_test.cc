#include "server/core/batch.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>

#include "tests/unit/server/core/frontend_fixture.h"

namespace tessera::server {
namespace {

using Failure = Batch::Failure;
using Order = Batch::Order;

class BatchTest : public testing::FrontendFixture {
 protected:
  std::vector<CollectedOutput> Run(std::vector<GenerationSpec> specs, Failure failure,
                                   Order order) {
    std::promise<std::vector<CollectedOutput>> promise;
    const auto batch = Batch::Start(frontend_.get(), std::move(specs), failure, order,
                                    [&promise](std::vector<CollectedOutput> outputs) {
                                      promise.set_value(std::move(outputs));
                                    });
    return promise.get_future().get();
  }
  static GenerationSpec Score(const std::string& context, const std::string& continuation) {
    GenerationSpec spec = Ask(context, 1);
    spec.continuation = PromptSpec{.input = PromptSpec::Input::kText, .text = continuation};
    return spec;
  }
  static GenerationSpec Embed(const std::string& text, const EmbeddingSpec& embedding) {
    GenerationSpec spec = Ask(text, 1);
    spec.embedding = embedding;
    return spec;
  }
  // Past the fixture's function of the same name.
  Running One(GenerationSpec spec) { return FrontendFixture::Run(std::move(spec)); }
};

TEST_F(BatchTest, OutputsKeepTheirOrderAndErrorsTheirPlace) {
  StartFrontend();
  GenerationSpec unknown = Ask("x", 1);
  unknown.model = "nobody";
  for (const Order order : {Order::kAtOnce, Order::kFirstAhead}) {
    const auto outputs =
        Run({Ask("one", 20), unknown, Ask("x", kContext), Ask("four", 3)}, Failure::kIsKept, order);
    ASSERT_EQ(outputs.size(), 4u);
    EXPECT_EQ(outputs[0].choices.at(0).token_count, 20u);
    EXPECT_EQ(outputs[1].error.code(), absl::StatusCode::kNotFound);
    EXPECT_EQ(outputs[2].error.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(outputs[3].choices.at(0).token_count, 3u);
    EXPECT_EQ(FirstFailure(outputs), 1u);
  }
  EXPECT_TRUE(NothingHeld());
}

TEST_F(BatchTest, OfNothingEndsAtOnce) {
  StartFrontend();
  EXPECT_TRUE(Run({}, Failure::kEndsAll, Order::kFirstAhead).empty());
}

TEST_F(BatchTest, AFailureEndsAllWhereOneIsEnough) {
  StartFrontend();
  GenerationSpec wrong = Ask("x", 1);
  wrong.sampling.top_p = 7.0f;
  // One that is not valid keeps the others from starting; one that fails later ends them.
  for (GenerationSpec& spec : std::vector<GenerationSpec>{wrong, Ask("x", kContext)}) {
    const auto outputs =
        Run({Ask("a", kEndless), std::move(spec)}, Failure::kEndsAll, Order::kAtOnce);
    ASSERT_EQ(FirstFailure(outputs), 1u);
    EXPECT_TRUE(outputs[0].finished.empty());
    EXPECT_TRUE(NothingHeld());
  }
}

TEST_F(BatchTest, AfterACancelNobodyIsCalled) {
  StartFrontend();
  for (const Order order : {Order::kAtOnce, Order::kFirstAhead}) {
    std::atomic<bool> called{false};
    const auto batch =
        Batch::Start(frontend_.get(), {Ask("a", kEndless), Ask("b", kEndless)}, Failure::kIsKept,
                     order, [&called](const auto&) { called = true; });
    ASSERT_TRUE(Eventually([&] { return engine_->Stats().running > 0; }));
    batch->Cancel();
    EXPECT_TRUE(NothingHeld());
    EXPECT_FALSE(called);
  }
}

// What the first computes of a context, the others find.
TEST_F(BatchTest, ContinuationsComputeTheirContextOnce) {
  StartFrontend();
  const std::string context(640, 'x');
  const auto outputs = Run({Score(context, "ab"), Score(context, "cd"), Score(context, "efg")},
                           Failure::kEndsAll, Order::kFirstAhead);
  ASSERT_EQ(FirstFailure(outputs), 3u);
  EXPECT_EQ(outputs[0].started->cached_tokens, 0u);
  EXPECT_EQ(outputs[1].started->cached_tokens, 576u);
  EXPECT_EQ(outputs[2].started->cached_tokens, 576u);
  EXPECT_EQ(outputs[2].prompt_tokens.size(), 3u);
  const auto alone = Run({Score(context, "cd")}, Failure::kEndsAll, Order::kAtOnce);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(alone[0].prompt_tokens[i].logprob, outputs[1].prompt_tokens[i].logprob);
  }
}

TEST_F(BatchTest, VectorsAreFinishedAsAsked) {
  StartFrontend();
  using Length = EmbeddingSpec::Length;
  const auto outputs = Run({Embed("hello", {.length = Length::kAsIs}), Embed("hello", {}),
                            Embed("hello", {.dimensions = 5})},
                           Failure::kEndsAll, Order::kAtOnce);
  ASSERT_EQ(FirstFailure(outputs), 3u);
  const std::vector<float>& raw = outputs[0].embedding;
  ASSERT_EQ(raw.size(), chain_->width());
  EXPECT_EQ(outputs[1].embedding, FinishEmbedding(raw, {}));
  EXPECT_EQ(outputs[2].embedding, FinishEmbedding(raw, {.dimensions = 5}));
  EXPECT_EQ(outputs[0].finished.at(0).usage.completion_tokens, 0u);
  EXPECT_EQ(outputs[0].started->prompt_tokens, 5u);
  const auto refused = Run({Embed("hello", {.dimensions = 65})}, Failure::kEndsAll, Order::kAtOnce);
  EXPECT_EQ(ReportOf(refused[0].error).details.violations.at(0).field, "dimensions");
}

TEST_F(BatchTest, APromptThatFillsTheContextIsScored) {
  StartFrontend();
  const auto outputs = Run(
      {Score(std::string(kContext - 2, 'x'), "ab"), Score(std::string(kContext - 1, 'x'), "ab")},
      Failure::kIsKept, Order::kAtOnce);
  EXPECT_TRUE(outputs[0].error.ok()) << outputs[0].error;
  EXPECT_EQ(testing::ConditionOf(outputs[1].error), Condition::kContextLength);
}

}  // namespace
}  // namespace tessera::server
