#include "server/http/openai_request.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace tessera::server {
namespace {

using Json = nlohmann::json;
using Request = OpenAiRequest;

StatusOr<Request> ParseCompletion(const std::string& more) {
  return ParseOpenAiRequest(
      OpenAiEndpoint::kCompletions,
      absl::StrCat(R"({"model":"m","prompt":"hi")", more.empty() ? "" : ",", more, "}"),
      SpecLimits());
}

StatusOr<Request> ParseChat(const std::string& more) {
  return ParseOpenAiRequest(
      OpenAiEndpoint::kChat,
      absl::StrCat(R"({"model":"m","messages":[{"role":"user","content":"hi"}])",
                   more.empty() ? "" : ",", more, "}"),
      SpecLimits());
}

GenerationSpec SpecOf(const StatusOr<Request>& request) {
  EXPECT_TRUE(request.ok()) << request.status();
  return request.ok() ? request->specs.front() : GenerationSpec();
}

// The names of the fields that are at fault, in order.
std::vector<std::string> FaultsOf(const StatusOr<Request>& request) {
  std::vector<std::string> fields;
  if (request.ok()) return fields;
  const ErrorReport report = ReportOf(request.status());
  for (const FieldViolation& one : report.details.violations) fields.push_back(one.field);
  return fields;
}

using Fields = std::vector<std::string>;

TEST(OpenAiRequest, TakesEverySamplingField) {
  const GenerationSpec spec = SpecOf(ParseCompletion(
      R"("temperature":0.5,"top_p":0.9,"top_k":40,"min_p":0.05,"typical_p":0.8,
         "repetition_penalty":1.5,"presence_penalty":-1,"frequency_penalty":2,"seed":-2,"n":3,
         "logit_bias":{"7":-100,"12":2.5},"allowed_token_ids":[1,2],"bad_words":["no"],
         "best_of":3)"));
  EXPECT_FLOAT_EQ(*spec.sampling.temperature, 0.5F);
  EXPECT_FLOAT_EQ(*spec.sampling.top_p, 0.9F);
  EXPECT_EQ(spec.sampling.top_k, 40u);
  EXPECT_FLOAT_EQ(*spec.sampling.min_p, 0.05F);
  EXPECT_FLOAT_EQ(*spec.sampling.typical_p, 0.8F);
  EXPECT_FLOAT_EQ(*spec.sampling.repetition_penalty, 1.5F);
  EXPECT_FLOAT_EQ(*spec.sampling.presence_penalty, -1);
  EXPECT_FLOAT_EQ(*spec.sampling.frequency_penalty, 2);
  EXPECT_EQ(spec.sampling.seed, static_cast<uint64_t>(-2));
  EXPECT_EQ(spec.sampling.n, 3u);
  const std::vector<std::pair<TokenId, float>> bias = {{12, 2.5F}, {7, -100.0F}};
  EXPECT_EQ(spec.sampling.logit_bias, bias);
  EXPECT_EQ(spec.sampling.allowed_token_ids, (std::vector<TokenId>{1, 2}));
  EXPECT_EQ(spec.sampling.bad_words, Fields{"no"});
}

TEST(OpenAiRequest, TakesTheWholeRangeOfSeeds) {
  EXPECT_EQ(SpecOf(ParseChat(R"("seed":18446744073709551615)")).sampling.seed, UINT64_MAX);
  EXPECT_EQ(SpecOf(ParseChat(R"("seed":0)")).sampling.seed, 0u);
}

TEST(OpenAiRequest, TopKMayBeSwitchedOffInTwoWays) {
  EXPECT_EQ(SpecOf(ParseCompletion(R"("top_k":-1)")).sampling.top_k, 0u);
  EXPECT_EQ(SpecOf(ParseCompletion(R"("top_k":0)")).sampling.top_k, 0u);
}

TEST(OpenAiRequest, TakesEveryStoppingField) {
  GenerationSpec spec = SpecOf(ParseCompletion(
      R"("max_tokens":16.0,"min_tokens":2,"stop":["a","b"],"stop_token_ids":[5],
         "include_stop_str_in_output":true,"ignore_eos":true)"));
  EXPECT_EQ(spec.stopping.max_tokens, 16u);
  EXPECT_EQ(spec.stopping.min_tokens, 2u);
  EXPECT_EQ(spec.stopping.stop, (Fields{"a", "b"}));
  EXPECT_EQ(spec.stopping.stop_token_ids, std::vector<TokenId>{5});
  EXPECT_TRUE(spec.stopping.include_stop);
  EXPECT_TRUE(spec.stopping.ignore_eos);
  EXPECT_EQ(SpecOf(ParseChat(R"("stop":"x")")).stopping.stop, Fields{"x"});
  spec = SpecOf(ParseChat(R"("max_tokens":5,"max_completion_tokens":7)"));
  EXPECT_EQ(spec.stopping.max_tokens, 7u);
}

TEST(OpenAiRequest, NullMeansNotGiven) {
  for (const char* field : {"temperature",
                            "top_p",
                            "top_k",
                            "min_p",
                            "typical_p",
                            "repetition_penalty",
                            "presence_penalty",
                            "frequency_penalty",
                            "seed",
                            "n",
                            "logit_bias",
                            "stop",
                            "max_tokens",
                            "max_completion_tokens",
                            "min_tokens",
                            "ignore_eos",
                            "deterministic",
                            "stop_token_ids",
                            "logprobs",
                            "echo",
                            "suffix",
                            "best_of",
                            "response_format",
                            "stream",
                            "stream_options",
                            "user",
                            "metadata",
                            "tools",
                            "tool_choice",
                            "functions",
                            "audio",
                            "top_logprobs",
                            "chat_template_kwargs",
                            "skip_special_tokens",
                            "add_special_tokens",
                            "truncate_prompt_tokens",
                            "cache_salt",
                            "guided_json",
                            "chat_template",
                            "beam_width",
                            "prompt_logprobs"}) {
    const std::string text = absl::StrCat("\"", field, "\":null");
    EXPECT_EQ(FaultsOf(ParseCompletion(text)), Fields{}) << field;
    EXPECT_EQ(FaultsOf(ParseChat(text)), Fields{}) << field;
  }
  const GenerationSpec spec = SpecOf(ParseCompletion(R"("n":null,"max_tokens":null)"));
  EXPECT_FALSE(spec.sampling.n.has_value());
  EXPECT_FALSE(spec.stopping.max_tokens.has_value());
}

TEST(OpenAiRequest, NamesEachBadValue) {
  const std::pair<const char*, const char*> cases[] = {
      {R"("temperature":2.5)", "temperature"},
      {R"("temperature":"hot")", "temperature"},
      {R"("temperature":true)", "temperature"},
      {R"("top_p":0)", "top_p"},
      {R"("top_p":1.5)", "top_p"},
      {R"("top_k":-2)", "top_k"},
      {R"("top_k":1.5)", "top_k"},
      {R"("min_p":-0.1)", "min_p"},
      {R"("typical_p":0)", "typical_p"},
      {R"("repetition_penalty":0)", "repetition_penalty"},
      {R"("presence_penalty":3)", "presence_penalty"},
      {R"("frequency_penalty":-3)", "frequency_penalty"},
      {R"("seed":"1")", "seed"},
      {R"("seed":1e30)", "seed"},
      {R"("n":0)", "n"},
      {R"("n":9)", "n"},
      {R"("n":-1)", "n"},
      {R"("logit_bias":[1])", "logit_bias"},
      {R"("logit_bias":{"x":1})", "logit_bias"},
      {R"("logit_bias":{"-1":1})", "logit_bias"},
      {R"("logit_bias":{"4294967296":1})", "logit_bias"},
      {R"("logit_bias":{"3":"x"})", "logit_bias[3]"},
      {R"("logit_bias":{"3":101})", "logit_bias[3]"},
      {R"("stop":5)", "stop"},
      {R"("stop":["a",5])", "stop[1]"},
      {R"("stop":"")", "stop[0]"},
      {R"("max_tokens":0)", "max_tokens"},
      {R"("max_tokens":-5)", "max_tokens"},
      {R"("max_tokens":4294967296)", "max_tokens"},
      {R"("max_tokens":2,"min_tokens":3)", "min_tokens"},
      {R"("ignore_eos":1)", "ignore_eos"},
      {R"("stop_token_ids":[1,-1])", "stop_token_ids[1]"},
      {R"("stop_token_ids":1)", "stop_token_ids"},
      {R"("stream":"yes")", "stream"},
      {R"("stream_options":{"include_usage":true})", "stream_options"},
      {R"("stream":true,"stream_options":3)", "stream_options"},
      {R"("stream":true,"stream_options":{"include_usage":3})", "stream_options.include_usage"},
      {R"("response_format":"json")", "response_format"},
      {R"("response_format":{"type":"xml"})", "response_format.type"},
      {R"("response_format":{})", "response_format.type"},
      {R"("skip_special_tokens":0)", "skip_special_tokens"},
      {R"("cache_salt":3)", "cache_salt"},
      {R"("bad_words":"x")", "bad_words"},
      {R"("bad_words":[""])", "bad_words[0]"},
      {R"("model":5)", "model"},
      {R"("model":"")", "model"},
  };
  for (const auto& [text, field] : cases) {
    EXPECT_EQ(FaultsOf(ParseCompletion(text)), Fields{field}) << text;
    EXPECT_EQ(FaultsOf(ParseChat(text)), Fields{field}) << text;
  }
  EXPECT_EQ(FaultsOf(ParseCompletion(R"("logprobs":true)")), Fields{"logprobs"});
  EXPECT_EQ(FaultsOf(ParseCompletion(R"("logprobs":21)")), Fields{"logprobs"});
  EXPECT_EQ(FaultsOf(ParseCompletion(R"("echo":true,"logprobs":6)")), Fields{"logprobs"});
  EXPECT_EQ(FaultsOf(ParseChat(R"("logprobs":3)")), Fields{"logprobs"});
  EXPECT_EQ(FaultsOf(ParseChat(R"("logprobs":true,"top_logprobs":21)")), Fields{"top_logprobs"});
  EXPECT_EQ(FaultsOf(ParseChat(R"("top_logprobs":2)")), Fields{"top_logprobs"});
}

TEST(OpenAiRequest, ReportsAllFaultsAtOnce) {
  const StatusOr<Request> request =
      ParseCompletion(R"("temperature":9,"n":0,"stop":5,"suffix":"x","top_k":"a")");
  EXPECT_EQ(FaultsOf(request), (Fields{"top_k", "stop", "temperature", "n", "suffix"}));
  EXPECT_EQ(ReportOf(request.status()).row->http_status, 400);
  EXPECT_EQ(ReportOf(request.status()).details.condition, Condition::kInvalidParameter);
}

TEST(OpenAiRequest, RefusesWhatItKnowsAndLacks) {
  const std::pair<const char*, const char*> both[] = {
      {R"("best_of":4)", "best_of"},
      {R"("response_format":{"type":"json_object"})", "response_format"},
      {R"("response_format":{"type":"json_schema","json_schema":{}})", "response_format"},
      {R"("guided_regex":"a+")", "guided_regex"},
      {R"("structured_outputs":{"choice":["a"]})", "structured_outputs"},
      {R"("use_beam_search":true)", "use_beam_search"},
      {R"("beam_width":4)", "beam_width"},
      {R"("prompt_logprobs":0)", "prompt_logprobs"},
  };
  for (const auto& [text, field] : both) {
    for (const StatusOr<Request>& request : {ParseCompletion(text), ParseChat(text)}) {
      EXPECT_EQ(FaultsOf(request), Fields{field}) << text;
      EXPECT_EQ(ReportOf(request.status()).details.condition, Condition::kUnsupported) << text;
      EXPECT_EQ(ReportOf(request.status()).row->http_status, 400) << text;
    }
  }
  EXPECT_EQ(FaultsOf(ParseCompletion(R"("suffix":"end")")), Fields{"suffix"});
  for (const std::string field : {"functions", "function_call", "audio", "prediction", "documents",
                                  "chat_template", "web_search_options"}) {
    EXPECT_EQ(FaultsOf(ParseChat(absl::StrCat("\"", field, "\":[1]"))), Fields{field});
  }
  EXPECT_EQ(FaultsOf(ParseChat(R"("modalities":["text","audio"])")), Fields{"modalities"});
  EXPECT_EQ(FaultsOf(ParseChat(R"("tool_choice":"required")")), Fields{"tool_choice"});
  EXPECT_EQ(FaultsOf(ParseChat(R"("tool_choice":{"type":"function"})")), Fields{"tool_choice"});
}

TEST(OpenAiRequest, HarmlessFormsOfRefusedFieldsPass) {
  EXPECT_EQ(FaultsOf(ParseCompletion(R"("suffix":"","best_of":1,"use_beam_search":false)")),
            Fields{});
  EXPECT_EQ(FaultsOf(ParseChat(R"("response_format":{"type":"text"},"modalities":["text"],
                                  "functions":[],"tool_choice":"none")")),
            Fields{});
}

TEST(OpenAiRequest, CountsUnknownFieldsButNotIgnoredOnes) {
  EXPECT_EQ(ParseChat(R"("user":"u","metadata":{},"store":true,"service_tier":"auto",
                         "parallel_tool_calls":false)")
                ->unknown_fields,
            0u);
  EXPECT_EQ(
      ParseChat(R"("frobnicate":1,"x":{},"stream":true,"stream_options":{"y":1})")->unknown_fields,
      3u);
}

TEST(OpenAiRequest, TakesAllFormsOfPrompts) {
  const auto parse = [](const std::string& prompt) {
    return ParseOpenAiRequest(OpenAiEndpoint::kCompletions,
                              absl::StrCat(R"({"model":"m","prompt":)", prompt, "}"), SpecLimits());
  };
  auto request = parse(R"("one")");
  EXPECT_EQ(SpecOf(request).prompt.text, "one");
  EXPECT_FALSE(SpecOf(request).prompt.parse_special_tokens);
  request = parse(R"(["one","two"])");
  ASSERT_EQ(request->specs.size(), 2u);
  EXPECT_EQ(request->specs[1].prompt.text, "two");
  request = parse("[3,4]");
  ASSERT_EQ(request->specs.size(), 1u);
  EXPECT_EQ(request->specs[0].prompt.token_ids, (std::vector<TokenId>{3, 4}));
  request = parse("[[3],[4,5]]");
  ASSERT_EQ(request->specs.size(), 2u);
  EXPECT_EQ(request->specs[1].prompt.token_ids, (std::vector<TokenId>{4, 5}));
  EXPECT_EQ(FaultsOf(parse("null")), Fields{"prompt"});
  EXPECT_EQ(FaultsOf(parse("7")), Fields{"prompt"});
  EXPECT_EQ(FaultsOf(parse("{}")), Fields{"prompt"});
  EXPECT_EQ(FaultsOf(parse("[]")), Fields{"prompt"});
  EXPECT_EQ(FaultsOf(parse("[[]]")), Fields{"prompt[0]"});
  EXPECT_EQ(FaultsOf(parse("[1,-2]")), Fields{"prompt[1]"});
  EXPECT_EQ(FaultsOf(parse("[1,2.0]")), Fields{"prompt[1]"});
  EXPECT_EQ(FaultsOf(parse(R"([[1],[2,"x"]])")), Fields{"prompt[1][1]"});
  EXPECT_EQ(FaultsOf(parse(R"(["a",{}])")), Fields{"prompt[1]"});
  std::string many = "[\"x\"";
  for (int i = 0; i < 256; ++i) many += ",\"x\"";
  EXPECT_EQ(FaultsOf(parse(many + "]")), Fields{"prompt"});
}

TEST(OpenAiRequest, EchoAsksForThePromptsLogProbabilities) {
  auto request = ParseCompletion(R"("echo":true,"logprobs":1,"max_tokens":1)");
  EXPECT_EQ(request->echo, Request::Echo::kBefore);
  EXPECT_EQ(SpecOf(request).output.prompt_logprobs, 1u);
  EXPECT_EQ(SpecOf(request).output.logprobs, 1u);
  EXPECT_FALSE(SpecOf(request).prompt_only);
  request = ParseCompletion(R"("echo":true,"max_tokens":0)");
  EXPECT_EQ(request->echo, Request::Echo::kBefore);
  EXPECT_TRUE(SpecOf(request).prompt_only);
  EXPECT_FALSE(SpecOf(request).output.prompt_logprobs.has_value());
}

TEST(OpenAiRequest, TakesStreamOptions) {
  auto request = ParseChat(R"("stream":true,"stream_options":{"include_usage":true})");
  EXPECT_EQ(request->delivery, Request::Delivery::kStream);
  EXPECT_EQ(request->usage, Request::StreamUsage::kAtTheEnd);
  request = ParseChat(
      R"("stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true})");
  EXPECT_EQ(request->usage, Request::StreamUsage::kAlways);
  EXPECT_EQ(ParseChat(R"("stream":true)")->usage, Request::StreamUsage::kNever);
}

TEST(OpenAiRequest, TakesOtherCompletionFields) {
  const GenerationSpec spec = SpecOf(ParseCompletion(
      R"("add_special_tokens":false,"truncate_prompt_tokens":9,"skip_special_tokens":false,
         "cache_salt":"mine","deterministic":true)"));
  EXPECT_EQ(spec.prompt.add_special_tokens, false);
  EXPECT_EQ(spec.prompt.truncate_to, 9u);
  EXPECT_FALSE(spec.output.skip_special_tokens);
  EXPECT_EQ(spec.scheduling.cache_scope, "mine");
  EXPECT_TRUE(spec.scheduling.deterministic);
  EXPECT_EQ(FaultsOf(ParseCompletion(R"("deterministic":1)")), Fields{"deterministic"});
  EXPECT_EQ(FaultsOf(ParseCompletion(R"("truncate_prompt_tokens":0)")),
            Fields{"truncate_prompt_tokens"});
}

StatusOr<Request> ParseMessages(const std::string& messages) {
  return ParseOpenAiRequest(OpenAiEndpoint::kChat,
                            absl::StrCat(R"({"model":"m","messages":)", messages, "}"),
                            SpecLimits());
}

TEST(OpenAiRequest, TakesMessages) {
  const GenerationSpec spec = SpecOf(ParseMessages(
      R"([{"role":"system","content":"s"},
          {"role":"user","name":"ann","content":[{"type":"text","text":"a"},
                                                 {"type":"text","text":"b"}]},
          {"role":"assistant","content":null,"reasoning_content":"hm","tool_calls":[
            {"id":"c1","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}}]},
          {"role":"tool","tool_call_id":"c1","content":"42"}])"));
  const std::vector<MessageSpec>& messages = spec.chat->messages;
  ASSERT_EQ(messages.size(), 4u);
  EXPECT_EQ(messages[1].content, "a\nb");
  EXPECT_EQ(messages[1].name, "ann");
  EXPECT_EQ(messages[2].content, "");
  EXPECT_EQ(messages[2].reasoning, "hm");
  ASSERT_EQ(messages[2].tool_calls.size(), 1u);
  EXPECT_EQ(messages[2].tool_calls[0].id, "c1");
  EXPECT_EQ(messages[2].tool_calls[0].name, "f");
  EXPECT_EQ(messages[2].tool_calls[0].arguments_json, R"({"x":1})");
  EXPECT_EQ(messages[3].tool_call_id, "c1");
}

TEST(OpenAiRequest, NamesTheBadPartOfAMessage) {
  const std::pair<const char*, const char*> cases[] = {
      {"null", "messages"},
      {"{}", "messages"},
      {"[]", "messages"},
      {"[5]", "messages[0]"},
      {R"([{"content":"x"}])", "messages[0].role"},
      {R"([{"role":"user"}])", "messages[0].content"},
      {R"([{"role":"user","content":null}])", "messages[0].content"},
      {R"([{"role":"user","content":5}])", "messages[0].content"},
      {R"([{"role":"user","content":["x"]}])", "messages[0].content[0]"},
      {R"([{"role":"user","content":[{"type":"text"}]}])", "messages[0].content[0].text"},
      {R"([{"role":"user","content":[{"type":"image_url","image_url":{}}]}])",
       "messages[0].content[0].type"},
      {R"([{"role":"user","content":"x","name":1}])", "messages[0].name"},
      {R"([{"role":"assistant","tool_calls":{}}])", "messages[0].tool_calls"},
      {R"([{"role":"assistant","tool_calls":[1]}])", "messages[0].tool_calls[0]"},
      {R"([{"role":"assistant","tool_calls":[{"type":"function"}]}])", "messages[0].tool_calls[0]"},
      {R"([{"role":"assistant","tool_calls":[{"function":{"arguments":"{}"}}]}])",
       "messages[0].tool_calls[0].function.name"},
  };
  for (const auto& [text, field] : cases) {
    EXPECT_EQ(FaultsOf(ParseMessages(text)), Fields{field}) << text;
  }
}

TEST(OpenAiRequest, HandsToolsAndArgumentsToTheTemplate) {
  const GenerationSpec spec = SpecOf(ParseChat(
      R"("tools":[{"type":"function","function":{"name":"f","parameters":{"a":1}}}],
         "tool_choice":"auto","chat_template_kwargs":{"thinking":true},
         "add_generation_prompt":false,"parallel_tool_calls":false)"));
  EXPECT_FALSE(spec.chat->parallel_tool_calls);
  EXPECT_TRUE(SpecOf(ParseChat("")).chat->parallel_tool_calls);
  EXPECT_EQ(FaultsOf(ParseChat(R"("parallel_tool_calls":1)")), Fields{"parallel_tool_calls"});
  EXPECT_EQ(Json::parse(spec.chat->tools_json)[0]["function"]["name"], "f");
  EXPECT_EQ(spec.chat->tool_choice, "auto");
  EXPECT_EQ(spec.chat->template_args_json, R"({"thinking":true})");
  EXPECT_FALSE(spec.chat->add_generation_prompt);
  EXPECT_EQ(FaultsOf(ParseChat(R"("tools":{})")), Fields{"tools"});
  EXPECT_EQ(FaultsOf(ParseChat(R"("tools":[{"type":"function"}])")), Fields{"tools[0]"});
  EXPECT_EQ(FaultsOf(ParseChat(R"("tools":[{"type":"function","function":{}}])")),
            Fields{"tools[0].function.name"});
  EXPECT_EQ(FaultsOf(ParseChat(R"("chat_template_kwargs":[])")), Fields{"chat_template_kwargs"});
}

TEST(OpenAiRequest, ChatLogprobsAreAFlagAndACount) {
  EXPECT_EQ(SpecOf(ParseChat(R"("logprobs":true,"top_logprobs":4)")).output.logprobs, 4u);
  EXPECT_EQ(SpecOf(ParseChat(R"("logprobs":true)")).output.logprobs, 0u);
  EXPECT_FALSE(SpecOf(ParseChat(R"("logprobs":false)")).output.logprobs.has_value());
  EXPECT_FALSE(
      SpecOf(ParseChat(R"("logprobs":false,"top_logprobs":0)")).output.logprobs.has_value());
}

std::string BodyFault(const std::string& body) {
  const StatusOr<Request> request =
      ParseOpenAiRequest(OpenAiEndpoint::kCompletions, body, SpecLimits());
  EXPECT_FALSE(request.ok()) << body.substr(0, 80);
  EXPECT_EQ(ReportOf(request.status()).row->http_status, 400);
  return std::string(request.status().message());
}

TEST(OpenAiRequest, RefusesBodiesThatAreNoObject) {
  EXPECT_TRUE(absl::StrContains(BodyFault(""), "empty"));
  EXPECT_TRUE(absl::StrContains(BodyFault("[]"), "must be a JSON object"));
  EXPECT_TRUE(absl::StrContains(BodyFault("\"x\""), "must be a JSON object"));
  EXPECT_TRUE(absl::StrContains(BodyFault("{\"a\":1,}"), "not JSON at byte 8"));
  EXPECT_TRUE(absl::StrContains(BodyFault("{\"a\":1} x"), "not JSON"));
  EXPECT_TRUE(absl::StrContains(BodyFault("{\"a\":NaN}"), "not JSON"));
  EXPECT_TRUE(absl::StrContains(BodyFault("{\"a\":\"\xff\"}"), "not JSON"));
  EXPECT_TRUE(absl::StrContains(BodyFault("{\"a\":\"\\ud800\"}"), "not JSON"));
}

TEST(OpenAiRequest, BoundsDepthAndSizeBeforeParsing) {
  EXPECT_TRUE(absl::StrContains(
      BodyFault(absl::StrCat("{\"a\":", std::string(100000, '['), std::string(100000, ']'), "}")),
      "nested deeper"));
  std::string wide = "{\"a\":[0";
  for (int i = 0; i < (1 << 20) + 1; ++i) wide += ",0";
  EXPECT_TRUE(absl::StrContains(BodyFault(wide + "]}"), "more than"));
  // Brackets and commas of a text count for nothing.
  const std::string text = std::string(1000, '[') + "\\\"" + std::string(1000, ',');
  EXPECT_EQ(FaultsOf(ParseCompletion(absl::StrCat("\"user\":\"", text, "\""))), Fields{});
}

}  // namespace
}  // namespace tessera::server
