#include "server/http/openai_response.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace tessera::server {
namespace {

using Json = nlohmann::json;
using EchoMode = OpenAiRequest::Echo;
using StreamUsage = OpenAiRequest::StreamUsage;
using scheduler::FinishReason;

OpenAiAnswer Answer(OpenAiEndpoint endpoint) {
  OpenAiAnswer answer;
  answer.endpoint = endpoint;
  answer.id = endpoint == OpenAiEndpoint::kChat ? "chatcmpl-1" : "cmpl-1";
  answer.created = 1790000000;
  answer.model = "m";
  return answer;
}

OutputStarted Started(uint32_t prompt_tokens, uint32_t cached_tokens) {
  OutputStarted started;
  started.model_revision = "0123456789abcdef0123";
  started.prompt_tokens = prompt_tokens;
  started.cached_tokens = cached_tokens;
  return started;
}

OutputToken Token(const std::string& raw, float logprob, std::vector<OutputTop> top = {}) {
  OutputToken token;
  token.raw = raw;
  token.has_logprob = true;
  token.logprob = logprob;
  token.top = std::move(top);
  return token;
}

OutputDelta Delta(uint32_t choice, const std::string& text, uint32_t tokens,
                  std::vector<OutputToken> listed = {}) {
  OutputDelta delta;
  delta.choice = choice;
  delta.text = text;
  delta.token_count = tokens;
  delta.tokens = std::move(listed);
  return delta;
}

OutputFinished Finished(uint32_t choice, FinishReason reason, uint32_t tokens, bool last = true) {
  OutputFinished finished;
  finished.choice = choice;
  finished.reason = reason;
  finished.usage.completion_tokens = tokens;
  finished.last = last;
  return finished;
}

CollectedOutput Collected(OutputDelta delta, OutputFinished finished) {
  CollectedOutput output;
  output.started = Started(9, 4);
  output.choices.push_back(std::move(delta));
  output.finished.push_back(std::move(finished));
  return output;
}

// The JSON of each event; the mark of the end becomes a string.
std::vector<Json> Events(const std::string& out) {
  std::vector<Json> events;
  EXPECT_TRUE(out.empty() || absl::EndsWith(out, "\n\n"));
  for (absl::string_view event : absl::StrSplit(out, "\n\n", absl::SkipEmpty())) {
    EXPECT_TRUE(absl::ConsumePrefix(&event, "data: ")) << event;
    EXPECT_FALSE(absl::StrContains(event, "\n"));
    events.push_back(event == "[DONE]" ? Json("[DONE]")
                                       : Json::parse(event.begin(), event.end(), nullptr, false));
    EXPECT_FALSE(events.back().is_discarded()) << event;
  }
  return events;
}

TEST(OpenAiResponse, AWholeChat) {
  const Json body = Json::parse(
      WholeAnswer(Answer(OpenAiEndpoint::kChat),
                  {Collected(Delta(0, "Hi \"you\"", 3), Finished(0, FinishReason::kEos, 3))}));
  EXPECT_EQ(body, Json::parse(R"({
    "id":"chatcmpl-1","object":"chat.completion","created":1790000000,"model":"m",
    "system_fingerprint":"fp_0123456789ab",
    "choices":[{"index":0,"message":{"role":"assistant","content":"Hi \"you\""},"logprobs":null,
                "finish_reason":"stop"}],
    "usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12,
             "prompt_tokens_details":{"cached_tokens":4}}})"));
}

OutputDelta Calling() {
  OutputDelta delta = Delta(0, "", 9);
  delta.reasoning = "Hm.";
  delta.calls = {{0, "id0", "f", "{\"a\": 1}"}, {1, "id1", "g", "{}"}};
  return delta;
}

OutputFinished FinishedWithCalls(FinishReason reason) {
  OutputFinished finished = Finished(0, reason, 9);
  finished.tool_calls = 2;
  return finished;
}

TEST(OpenAiResponse, AWholeChatWithReasoningAndCalls) {
  const auto choice = [](OutputDelta delta, FinishReason reason) {
    const Json body = Json::parse(WholeAnswer(
        Answer(OpenAiEndpoint::kChat), {Collected(std::move(delta), FinishedWithCalls(reason))}));
    return body["choices"][0];
  };
  const Json called = choice(Calling(), FinishReason::kEos);
  EXPECT_EQ(called["message"], Json::parse(R"({
    "role":"assistant","content":null,"reasoning_content":"Hm.","tool_calls":[
      {"id":"id0","type":"function","function":{"name":"f","arguments":"{\"a\": 1}"}},
      {"id":"id1","type":"function","function":{"name":"g","arguments":"{}"}}]})"));
  EXPECT_EQ(called["finish_reason"], "tool_calls");
  EXPECT_EQ(choice(Calling(), FinishReason::kMaxTokens)["finish_reason"], "length");
  OutputDelta spoken = Calling();
  spoken.text = "I call.";
  EXPECT_EQ(choice(spoken, FinishReason::kStop)["message"]["content"], "I call.");
}

