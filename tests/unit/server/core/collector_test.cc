#include "server/core/collector.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>

#include "tests/unit/server/core/frontend_fixture.h"

namespace tessera::server {
namespace {

class CollectorTest : public testing::FrontendFixture {
 protected:
  CollectedOutput Collect(GenerationSpec spec) {
    std::promise<CollectedOutput> promise;
    auto handle = StartCollected(*frontend_, std::move(spec), [&](CollectedOutput output) {
      promise.set_value(std::move(output));
    });
    EXPECT_TRUE(handle.ok()) << handle.status();
    if (!handle.ok()) return {};
    return promise.get_future().get();
  }
};

TEST_F(CollectorTest, TheWholeIsTheSumOfTheStream) {
  StartFrontend();
  const Running stream = Run(Ask("hello", 50));
  ASSERT_TRUE(stream.reader->WaitForEnd());
  const CollectedOutput whole = Collect(Ask("hello", 50));
  EXPECT_TRUE(whole.error.ok());
  ASSERT_TRUE(whole.started.has_value());
  EXPECT_EQ(whole.started->prompt_tokens, 5u);
  ASSERT_EQ(whole.choices.size(), 1u);
  EXPECT_EQ(whole.choices[0].text, stream.reader->text());
  EXPECT_EQ(whole.choices[0].token_count, 50u);
  EXPECT_EQ(whole.choices[0].tokens.size(), 50u);
  ASSERT_EQ(whole.finished.size(), 1u);
  EXPECT_TRUE(whole.finished[0].last);
  EXPECT_TRUE(NothingHeld());
}

TEST_F(CollectorTest, ChoicesAreInOrder) {
  StartFrontend();
  GenerationSpec spec = Ask("x", 6);
  spec.sampling.n = 4;
  spec.sampling.temperature = 1.5f;
  spec.stopping.ignore_eos = false;
  const CollectedOutput whole = Collect(spec);
  ASSERT_EQ(whole.choices.size(), 4u);
  ASSERT_EQ(whole.finished.size(), 4u);
  for (uint32_t i = 0; i < 4; ++i) {
    EXPECT_EQ(whole.choices[i].choice, i);
    EXPECT_EQ(whole.finished[i].choice, i);
    EXPECT_EQ(whole.choices[i].tokens.size(), whole.finished[i].usage.completion_tokens);
  }
}

TEST_F(CollectorTest, AScoredContinuationHasItsTokensAlone) {
  StartFrontend();
  GenerationSpec spec;
  spec.model = "a";
  spec.prompt.input = PromptSpec::Input::kText;
  spec.prompt.text = "hello";
  spec.continuation = PromptSpec{.input = PromptSpec::Input::kText, .text = " you"};
  const CollectedOutput whole = Collect(spec);
  EXPECT_TRUE(whole.error.ok()) << whole.error;
  ASSERT_EQ(whole.prompt_tokens.size(), 4u);
  std::string text;
  for (const OutputToken& token : whole.prompt_tokens) {
    text += token.raw;
    EXPECT_TRUE(token.has_logprob);
    EXPECT_LE(token.logprob, 0.0f);
  }
  EXPECT_EQ(text, " you");
  EXPECT_EQ(whole.finished.at(0).usage.completion_tokens, 0u);
}

TEST_F(CollectorTest, ErrorsComeWithTheOutputOrAtOnce) {
  StartFrontend();
  const CollectedOutput failed = Collect(Ask("x", kContext));
  EXPECT_EQ(failed.error.code(), absl::StatusCode::kInvalidArgument);
  GenerationSpec unknown = Ask("x", 1);
  unknown.model = "nobody";
  const auto refused =
      StartCollected(*frontend_, unknown, [](const CollectedOutput&) { FAIL() << "called"; });
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kNotFound);
}

TEST_F(CollectorTest, AfterACancelNobodyIsCalled) {
  StartFrontend();
  std::atomic<bool> called{false};
  auto handle = StartCollected(*frontend_, Ask("x", kEndless),
                               [&](const CollectedOutput&) { called = true; });
  ASSERT_TRUE(handle.ok());
  ASSERT_TRUE(Eventually([&] { return engine_->Stats().running == 1; }));
  (*handle)->Cancel();
  EXPECT_TRUE(NothingHeld());
  *handle = nullptr;
  pool_->Stop();
  EXPECT_FALSE(called);
}

}  // namespace
}  // namespace tessera::server
