#include "server/http/openai_error.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/match.h"

namespace tessera::server {
namespace {

using Json = nlohmann::json;
constexpr auto kCompletions = OpenAiEndpoint::kCompletions;
constexpr auto kChat = OpenAiEndpoint::kChat;

std::string HeaderOf(const HttpResponse& response, const std::string& name) {
  for (const auto& [key, value] : response.headers) {
    if (key == name) return value;
  }
  return "";
}

TEST(OpenAiError, NamesFieldsAsTheClientDoes) {
  const struct {
    const char* path;
    const char* completions;
    const char* chat;
  } cases[] = {
      {"sampling.top_p", "top_p", "top_p"},
      {"generation.sampling.n", "n", "n"},
      {"generation.stopping.stop[2]", "stop[2]", "stop[2]"},
      {"output.logprobs", "logprobs", "top_logprobs"},
      {"output.prompt_logprobs", "logprobs", "top_logprobs"},
      {"prompt.token_ids[3]", "prompt[3]", "messages"},
      {"prompt.text", "prompt", "messages"},
      {"prompt", "prompt", "messages"},
      {"prompt.truncate_to", "truncate_prompt_tokens", "truncate_prompt_tokens"},
      {"template_args.x", "chat_template_kwargs.x", "chat_template_kwargs.x"},
      {"scheduling.cache_scope", "cache_salt", "cache_salt"},
      {"generation.constraint.json_schema", "response_format", "response_format"},
      {"messages[1].role", "messages[1].role", "messages[1].role"},
      {"logprobs", "logprobs", "logprobs"},
      {"prompt_logprobs", "prompt_logprobs", "prompt_logprobs"},
  };
  for (const auto& one : cases) {
    EXPECT_EQ(OpenAiFieldName(kCompletions, one.path), one.completions);
    EXPECT_EQ(OpenAiFieldName(kChat, one.path), one.chat);
  }
}

TEST(OpenAiError, ListsEveryField) {
  const Status status =
      InvalidFields({{"generation.sampling.top_p", "is odd"}, {"messages", "are missing"}});
  const HttpResponse response = OpenAiErrorResponse(status, kChat);
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(HeaderOf(response, "content-type"), "application/json");
  EXPECT_EQ(Json::parse(response.body), Json::parse(R"({"error":{
    "message":"top_p: is odd; messages: are missing","type":"invalid_request_error",
    "param":"top_p","code":"invalid_value"}})"));
}

TEST(OpenAiError, EveryConditionHasItsStatus) {
  const struct {
    Condition condition;
    int status;
    const char* type;
    const char* code;
  } cases[] = {
      {Condition::kQueueFull, 503, "server_error", "overloaded"},
      {Condition::kDraining, 503, "server_error", "draining"},
      {Condition::kContextLength, 400, "invalid_request_error", "context_length_exceeded"},
      {Condition::kModelNotFound, 404, "invalid_request_error", "model_not_found"},
      {Condition::kUnsupported, 400, "invalid_request_error", "unsupported_parameter"},
      {Condition::kDuplicateRequest, 400, "invalid_request_error", "duplicate_request_id"},
      {Condition::kDeadline, 504, "server_error", "deadline_exceeded"},
      {Condition::kInternal, 500, "server_error", "internal"},
  };
  for (const auto& one : cases) {
    const HttpResponse response = OpenAiErrorResponse(MakeError(one.condition, "why"), kChat);
    const Json error = Json::parse(response.body)["error"];
    EXPECT_EQ(response.status, one.status);
    EXPECT_EQ(error["type"], one.type);
    EXPECT_EQ(error["code"], one.code);
  }
}

TEST(OpenAiError, AdvisesWhenToRetry) {
  ErrorDetails details;
  details.condition = Condition::kQueueFull;
  details.retry_after = std::chrono::milliseconds(1500);
  const HttpResponse response = OpenAiErrorResponse(MakeError(details, "full"), kChat);
  EXPECT_EQ(HeaderOf(response, "retry-after-ms"), "1500");
  EXPECT_EQ(HeaderOf(response, "retry-after"), "2");
  const HttpResponse bad = OpenAiErrorResponse(InvalidFields({{"n", "x"}}), kChat);
  EXPECT_EQ(HeaderOf(bad, "retry-after"), "");
}

TEST(OpenAiError, TellsNothingOfOurInsides) {
  const std::string body = OpenAiErrorBody(absl::InternalError("0xdeadbeef"), kChat);
  EXPECT_FALSE(absl::StrContains(body, "deadbeef"));
  EXPECT_EQ(Json::parse(body)["error"]["param"], nullptr);
}

TEST(OpenAiError, AMissingModelIsThatField) {
  const Json error = Json::parse(OpenAiErrorBody(ModelNotFound("x"), kChat))["error"];
  EXPECT_EQ(error["param"], "model");
  EXPECT_TRUE(absl::StrContains(error["message"].get<std::string>(), "\"x\""));
}

TEST(OpenAiError, StaysJsonWithAnyText) {
  const HttpResponse response = OpenAiRefusal(404, "not_found", "there is no \xff\"\n here");
  EXPECT_EQ(response.status, 404);
  EXPECT_EQ(Json::parse(response.body)["error"]["code"], "not_found");
}

TEST(OpenAiError, ARefusalIsTypedByItsStatus) {
  EXPECT_TRUE(absl::StrContains(OpenAiRefusal(413, "c", "m").body, "invalid_request_error"));
  EXPECT_TRUE(absl::StrContains(OpenAiRefusal(503, "c", "m").body, "server_error"));
}

}  // namespace
}  // namespace tessera::server