TEST(OpenAiResponse, CallsAreStreamedByTheirFragments) {
  ChunkWriter writer(Answer(OpenAiEndpoint::kChat));
  std::string out;
  OutputBatch batch;
  batch.started = Started(9, 4);
  batch.deltas.push_back(Calling());
  batch.deltas.back().calls = {{0, "id0", "f", "{\"a\""}};
  writer.Append(0, batch, &out);
  batch = OutputBatch();
  batch.deltas.push_back(Delta(0, "", 1));
  batch.deltas.back().calls = {{0, "", "", ": 1}"}, {1, "id1", "g", ""}};
  batch.finished.push_back(FinishedWithCalls(FinishReason::kEos));
  writer.Append(0, batch, &out);
  const std::vector<Json> events = Events(out);
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[0]["choices"][0]["delta"], Json::parse(R"({
    "role":"assistant","content":null,"reasoning_content":"Hm.","tool_calls":[
      {"index":0,"id":"id0","type":"function","function":{"name":"f","arguments":"{\"a\""}}]})"));
  EXPECT_EQ(events[1]["choices"][0]["delta"], Json::parse(R"({"content":null,"tool_calls":[
      {"index":0,"function":{"arguments":": 1}"}},
      {"index":1,"id":"id1","type":"function","function":{"name":"g","arguments":""}}]})"));
  EXPECT_EQ(events[2]["choices"][0]["finish_reason"], "tool_calls");
}

TEST(OpenAiResponse, AWholeCompletionOfSeveralPromptsAndChoices) {
  OpenAiAnswer answer = Answer(OpenAiEndpoint::kCompletions);
  answer.prompts = 2;
  answer.n = 2;
  CollectedOutput output = Collected(Delta(0, "a", 1), Finished(0, FinishReason::kMaxTokens, 1));
  output.choices.push_back(Delta(1, "b", 2));
  output.finished.push_back(Finished(1, FinishReason::kStop, 2));
  output.finished.back().stop_text = "END";
  const Json body = Json::parse(WholeAnswer(answer, {output, output}));
  ASSERT_EQ(body["choices"].size(), 4u);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(body["choices"][i]["index"], i);
  EXPECT_EQ(body["object"], "text_completion");
  EXPECT_EQ(body["choices"][2]["text"], "a");
  EXPECT_EQ(body["choices"][2]["finish_reason"], "length");
  EXPECT_EQ(body["choices"][3]["finish_reason"], "stop");
  EXPECT_EQ(body["choices"][3]["stop_reason"], "END");
  EXPECT_EQ(body["usage"]["prompt_tokens"], 18);
  EXPECT_EQ(body["usage"]["completion_tokens"], 6);
}

TEST(OpenAiResponse, FinishReasons) {
  const std::pair<FinishReason, const char*> cases[] = {
      {FinishReason::kEos, "stop"},         {FinishReason::kStop, "stop"},
      {FinishReason::kMaxTokens, "length"}, {FinishReason::kContextFull, "length"},
      {FinishReason::kTimeLimit, "length"},
  };
  for (const auto& [reason, name] : cases) {
    const Json body = Json::parse(WholeAnswer(
        Answer(OpenAiEndpoint::kChat), {Collected(Delta(0, "x", 1), Finished(0, reason, 1))}));
    EXPECT_EQ(body["choices"][0]["finish_reason"], name);
  }
}

TEST(OpenAiResponse, CompletionLogprobsAreParallelArrays) {
  OpenAiAnswer answer = Answer(OpenAiEndpoint::kCompletions);
  answer.logprobs = true;
  const std::vector<OutputToken> tokens = {
      Token("\xc3\xa9", -0.5F, {{1, -0.25F, "e"}, {2, -0.5F, "\xc3\xa9"}}),
      Token("\xe2\x82", -1, {{3, -0.5F, "x"}}),
      Token("\xac!", -std::numeric_limits<float>::infinity()),
  };
  const Json body = Json::parse(WholeAnswer(
      answer, {Collected(Delta(0, "é€!", 3, tokens), Finished(0, FinishReason::kEos, 3))}));
  const Json& logprobs = body["choices"][0]["logprobs"];
  EXPECT_EQ(logprobs["tokens"], Json({"é", "bytes:\\xe2\\x82", "bytes:\\xac\\x21"}));
  EXPECT_EQ(logprobs["token_logprobs"], Json({-0.5, -1.0, -9999.0}));
  EXPECT_EQ(logprobs["text_offset"], Json({0, 1, 2}));
  EXPECT_EQ(logprobs["top_logprobs"][0], Json({{"e", -0.25}, {"é", -0.5}}));
  // The token itself is always among them.
  EXPECT_EQ(logprobs["top_logprobs"][1], Json({{"x", -0.5}, {"bytes:\\xe2\\x82", -1.0}}));
}

