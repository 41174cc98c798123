#include "server/core/output_assembler.h"

#include <gtest/gtest.h>

#include "server/text/chat_output/answer_format.h"
#include "tests/unit/server/core/core_fixture.h"

namespace tessera::server {
namespace {

using testing::kEndToken;
using testing::kToolToken;
using testing::MakeByteModel;
using Options = OutputAssembler::Options;

Options Plain() {
  Options options;
  options.request_id = "r";
  options.model = MakeByteModel();
  options.seed = 9;
  return options;
}

scheduler::MailboxBatch Tokens(const std::vector<TokenId>& ids, uint32_t choice = 0) {
  scheduler::MailboxBatch batch;
  for (const TokenId id : ids) {
    scheduler::TokenEvent event;
    event.choice = choice;
    event.token = id;
    batch.tokens.push_back(event);
  }
  return batch;
}

scheduler::MailboxBatch Text(absl::string_view text, uint32_t choice = 0) {
  return Tokens(testing::ByteIds(text), choice);
}

scheduler::MailboxBatch End(scheduler::FinishedEvent event) {
  scheduler::MailboxBatch batch;
  batch.finished.push_back(event);
  return batch;
}

OutputBatch Convert(OutputAssembler& assembler, const scheduler::MailboxBatch& events) {
  OutputBatch batch;
  assembler.Convert(events, &batch);
  return batch;
}

std::string TextOf(const OutputBatch& batch) {
  std::string text;
  for (const OutputDelta& delta : batch.deltas) text += delta.text;
  return text;
}

TEST(OutputAssembler, CharactersAreWholeWhereverTheirBytesAreCut) {
  const std::string text = "a\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80z";  // 1, 2, 3 and 4 bytes
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    OutputAssembler assembler(Plain());
    const std::string first = TextOf(Convert(assembler, Text(text.substr(0, cut))));
    std::string repaired;
    Utf8Repair check;
    check.Append(first, &repaired);
    EXPECT_EQ(check.held_back_bytes(), 0u) << cut;
    EXPECT_EQ(repaired, first) << cut;
    EXPECT_EQ(first + TextOf(Convert(assembler, Text(text.substr(cut)))), text) << cut;
  }
}

TEST(OutputAssembler, TokensOfAnUnfinishedCharacterWaitForItsText) {
  OutputAssembler assembler(Plain());
  EXPECT_TRUE(Convert(assembler, Text("\xE2\x82")).deltas.empty());
  EXPECT_EQ(assembler.tokens_sent(), 0u);
  const OutputBatch rest = Convert(assembler, Text("\xAC"));
  ASSERT_EQ(rest.deltas.size(), 1u);
  EXPECT_EQ(rest.deltas[0].text, "\xE2\x82\xAC");
  EXPECT_EQ(rest.deltas[0].token_count, 3u);
  EXPECT_EQ(assembler.tokens_sent(), 3u);
}

TEST(OutputAssembler, ABrokenCharacterIsReplacedAtTheEnd) {
  OutputAssembler assembler(Plain());
  scheduler::MailboxBatch events = Text("a\xE2\x82");
  events.finished.push_back({.reason = scheduler::FinishReason::kMaxTokens, .last = true});
  EXPECT_EQ(TextOf(Convert(assembler, events)), "a\xEF\xBF\xBD");
}

TEST(OutputAssembler, ControlTokensAreHiddenUnlessAskedFor) {
  OutputAssembler hides(Plain());
  EXPECT_EQ(TextOf(Convert(hides, Tokens({'a', kEndToken, kToolToken}))), "a<tool>");
  Options options = Plain();
  options.special = Options::Special::kShow;
  OutputAssembler shows(options);
  EXPECT_EQ(TextOf(Convert(shows, Tokens({'a', kEndToken, 'b'}))), "a<end>b");
}

TEST(OutputAssembler, ListsTokensWithTheirBytesAndRanks) {
  Options options = Plain();
  options.tokens = Options::Tokens::kList;
  OutputAssembler assembler(options);
  scheduler::MailboxBatch events = Tokens({0xE2, kEndToken});
  events.top = {{'x', -1.0f}, {'y', -2.0f}, {0x82, -0.5f}};
  events.tokens[0].has_logprob = true;
  events.tokens[0].logprob = -3.5f;
  events.tokens[0].rank = 4;
  events.tokens[0].top_begin = 1;
  events.tokens[0].top_count = 2;
  const OutputBatch batch = Convert(assembler, events);
  ASSERT_EQ(batch.deltas.size(), 1u);
  EXPECT_EQ(batch.deltas[0].text, "");
  ASSERT_EQ(batch.deltas[0].tokens.size(), 2u);
  const OutputToken& first = batch.deltas[0].tokens[0];
  EXPECT_EQ(first.id, 0xE2u);
  EXPECT_EQ(first.raw, "\xE2");
  EXPECT_TRUE(first.has_logprob);
  EXPECT_EQ(first.logprob, -3.5f);
  EXPECT_EQ(first.rank, 4u);
  ASSERT_EQ(first.top.size(), 2u);
  EXPECT_EQ(first.top[0].raw, "y");
  EXPECT_EQ(first.top[1].id, 0x82u);
  EXPECT_EQ(first.top[1].raw, "\x82");
  // Hidden from the text, yet a token like others.
  EXPECT_EQ(batch.deltas[0].tokens[1].id, kEndToken);
  EXPECT_FALSE(batch.deltas[0].tokens[1].has_logprob);
}

TEST(OutputAssembler, AStopTextCutsTheLastToken) {
  Options options = Plain();
  options.stop = {"x", "STOP"};
  OutputAssembler assembler(options);
  scheduler::MailboxBatch events = Tokens({'a', kToolToken});
  events.tokens[1].visible_bytes = 2;
  events.finished.push_back({.reason = scheduler::FinishReason::kStop,
                             .stop_index = 1,
                             .completion_tokens = 2,
                             .last = true});
  const OutputBatch batch = Convert(assembler, events);
  EXPECT_EQ(TextOf(batch), "a<t");
  ASSERT_EQ(batch.finished.size(), 1u);
  EXPECT_EQ(batch.finished[0].stop_text, "STOP");
  EXPECT_EQ(batch.finished[0].stop_token, std::nullopt);
}

TEST(OutputAssembler, AStopTokenIsNamed) {
  OutputAssembler assembler(Plain());
  const OutputBatch batch = Convert(
      assembler,
      End({.reason = scheduler::FinishReason::kEos, .stop_token = kEndToken, .last = true}));
  ASSERT_EQ(batch.finished.size(), 1u);
  EXPECT_EQ(batch.finished[0].stop_text, std::nullopt);
  EXPECT_EQ(batch.finished[0].stop_token, kEndToken);
  EXPECT_TRUE(batch.ends());
}

TEST(OutputAssembler, DeltasSpanTheAskedNumberOfTokens) {
  Options options = Plain();
  options.stream_interval = 4;
  OutputAssembler assembler(options);
  EXPECT_TRUE(Convert(assembler, Text("abc")).deltas.empty());
  const OutputBatch batch = Convert(assembler, Text("de"));
  ASSERT_EQ(batch.deltas.size(), 1u);
  EXPECT_EQ(batch.deltas[0].text, "abcde");
  EXPECT_EQ(batch.deltas[0].token_count, 5u);
  EXPECT_TRUE(Convert(assembler, Text("f")).deltas.empty());
  // The end hands out the rest, before the ending.
  const OutputBatch end = Convert(assembler, End({.last = true}));
  EXPECT_EQ(TextOf(end), "f");
  EXPECT_EQ(assembler.tokens_sent(), 6u);
}

// What was generated reaches the reader also when the request then fails.
TEST(OutputAssembler, AnErrorHandsOutWhatWasHeld) {
  Options options = Plain();
  options.stream_interval = 100;
  OutputAssembler assembler(options);
  EXPECT_TRUE(Convert(assembler, Text("abc\xE2")).deltas.empty());
  scheduler::MailboxBatch events;
  events.error = absl::UnavailableError("engine");
  const OutputBatch batch = Convert(assembler, events);
  EXPECT_EQ(TextOf(batch), "abc");
  EXPECT_EQ(assembler.tokens_sent(), 4u);
  EXPECT_TRUE(batch.error.has_value());
  EXPECT_TRUE(batch.ends());
}

// A model of bytes whose template has calls between <tool>, a token of its own, and <end>, which is
// a control token.
Options Chatting() {
  Options options = Plain();
  auto model = MakeByteModel();
  auto output = ChatOutput::Choose("hermes", "</think>", model->tokenizer->token_bytes());
  EXPECT_TRUE(output.ok()) << output.status();
  model->chat_output = *output;
  options.model = std::move(model);
  options.chat.emplace();
  options.chat->tools = OfferedTools(R"([{"type": "function", "function": {"name": "f"}}])");
  return options;
}

TEST(OutputAssembler, AChatIsTakenApart) {
  Options options = Chatting();
  options.choices = 2;
  OutputAssembler assembler(options);
  const std::string answer =
      "<think>\xC3\xA4</think>\nSo.\n<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}";
  ChatParts parts;
  for (const char c : answer) {
    for (OutputDelta& delta : Convert(assembler, Text(absl::string_view(&c, 1))).deltas) {
      EXPECT_FALSE(delta.empty());
      parts.Append(std::move(delta));
    }
  }
  EXPECT_EQ(parts.reasoning, "\xC3\xA4");
  EXPECT_EQ(parts.text, "So.");
  ASSERT_EQ(parts.calls.size(), 1u);
  EXPECT_EQ(parts.calls[0].name, "f");
  EXPECT_EQ(parts.calls[0].arguments, "{\"a\": 1}");
  // The other choice is text, and ends in the middle of what may have been a mark.
  EXPECT_TRUE(Convert(assembler, Text("<tool", 1)).deltas.empty());
  OutputBatch end = Convert(assembler, End({.choice = 1, .reason = scheduler::FinishReason::kEos}));
  EXPECT_EQ(TextOf(end), "<tool");
  ASSERT_EQ(end.finished.size(), 1u);
  EXPECT_EQ(end.finished[0].tool_calls, 0u);
  end = Convert(assembler, End({.reason = scheduler::FinishReason::kEos, .last = true}));
  ASSERT_EQ(end.finished.size(), 1u);
  EXPECT_EQ(end.finished[0].tool_calls, 1u);
}

TEST(OutputAssembler, WhatAParserHeldIsHandedOutWithAnError) {
  OutputAssembler assembler(Chatting());
  EXPECT_TRUE(Convert(assembler, Text("<tool_call>{\"nam")).deltas.empty());
  scheduler::MailboxBatch events;
  events.error = absl::UnavailableError("engine");
  EXPECT_EQ(TextOf(Convert(assembler, events)), "<tool_call>{\"nam");
}

TEST(OutputAssembler, OnlyMarksOfTheFormatAreTokensToIt) {
  // <end> is none of its marks.
  OutputAssembler hides(Chatting());
  EXPECT_EQ(TextOf(Convert(hides, Tokens({'a', kEndToken, 'b'}))), "ab");
  Options options = Chatting();
  options.special = Options::Special::kShow;
  OutputAssembler shows(options);
  EXPECT_EQ(TextOf(Convert(shows, Tokens({'a', kEndToken, 'b'}))), "a<end>b");
}

TEST(OutputAssembler, ChoicesAreApart) {
  Options options = Plain();
  options.choices = 2;
  OutputAssembler assembler(options);
  scheduler::MailboxBatch events = Text("\xC3", 0);
  for (const auto& event : Text("\xC3", 1).tokens) events.tokens.push_back(event);
  EXPECT_TRUE(Convert(assembler, events).deltas.empty());
  events = Text("\xA4", 0);
  for (const auto& event : Text("\xB6", 1).tokens) events.tokens.push_back(event);
  const OutputBatch batch = Convert(assembler, events);
  ASSERT_EQ(batch.deltas.size(), 2u);
  EXPECT_EQ(batch.deltas[0].choice, 0u);
  EXPECT_EQ(batch.deltas[0].text, "\xC3\xA4");
  EXPECT_EQ(batch.deltas[1].choice, 1u);
  EXPECT_EQ(batch.deltas[1].text, "\xC3\xB6");
}

TEST(OutputAssembler, StartUsageAndTimesReachTheEnd) {
  OutputAssembler assembler(Plain());
  scheduler::MailboxBatch events;
  events.started = scheduler::StartedEvent{
      .prompt_tokens = 7, .cached_tokens = 3, .queue_wait = std::chrono::milliseconds(5)};
  const OutputBatch batch = Convert(assembler, events);
  ASSERT_TRUE(batch.started.has_value());
  EXPECT_EQ(batch.started->request_id, "r");
  EXPECT_EQ(batch.started->model_revision, "r1");
  EXPECT_EQ(batch.started->prompt_tokens, 7u);
  EXPECT_EQ(batch.started->cached_tokens, 3u);
  EXPECT_EQ(batch.started->seed, 9u);
  const OutputBatch end = Convert(assembler, End({.completion_tokens = 2,
                                                  .preemptions = 1,
                                                  .prefill = std::chrono::milliseconds(6),
                                                  .decode = std::chrono::milliseconds(7),
                                                  .last = true}));
  const OutputFinished& finished = end.finished.at(0);
  EXPECT_EQ(finished.usage.prompt_tokens, 7u);
  EXPECT_EQ(finished.usage.cached_tokens, 3u);
  EXPECT_EQ(finished.usage.completion_tokens, 2u);
  EXPECT_EQ(finished.queue, std::chrono::milliseconds(5));
  EXPECT_EQ(finished.prefill, std::chrono::milliseconds(6));
  EXPECT_EQ(finished.decode, std::chrono::milliseconds(7));
  EXPECT_EQ(finished.preemptions, 1u);
}

TEST(OutputAssembler, ProgressOnlyWhereAsked) {
  scheduler::MailboxBatch events;
  events.progress = scheduler::ProgressEvent{
      .queue_position = 1, .prompt_tokens_done = 2, .prompt_tokens_total = 3};
  OutputAssembler hides(Plain());
  EXPECT_FALSE(Convert(hides, events).progress.has_value());
  Options options = Plain();
  options.progress = Options::Progress::kShow;
  OutputAssembler shows(options);
  const OutputBatch batch = Convert(shows, events);
  ASSERT_TRUE(batch.progress.has_value());
  EXPECT_EQ(batch.progress->queue_position, 1u);
  EXPECT_EQ(batch.progress->prompt_tokens_done, 2u);
  EXPECT_EQ(batch.progress->prompt_tokens_total, 3u);
  EXPECT_EQ(batch.progress->load_percent, std::nullopt);
}

TEST(OutputAssembler, PromptTokensAreApartFromTheOutput) {
  OutputAssembler assembler(Plain());
  scheduler::MailboxBatch events = Text("ab");
  events.tokens[0].is_prompt = true;
  events.tokens[0].has_logprob = true;
  events.tokens[0].is_argmax = true;
  const OutputBatch batch = Convert(assembler, events);
  ASSERT_EQ(batch.prompt_tokens.size(), 1u);
  EXPECT_EQ(batch.prompt_tokens[0].raw, "a");
  EXPECT_TRUE(batch.prompt_tokens[0].is_argmax);
  EXPECT_EQ(TextOf(batch), "b");
  EXPECT_EQ(assembler.tokens_sent(), 1u);
}

TEST(OutputBatch, EndsWithAnErrorOrTheLastChoice) {
  OutputBatch batch;
  EXPECT_TRUE(batch.empty());
  EXPECT_FALSE(batch.ends());
  batch.finished.emplace_back();
  EXPECT_FALSE(batch.ends());
  batch.finished.back().last = true;
  EXPECT_TRUE(batch.ends());
  batch.Clear();
  EXPECT_TRUE(batch.empty());
  batch.error = absl::CancelledError();
  EXPECT_TRUE(batch.ends());
  EXPECT_FALSE(batch.empty());
}

}  // namespace
}  // namespace tessera::server
