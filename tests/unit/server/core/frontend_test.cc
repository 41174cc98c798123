#include "server/core/frontend.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>

#include "tests/unit/server/core/frontend_fixture.h"

namespace tessera::server {
namespace {

using scheduler::FinishReason;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::BatchReader;
using testing::ConditionOf;

class FrontendTest : public testing::FrontendFixture {};

TEST_F(FrontendTest, StreamsAnAnswerAndGivesEverythingBack) {
  StartFrontend();
  const Running one = Run(Ask("hello", 40));
  ASSERT_TRUE(one.reader->WaitForEnd());
  EXPECT_TRUE(one.reader->error().ok()) << one.reader->error();
  ASSERT_TRUE(one.reader->started().has_value());
  EXPECT_EQ(one.reader->started()->prompt_tokens, 5u);
  EXPECT_EQ(one.reader->started()->request_id, one.handle->request_id());
  EXPECT_EQ(one.reader->started()->model_revision, "a1");
  EXPECT_EQ(one.reader->tokens(), 40u);
  ASSERT_EQ(one.reader->finished().size(), 1u);
  EXPECT_EQ(one.reader->finished()[0].reason, FinishReason::kMaxTokens);
  EXPECT_EQ(one.reader->finished()[0].usage.completion_tokens, 40u);
  EXPECT_TRUE(NothingHeld());
  EXPECT_EQ(one.handle->model(), nullptr);
}

TEST_F(FrontendTest, TheSinkIsCalledOnThePoolEvenWhenItFailsAtOnce) {
  StartFrontend();
  source_->Fail("a", absl::InternalError("broken"));
  ASSERT_TRUE(Run(Ask("x", 1)).reader->WaitForEnd());
  // Now the registry answers on the caller's thread.
  const Running one = Run(Ask("x", 1));
  ASSERT_TRUE(one.reader->WaitForEnd());
  EXPECT_NE(one.reader->thread(), std::this_thread::get_id());
  EXPECT_EQ(ConditionOf(one.reader->error()), Condition::kModelFailed);
  EXPECT_TRUE(NothingHeld());
}

TEST_F(FrontendTest, RefusalsLeaveNothingBehind) {
  StartFrontend();
  GenerationSpec bad = Ask("x", 1);
  bad.sampling.top_p = 7.0f;
  EXPECT_EQ(ConditionOf(Refusal(bad)), Condition::kInvalidParameter);
  GenerationSpec unknown = Ask("x", 1);
  unknown.model = "nobody";
  EXPECT_EQ(ConditionOf(Refusal(unknown)), Condition::kModelNotFound);
  frontend_->SetIntake(Frontend::Intake::kDraining);
  EXPECT_EQ(ConditionOf(Refusal(Ask("x", 1))), Condition::kDraining);
  EXPECT_TRUE(NothingHeld());
  EXPECT_EQ(source_->loads("a"), 0);
}

TEST_F(FrontendTest, AFullQueueAnswersAtOnceWithAdvice) {
  scheduler::EngineOptions options;
  options.inbox.max_requests = 2;
  StartFrontend(options);
  source_->Hold();
  const Running first = Run(Ask("x", 3));
  const Running second = Run(Ask("y", 3));
  const Status refused = Refusal(Ask("z", 3));
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ConditionOf(refused), Condition::kQueueFull);
  EXPECT_GT(ReportOf(refused).details.retry_after.value_or(Duration()), Duration());
  source_->Release();
  EXPECT_TRUE(first.reader->WaitForEnd() && second.reader->WaitForEnd());
  EXPECT_TRUE(first.reader->error().ok() && second.reader->error().ok());
  const Running third = Run(Ask("z", 3));
  EXPECT_TRUE(third.reader->WaitForEnd() && third.reader->error().ok());
  EXPECT_TRUE(NothingHeld());
}

TEST_F(FrontendTest, TooManyWaitingPromptTokensAreRefusedWithAdvice) {
  scheduler::EngineOptions options;
  options.max_running = 1;
  options.inbox.max_prompt_tokens = 30;
  StartFrontend(options);
  const Running runs = Run(Ask("x", kEndless));
  ASSERT_TRUE(runs.reader->WaitForTokens(1));
  const Running waits = Run(Ask(std::string(20, 'w'), 3));
  ASSERT_TRUE(Eventually([&] { return engine_->inbox().waiting_prompt_tokens() == 20; }));
  const Running refused = Run(Ask(std::string(20, 'r'), 3));
  ASSERT_TRUE(refused.reader->WaitForEnd());
  EXPECT_EQ(ConditionOf(refused.reader->error()), Condition::kQueueFull);
  EXPECT_TRUE(ReportOf(refused.reader->error()).details.retry_after.has_value());
  EXPECT_EQ(engine_->inbox().waiting_requests(), 1u);
  runs.handle->Cancel();
  EXPECT_TRUE(waits.reader->WaitForEnd());
  EXPECT_EQ(waits.reader->tokens(), 3u);
  EXPECT_TRUE(NothingHeld());
}

TEST_F(FrontendTest, WhoWaitsTooLongInTheQueueIsTold) {
  scheduler::EngineOptions options;
  options.max_running = 1;
  StartFrontend(options);
  const Running runs = Run(Ask("x", kEndless));
  ASSERT_TRUE(runs.reader->WaitForTokens(1));
  GenerationSpec spec = Ask("y", 1);
  spec.scheduling.max_queue_wait = milliseconds(20);
  const Running late = Run(spec);
  ASSERT_TRUE(late.reader->WaitForEnd());
  EXPECT_EQ(ConditionOf(late.reader->error()), Condition::kQueueTimeout);
  EXPECT_FALSE(runs.reader->ended());
}

TEST_F(FrontendTest, ARequestIdIsTakenWhileItsRequestRuns) {
  StartFrontend();
  GenerationSpec spec = Ask("x", kEndless);
  spec.request_id = "mine";
  const Running one = Run(spec);
  const Status refused = Refusal(spec);
  EXPECT_EQ(refused.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(ReportOf(refused).details.resource_name, "mine");
  EXPECT_EQ(frontend_->open_requests(), 1u);
  one.handle->Cancel();
  EXPECT_TRUE(NothingHeld());
  spec.stopping.max_tokens = 2;
  const Running again = Run(spec);
  EXPECT_TRUE(again.reader->WaitForEnd());
  EXPECT_EQ(again.reader->tokens(), 2u);
}

TEST_F(FrontendTest, DrainingLetsRunningRequestsEnd) {
  StartFrontend();
  const Running one = Run(Ask("x", 300));
  frontend_->SetIntake(Frontend::Intake::kDraining);
  EXPECT_EQ(frontend_->intake(), Frontend::Intake::kDraining);
  const Status refused = Refusal(Ask("y", 1));
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(ReportOf(refused).details.retry_after.has_value());
  ASSERT_TRUE(one.reader->WaitForEnd());
  EXPECT_EQ(one.reader->tokens(), 300u);
  frontend_->SetIntake(Frontend::Intake::kOpen);
  EXPECT_TRUE(Run(Ask("y", 1)).reader->WaitForEnd());
}

TEST_F(FrontendTest, CancelFreesWhateverThePhaseHolds) {
  scheduler::EngineOptions options;
  options.max_running = 1;
  StartFrontend(options);
  source_->Hold();
  const Running loads = Run(Ask("x", 3));
  source_->WaitForLoad("a", 1);
  EXPECT_EQ(engine_->inbox().waiting_requests(), 1u);
  loads.handle->Cancel();
  EXPECT_EQ(engine_->inbox().waiting_requests(), 0u);
  source_->Release();

  const Running runs = Run(Ask("x", kEndless));
  ASSERT_TRUE(runs.reader->WaitForTokens(3));
  const Running waits = Run(Ask("y", kEndless));
  ASSERT_TRUE(Eventually([&] { return engine_->Stats().waiting == 1; }));
  waits.handle->Cancel();
  ASSERT_TRUE(Eventually([&] { return engine_->Stats().waiting == 0; }));
  EXPECT_GT(engine_->Stats().cache.used_bytes, 0u);
  runs.handle->Cancel();
  EXPECT_TRUE(NothingHeld());
  // Nobody is told after he has gone.
  for (const Running* one : {&loads, &runs, &waits}) {
    OutputBatch batch;
    EXPECT_FALSE(one->handle->Take(batch));
    EXPECT_FALSE(one->reader->ended());
  }
}

TEST_F(FrontendTest, DestroyingTheHandleIsCancelling) {
  StartFrontend();
  Running one = Run(Ask("x", kEndless));
  ASSERT_TRUE(one.reader->WaitForTokens(3));
  one.handle.reset();
  EXPECT_TRUE(NothingHeld());
}

TEST_F(FrontendTest, CancelByIdEndsWithAStatusAndTheFiguresSoFar) {
  StartFrontend();
  GenerationSpec spec = Ask("x", kEndless);
  spec.request_id = "one";
  const Running one = Run(spec);
  ASSERT_TRUE(one.reader->WaitForTokens(3));
  EXPECT_EQ(frontend_->CancelRequests({"other", "one"}), std::vector<std::string>{"one"});
  ASSERT_TRUE(one.reader->WaitForEnd());
  const ErrorReport report = ReportOf(one.reader->error());
  EXPECT_EQ(report.row->code, absl::StatusCode::kCancelled);
  const std::vector<std::pair<std::string, std::string>> figures = {
      {"tokens_sent", absl::StrCat(one.reader->tokens())}};
  EXPECT_EQ(report.details.metadata, figures);
  EXPECT_TRUE(NothingHeld());
  EXPECT_TRUE(frontend_->CancelRequests({"one"}).empty());
}

TEST_F(FrontendTest, EndedByTheServerAfterOutputItIsAborted) {
  StartFrontend();
  GenerationSpec spec = Ask("x", kEndless);
  spec.output.stream_interval = 100'000;
  const Running held_back = Run(spec);
  const Running streams = Run(Ask("y", kEndless));
  ASSERT_TRUE(streams.reader->WaitForTokens(3));
  ASSERT_TRUE(Eventually([&] { return held_back.handle->model() != nullptr; }));
  const ChainId chain = streams.handle->model()->chain_id;
  EXPECT_EQ(frontend_->EndRequests(ChainId(9999), MakeError(Condition::kDraining, "no")), 0u);
  ASSERT_TRUE(Eventually([&] { return engine_->Stats().output_tokens > 100; }));
  EXPECT_EQ(frontend_->EndRequests(chain, MakeError(Condition::kDraining, "stopping")), 2u);
  ASSERT_TRUE(streams.reader->WaitForEnd() && held_back.reader->WaitForEnd());
  EXPECT_EQ(streams.reader->error().code(), absl::StatusCode::kAborted);
  // What an interval held back is handed out first.
  EXPECT_GT(held_back.reader->tokens(), 0u);
  EXPECT_EQ(held_back.reader->error().code(), absl::StatusCode::kAborted);
  EXPECT_TRUE(NothingHeld());
}

TEST_F(FrontendTest, TheDeadlineHoldsWhileTheModelLoads) {
  StartFrontend();
  source_->Hold();
  GenerationSpec spec = Ask("x", 3);
  spec.deadline = SystemClock().Now() + milliseconds(30);
  const Running late = Run(spec);
  const Running patient = Run(Ask("x", 3));
  ASSERT_TRUE(late.reader->WaitForEnd());
  EXPECT_EQ(late.reader->error().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(engine_->inbox().waiting_requests(), 1u);
  EXPECT_FALSE(patient.reader->ended());
  source_->Release();
  ASSERT_TRUE(patient.reader->WaitForEnd());
  EXPECT_EQ(patient.reader->tokens(), 3u);
  EXPECT_TRUE(NothingHeld());
}

TEST_F(FrontendTest, TheDeadlineHoldsInTheEngine) {
  StartFrontend();
  ASSERT_TRUE(Run(Ask("x", 1)).reader->WaitForEnd());  // loaded
  GenerationSpec spec = Ask("x", kEndless);
  spec.deadline = SystemClock().Now() + milliseconds(100);
  const Running late = Run(spec);
  ASSERT_TRUE(late.reader->WaitForEnd());
  EXPECT_EQ(late.reader->error().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(NothingHeld());
}

TEST_F(FrontendTest, LoadingIsSeen) {
  StartFrontend();
  GenerationSpec spec = Ask("x", 3);
  spec.output.progress = true;
  const Running one = Run(spec);
  ASSERT_TRUE(one.reader->WaitForEnd());
  bool seen = false;
  for (const OutputProgress& progress : one.reader->progress()) {
    if (progress.load_percent) seen = *progress.load_percent == 25;
  }
  EXPECT_TRUE(seen);
  EXPECT_EQ(one.reader->tokens(), 3u);
}

class SlowReaderTest : public FrontendTest {
 protected:
  void StartParking(Duration limit) {
    scheduler::EngineOptions options;
    options.park_above_tokens = 16;
    options.park_limit = limit;
    Settings settings;
    settings.limits.stream_buffer.tokens = 16;
    settings.limits.stream_buffer.stall = limit;
    StartFrontend(options, settings);
  }
};

TEST_F(SlowReaderTest, IsParkedAndGoesOnWhenItReads) {
  StartParking(std::chrono::minutes(1));
  const Running slow = Run(Ask("x", 300), BatchReader::Mode::kPaused);
  ASSERT_TRUE(Eventually([&] { return engine_->Stats().parked == 1; }));
  const uint64_t made = engine_->Stats().output_tokens;
  EXPECT_LT(made, 100u);
  // Nobody else is slowed down, and no more is made for it meanwhile.
  const Running other = Run(Ask("y", 200));
  ASSERT_TRUE(other.reader->WaitForEnd());
  EXPECT_EQ(other.reader->tokens(), 200u);
  EXPECT_EQ(engine_->Stats().output_tokens, made + 200);
  EXPECT_LE(slow.reader->calls(), 2u);
  slow.reader->Resume(*slow.handle);
  ASSERT_TRUE(slow.reader->WaitForEnd());
  EXPECT_EQ(slow.reader->tokens(), 300u);
  EXPECT_TRUE(slow.reader->error().ok());
  EXPECT_TRUE(NothingHeld());
}

TEST_F(SlowReaderTest, IsEndedPastTheLimit) {
  StartParking(milliseconds(50));
  const Running slow = Run(Ask("x", kEndless), BatchReader::Mode::kPaused);
  ASSERT_TRUE(Eventually([&] { return engine_->Stats().running == 1; }));
  ASSERT_TRUE(Eventually([&] { return engine_->Stats().running == 0; }));
  EXPECT_EQ(engine_->Stats().cache.used_bytes, 0u);
  slow.reader->Resume(*slow.handle);
  ASSERT_TRUE(slow.reader->WaitForEnd());
  const ErrorReport report = ReportOf(slow.reader->error());
  EXPECT_EQ(report.details.condition, Condition::kSlowConsumer);
  EXPECT_EQ(report.row->code, absl::StatusCode::kAborted);
  EXPECT_GT(slow.reader->tokens(), 0u);  // what was made before is delivered
  EXPECT_TRUE(NothingHeld());
}

TEST_F(FrontendTest, ChoicesEndEachOnItsOwn) {
  StartFrontend();
  GenerationSpec spec = Ask("x", 10);
  spec.sampling.n = 3;
  spec.sampling.temperature = 1.0f;
  const Running one = Run(spec);
  ASSERT_TRUE(one.reader->WaitForEnd());
  ASSERT_EQ(one.reader->finished().size(), 3u);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(one.reader->finished()[i].last, i == 2);
  EXPECT_EQ(one.reader->tokens(), 30u);
}

TEST_F(FrontendTest, WhatOnlyTheModelKnowsComesAsAnError) {
  StartFrontend();
  const auto error = [this](const GenerationSpec& spec) {
    const Running one = Run(spec);
    EXPECT_TRUE(one.reader->WaitForEnd());
    EXPECT_TRUE(one.reader->finished().empty());
    return ReportOf(one.reader->error());
  };
  const ErrorReport too_long = error(Ask("x", kContext));
  EXPECT_EQ(too_long.details.condition, Condition::kContextLength);
  ASSERT_EQ(too_long.details.violations.size(), 1u);
  EXPECT_EQ(too_long.details.violations[0].field, "prompt");
  EXPECT_EQ(error(Ask("", 1)).details.violations.at(0).field, "prompt");
  GenerationSpec foreign = Ask("x", 1);
  foreign.stopping.stop_token_ids = {testing::kByteVocab};
  EXPECT_EQ(error(foreign).details.violations.at(0).field, "stopping.stop_token_ids[0]");
  EXPECT_EQ(error(Ask("\xff", 1)).details.violations.at(0).field, "prompt.text");
  GenerationSpec chat = Ask("", 1);
  chat.prompt = PromptSpec();
  chat.chat = ChatSpec{.messages = {{.role = "user", .content = "hi"}}};
  EXPECT_EQ(error(chat).details.condition, Condition::kTemplateFailed);
  EXPECT_TRUE(NothingHeld());
}

TEST_F(FrontendTest, ARunningStreamKeepsItsChainOverAReload) {
  StartFrontend();
  const Running alone = Run(Ask("x", 600));
  ASSERT_TRUE(alone.reader->WaitForEnd());
  const Running old = Run(Ask("x", 600));
  ASSERT_TRUE(Eventually([&] { return old.handle->model() != nullptr; }));
  std::promise<void> reloaded;
  registry_->Reload("a", nullptr, [&](const StatusOr<ModelPtr>& model) {
    EXPECT_TRUE(model.ok());
    reloaded.set_value();
  });
  reloaded.get_future().wait();
  const Running fresh = Run(Ask("x", 5));
  ASSERT_TRUE(fresh.reader->WaitForEnd() && old.reader->WaitForEnd());
  EXPECT_EQ(fresh.reader->started()->model_revision, "a2");
  EXPECT_EQ(old.reader->started()->model_revision, "a1");
  EXPECT_EQ(old.reader->text(), alone.reader->text());
  EXPECT_TRUE(Eventually([&] { return source_->removed() == std::vector<std::string>{"a1"}; }));
}

TEST_F(FrontendTest, WithModelRunsItsJobOnce) {
  StartFrontend();
  const auto answer = [this](const std::string& name, std::optional<TimePoint> deadline) {
    auto promise = std::make_shared<std::promise<Status>>();
    frontend_->WithModel(name, deadline, [promise](const StatusOr<ModelPtr>& model) {
      promise->set_value(model.status());  // throws when called twice
    });
    return promise->get_future().get();
  };
  EXPECT_TRUE(answer("a", SystemClock().Now() + std::chrono::minutes(1)).ok());
  EXPECT_EQ(ConditionOf(answer("nobody", std::nullopt)), Condition::kModelNotFound);
  source_->Hold();
  EXPECT_EQ(ConditionOf(answer("b", SystemClock().Now() + milliseconds(20))), Condition::kDeadline);
  source_->Release();
}

TEST_F(FrontendTest, WithModelRefusesWhenTooMuchWaits) {
  StartFrontend();
  ASSERT_TRUE(Run(Ask("x", 1)).reader->WaitForEnd());
  std::promise<void> open;
  std::shared_future<void> gate = open.get_future().share();
  std::atomic<int> ran{0}, refused{0};
  // Two threads, four places: the rest is refused at once.
  for (int i = 0; i < 20; ++i) {
    frontend_->WithModel("a", std::nullopt, [&, gate](const StatusOr<ModelPtr>& model) {
      if (!model.ok()) {
        EXPECT_EQ(ConditionOf(model.status()), Condition::kQueueFull);
        ++refused;
        return;
      }
      gate.wait();
      ++ran;
    });
  }
  EXPECT_GE(refused, 14);
  open.set_value();
  EXPECT_TRUE(Eventually([&] { return ran + refused == 20; }));
  EXPECT_GE(ran, 4);
}

TEST_F(FrontendTest, ItsEndEndsWhatIsOpen) {
  StartFrontend();
  const Running one = Run(Ask("x", kEndless));
  ASSERT_TRUE(one.reader->WaitForTokens(1));
  frontend_.reset();
  EXPECT_TRUE(Eventually([&] {
    const scheduler::EngineStats stats = engine_->Stats();
    return stats.running == 0 && stats.cache.used_bytes == 0;
  }));
  OutputBatch batch;
  EXPECT_FALSE(one.handle->Take(batch));
}

}  // namespace
}  // namespace tessera::server