TEST(OpenAiResponse, ChatLogprobsHaveBytes) {
  OpenAiAnswer answer = Answer(OpenAiEndpoint::kChat);
  answer.logprobs = true;
  const Json body = Json::parse(WholeAnswer(
      answer, {Collected(Delta(0, "A", 1, {Token("A", -0.5F, {{1, -0.5F, "A"}, {2, -2, "B"}})}),
                         Finished(0, FinishReason::kEos, 1))}));
  EXPECT_EQ(body["choices"][0]["logprobs"], Json::parse(R"({"content":[
    {"token":"A","logprob":-0.5,"bytes":[65],"top_logprobs":[
      {"token":"A","logprob":-0.5,"bytes":[65]},{"token":"B","logprob":-2.0,"bytes":[66]}]}]})"));
}

OpenAiAnswer EchoAnswer(EchoMode echo) {
  OpenAiAnswer answer = Answer(OpenAiEndpoint::kCompletions);
  answer.logprobs = true;
  answer.echo = echo;
  answer.echoed = {{"ab", {{"<s>", 0}, {"a", 0}, {"b", 1}}}};
  return answer;
}

TEST(OpenAiResponse, AnEchoComesBeforeTheOutput) {
  CollectedOutput output =
      Collected(Delta(0, "c", 1, {Token("c", -3)}), Finished(0, FinishReason::kMaxTokens, 1));
  output.prompt_tokens = {Token("a", -1), Token("b", -2)};
  Json choice = Json::parse(WholeAnswer(EchoAnswer(EchoMode::kBefore), {output}))["choices"][0];
  EXPECT_EQ(choice["text"], "abc");
  EXPECT_EQ(choice["logprobs"]["tokens"], Json({"<s>", "a", "b", "c"}));
  EXPECT_EQ(choice["logprobs"]["token_logprobs"], Json({nullptr, -1.0, -2.0, -3.0}));
  EXPECT_EQ(choice["logprobs"]["text_offset"], Json({0, 0, 1, 2}));
  EXPECT_EQ(choice["logprobs"]["top_logprobs"][0], nullptr);
  CollectedOutput nothing = Collected(Delta(0, "", 0), Finished(0, FinishReason::kMaxTokens, 0));
  nothing.prompt_tokens = output.prompt_tokens;
  const Json alone = Json::parse(WholeAnswer(EchoAnswer(EchoMode::kBefore), {nothing}));
  EXPECT_EQ(alone["choices"][0]["text"], "ab");
  EXPECT_EQ(alone["choices"][0]["logprobs"]["tokens"], Json({"<s>", "a", "b"}));
  EXPECT_EQ(alone["usage"]["completion_tokens"], 0);
}

TEST(OpenAiResponse, AStreamOfChat) {
  OpenAiAnswer answer = Answer(OpenAiEndpoint::kChat);
  answer.usage = StreamUsage::kAtTheEnd;
  ChunkWriter writer(answer);
  std::string out;
  OutputBatch batch;
  batch.started = Started(9, 0);
  writer.Append(0, batch, &out);
  EXPECT_EQ(out, "");  // nothing that a client could take for a token
  batch.Clear();
  batch.deltas.push_back(Delta(0, "Hel", 1));
  writer.Append(0, batch, &out);
  batch.Clear();
  batch.deltas.push_back(Delta(0, "lo\n\n", 2));
  batch.finished.push_back(Finished(0, FinishReason::kEos, 4));
  writer.Append(0, batch, &out);
  writer.Finish(&out);
  const std::vector<Json> events = Events(out);
  ASSERT_EQ(events.size(), 5u);
  EXPECT_EQ(events[0], Json::parse(R"({
    "id":"chatcmpl-1","object":"chat.completion.chunk","created":1790000000,"model":"m",
    "system_fingerprint":"fp_0123456789ab","usage":null,
    "choices":[{"index":0,"delta":{"role":"assistant","content":"Hel"},"logprobs":null,
                "finish_reason":null}]})"));
  EXPECT_EQ(events[1]["choices"][0]["delta"], Json({{"content", "lo\n\n"}}));
  EXPECT_EQ(events[2]["choices"][0]["delta"], Json::object());
  EXPECT_EQ(events[2]["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(events[3]["choices"], Json::array());
  EXPECT_EQ(events[3]["usage"], Json::parse(R"({"prompt_tokens":9,"completion_tokens":4,
    "total_tokens":13,"prompt_tokens_details":{"cached_tokens":0}})"));
  EXPECT_EQ(events[4], "[DONE]");
}

TEST(OpenAiResponse, AStreamWithoutAWordHasItsRole) {
  ChunkWriter writer(Answer(OpenAiEndpoint::kChat));
  std::string out;
  OutputBatch batch;
  batch.started = Started(9, 0);
  batch.finished.push_back(Finished(0, FinishReason::kEos, 1));
  writer.Append(0, batch, &out);
  writer.Finish(&out);
  const std::vector<Json> events = Events(out);
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0]["choices"][0]["delta"], Json({{"role", "assistant"}, {"content", ""}}));
  EXPECT_EQ(events[0].count("usage"), 0u);
}

