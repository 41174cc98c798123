#include "server/grpc/response_translator.h"

#include <gtest/gtest.h>

namespace tessera::server {
namespace {

OutputToken Token(TokenId id) {
  OutputToken token;
  token.id = id;
  token.raw = "\xE2\x82";  // part of a character
  token.has_logprob = true;
  token.logprob = -1.5f;
  token.rank = 3;
  token.top = {{9, -0.5f, "\xff"}, {id, -1.5f, "\xE2\x82"}};
  return token;
}

TEST(ResponseTranslator, Tokens) {
  v1::Token proto;
  ToProto(Token(4), &proto);
  EXPECT_EQ(proto.id(), 4u);
  EXPECT_EQ(proto.raw(), "\xE2\x82");
  EXPECT_EQ(proto.logprob(), -1.5f);
  EXPECT_EQ(proto.rank(), 3u);
  ASSERT_EQ(proto.top_size(), 2);
  EXPECT_EQ(proto.top(0).id(), 9u);
  EXPECT_EQ(proto.top(0).logprob(), -0.5f);
  EXPECT_EQ(proto.top(0).raw(), "\xff");
  v1::Token plain;
  ToProto(OutputToken{.id = 1, .raw = "a"}, &plain);
  EXPECT_FALSE(plain.has_logprob());
  EXPECT_EQ(plain.top_size(), 0);
}

TEST(ResponseTranslator, Endings) {
  OutputFinished finished;
  finished.choice = 2;
  finished.reason = scheduler::FinishReason::kStop;
  finished.stop_text = "END";
  finished.stop_token = 7;
  finished.usage = {.prompt_tokens = 5, .cached_tokens = 4, .completion_tokens = 3};
  finished.queue = std::chrono::milliseconds(1500);
  finished.prefill = Duration(2);
  finished.decode = Duration(3);
  finished.preemptions = 6;
  finished.last = true;
  v1::Finished proto;
  ToProto(finished, &proto);
  EXPECT_EQ(proto.choice(), 2u);
  EXPECT_EQ(proto.reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(proto.stop_text(), "END");
  EXPECT_EQ(proto.usage().prompt_tokens(), 5u);
  EXPECT_EQ(proto.usage().cached_tokens(), 4u);
  EXPECT_EQ(proto.usage().completion_tokens(), 3u);
  EXPECT_EQ(proto.timings().queue().seconds(), 1);
  EXPECT_EQ(proto.timings().queue().nanos(), 500'000'000);
  EXPECT_EQ(proto.timings().prefill().nanos(), 2);
  EXPECT_EQ(proto.timings().decode().nanos(), 3);
  EXPECT_EQ(proto.timings().preemptions(), 6u);
  EXPECT_TRUE(proto.last());
  finished.stop_text.reset();
  v1::Finished by_token;
  ToProto(finished, &by_token);
  EXPECT_EQ(by_token.matched_case(), v1::Finished::kStopTokenId);
  EXPECT_EQ(by_token.stop_token_id(), 7u);
  finished.stop_token.reset();
  v1::Finished by_none;
  ToProto(finished, &by_none);
  EXPECT_EQ(by_none.matched_case(), v1::Finished::MATCHED_NOT_SET);
}

TEST(ResponseTranslator, EveryReasonHasItsWord) {
  using Reason = scheduler::FinishReason;
  const std::pair<Reason, v1::FinishReason> words[] = {
      {Reason::kNone, v1::FINISH_REASON_UNSPECIFIED},
      {Reason::kEos, v1::FINISH_REASON_EOS},
      {Reason::kStop, v1::FINISH_REASON_STOP},
      {Reason::kMaxTokens, v1::FINISH_REASON_MAX_TOKENS},
      {Reason::kContextFull, v1::FINISH_REASON_CONTEXT_FULL},
      {Reason::kTimeLimit, v1::FINISH_REASON_TIME_LIMIT},
      {Reason::kCancelled, v1::FINISH_REASON_CANCELLED}};
  for (const auto& [reason, word] : words) {
    v1::Finished proto;
    ToProto(OutputFinished{.reason = reason}, &proto);
    EXPECT_EQ(proto.reason(), word);
  }
}

TEST(ResponseTranslator, ScoresAddUp) {
  CollectedOutput output;
  output.prompt_tokens = {Token(1), Token(2)};
  output.prompt_tokens[0].is_argmax = output.prompt_tokens[1].is_argmax = true;
  v1::Continuation proto;
  ToProto(output, &proto);
  EXPECT_DOUBLE_EQ(proto.logprob_sum(), -3.0);
  EXPECT_TRUE(proto.is_greedy());
  EXPECT_EQ(proto.tokens_size(), 2);
  output.prompt_tokens[1].is_argmax = false;
  v1::Continuation other;
  ToProto(output, &other);
  EXPECT_FALSE(other.is_greedy());
}

TEST(ResponseTranslator, OneMessageAnEventNumberedOn) {
  OutputBatch batch;
  batch.progress = OutputProgress{
      .queue_position = 1, .prompt_tokens_done = 2, .prompt_tokens_total = 3, .load_percent = 40};
  batch.started = OutputStarted{.request_id = "r",
                                .model_revision = "v",
                                .prompt_tokens = 5,
                                .cached_tokens = 4,
                                .seed = UINT64_MAX,
                                .queue_wait = std::chrono::seconds(2)};
  batch.prompt_tokens = {Token(11), Token(12)};
  batch.deltas.resize(2);
  batch.deltas[0].text = "hi";
  batch.deltas[0].tokens = {Token(13)};
  batch.deltas[1].choice = 1;
  batch.deltas[1].text = "ho";
  batch.finished.push_back({.choice = 1, .last = true});
  uint64_t seq = 7;
  std::deque<v1::GenerateResponse> messages;
  AppendMessages(std::move(batch), &seq, &messages);
  ASSERT_EQ(messages.size(), 6u);
  EXPECT_EQ(seq, 13u);
  for (size_t i = 0; i < messages.size(); ++i) EXPECT_EQ(messages[i].seq(), 8 + i);
  EXPECT_EQ(messages[0].progress().queue_position(), 1u);
  EXPECT_EQ(messages[0].progress().prompt_tokens_done(), 2u);
  EXPECT_EQ(messages[0].progress().prompt_tokens_total(), 3u);
  EXPECT_EQ(messages[0].progress().load_percent(), 40u);
  EXPECT_EQ(messages[1].started().request_id(), "r");
  EXPECT_EQ(messages[1].started().model_revision(), "v");
  EXPECT_EQ(messages[1].started().prompt_tokens(), 5u);
  EXPECT_EQ(messages[1].started().cached_tokens(), 4u);
  EXPECT_EQ(messages[1].started().seed(), UINT64_MAX);
  EXPECT_EQ(messages[1].started().queue_wait().seconds(), 2);
  EXPECT_EQ(messages[2].delta().tokens_size(), 2);
  EXPECT_EQ(messages[2].delta().text(), "");
  EXPECT_EQ(messages[3].delta().text(), "hi");
  EXPECT_EQ(messages[3].delta().tokens(0).id(), 13u);
  EXPECT_EQ(messages[4].delta().choice(), 1u);
  EXPECT_EQ(messages[4].delta().text(), "ho");
  EXPECT_TRUE(messages[5].finished().last());
}

TEST(ResponseTranslator, AChatsDeltasHaveReasoningAndCalls) {
  OutputBatch batch;
  batch.prompt_tokens = {Token(11)};
  OutputDelta& delta = batch.deltas.emplace_back();
  delta.choice = 1;
  delta.text = "t";
  delta.reasoning = "r";
  delta.calls = {{0, "id", "f", "{"}, {0, "", "", "}"}};
  batch.finished.push_back({.choice = 1, .last = true});
  uint64_t seq = 0;
  std::deque<v1::ChatResponse> messages;
  AppendMessages(std::move(batch), &seq, &messages);
  ASSERT_EQ(messages.size(), 3u);
  EXPECT_EQ(messages[0].tool_call_deltas_size(), 0);
  EXPECT_EQ(messages[1].base().seq(), 2u);
  EXPECT_EQ(messages[1].base().delta().choice(), 1u);
  EXPECT_EQ(messages[1].base().delta().text(), "t");
  EXPECT_EQ(messages[1].reasoning_delta(), "r");
  ASSERT_EQ(messages[1].tool_call_deltas_size(), 2);
  EXPECT_EQ(messages[1].tool_call_deltas(0).id(), "id");
  EXPECT_EQ(messages[1].tool_call_deltas(0).name(), "f");
  EXPECT_EQ(messages[1].tool_call_deltas(0).arguments_json(), "{");
  EXPECT_EQ(messages[1].tool_call_deltas(1).id(), "");
  EXPECT_EQ(messages[1].tool_call_deltas(1).arguments_json(), "}");
  EXPECT_TRUE(messages[2].base().finished().last());
}

TEST(ResponseTranslator, Models) {
  ModelInfo info;
  info.name = "m";
  info.state = ModelState::kLoading;
  info.summary = {.revision = "v", .max_context = 512, .chat = ModelSummary::Chat::kYes};
  v1::Model proto;
  ToProto(info, &proto);
  EXPECT_EQ(proto.name(), "m");
  EXPECT_EQ(proto.revision(), "v");
  EXPECT_EQ(proto.state(), v1::MODEL_STATE_LOADING);
  EXPECT_EQ(proto.max_context(), 512u);
  EXPECT_EQ(proto.capabilities_size(), 3);
  EXPECT_EQ(proto.capabilities(2), "chat");
  EXPECT_FALSE(proto.has_defaults());
  EXPECT_FALSE(proto.has_loaded_time());

  auto model = std::make_shared<LoadedModel>();
  model->defaults.temperature = 0.5;
  model->defaults.top_k = -1;  // off
  model->loaded_unix_seconds = 1234;
  info.model = model;
  info.state = ModelState::kReady;
  info.summary.chat = ModelSummary::Chat::kNo;
  v1::Model loaded;
  ToProto(info, &loaded);
  EXPECT_EQ(loaded.state(), v1::MODEL_STATE_READY);
  EXPECT_EQ(loaded.capabilities_size(), 2);
  EXPECT_EQ(loaded.defaults().temperature(), 0.5f);
  EXPECT_FALSE(loaded.defaults().has_top_p());
  EXPECT_EQ(loaded.defaults().top_k(), 0u);
  EXPECT_EQ(loaded.loaded_time().seconds(), 1234);
}

}  // namespace
}  // namespace tessera::server