TEST(OpenAiResponse, AStreamOfSeveralPromptsWithUsageInEachChunk) {
  OpenAiAnswer answer = Answer(OpenAiEndpoint::kCompletions);
  answer.prompts = 2;
  answer.n = 2;
  answer.usage = StreamUsage::kAlways;
  ChunkWriter writer(answer);
  std::string out;
  OutputBatch batch;
  batch.started = Started(5, 1);
  batch.deltas = {Delta(0, "a", 1), Delta(1, "b", 2)};
  batch.finished = {Finished(0, FinishReason::kEos, 1, false),
                    Finished(1, FinishReason::kMaxTokens, 2)};
  writer.Append(1, batch, &out);
  writer.Append(0, batch, &out);
  writer.Finish(&out);
  const std::vector<Json> events = Events(out);
  ASSERT_EQ(events.size(), 10u);
  EXPECT_EQ(events[0]["choices"][0]["index"], 2);
  EXPECT_EQ(events[0]["choices"][0]["text"], "a");
  EXPECT_EQ(events[0]["usage"]["completion_tokens"], 1);
  EXPECT_EQ(events[1]["choices"][0]["index"], 3);
  EXPECT_EQ(events[1]["usage"]["completion_tokens"], 3);
  EXPECT_EQ(events[4]["choices"][0]["index"], 0);
  EXPECT_EQ(events[8]["usage"]["prompt_tokens"], 10);
  EXPECT_EQ(events[8]["usage"]["completion_tokens"], 6);
  EXPECT_EQ(events[8]["usage"]["prompt_tokens_details"]["cached_tokens"], 2);
}

TEST(OpenAiResponse, AStreamEchoesOnceAndCountsOffsetsOn) {
  ChunkWriter writer(EchoAnswer(EchoMode::kBefore));
  std::string out;
  OutputBatch batch;
  batch.started = Started(3, 0);
  batch.prompt_tokens = {Token("a", -1)};
  writer.Append(0, batch, &out);
  batch.Clear();
  batch.prompt_tokens = {Token("b", -2)};
  batch.deltas = {Delta(0, "c", 1, {Token("c", -3)})};
  writer.Append(0, batch, &out);
  batch.Clear();
  batch.deltas = {Delta(0, "d", 1, {Token("d", -4)})};
  batch.finished = {Finished(0, FinishReason::kEos, 2)};
  writer.Append(0, batch, &out);
  const std::vector<Json> events = Events(out);
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[0]["choices"][0]["text"], "ab");
  EXPECT_EQ(events[0]["choices"][0]["logprobs"]["token_logprobs"], Json({nullptr, -1.0, -2.0}));
  EXPECT_EQ(events[1]["choices"][0]["logprobs"]["text_offset"], Json({2}));
  EXPECT_EQ(events[2]["choices"][0]["logprobs"]["text_offset"], Json({3}));
  EXPECT_EQ(events[3]["choices"][0]["text"], "");
}

TEST(OpenAiResponse, AStreamOfAnEchoAloneHasNoOutput) {
  ChunkWriter writer(EchoAnswer(EchoMode::kBefore));
  std::string out;
  OutputBatch batch;
  batch.started = Started(3, 0);
  batch.prompt_tokens = {Token("a", -1), Token("b", -2)};
  batch.finished = {Finished(0, FinishReason::kMaxTokens, 0)};
  writer.Append(0, batch, &out);
  const std::vector<Json> events = Events(out);
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0]["choices"][0]["text"], "ab");
  EXPECT_EQ(events[1]["choices"][0]["finish_reason"], "length");
}

}  // namespace
}  // namespace tessera::server
