#include "server/core/generation_spec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "absl/strings/str_cat.h"

namespace tessera::server {
namespace {

GenerationSpec Valid() {
  GenerationSpec spec;
  spec.model = "m";
  spec.prompt.input = PromptSpec::Input::kText;
  spec.prompt.text = "hello";
  return spec;
}

GenerationSpec ValidChat() {
  GenerationSpec spec;
  spec.model = "m";
  spec.chat = ChatSpec{};
  spec.chat->messages.push_back({.role = "user", .content = "hello"});
  return spec;
}

std::vector<std::string> FieldsOf(const Status& status) {
  std::vector<std::string> fields;
  for (const FieldViolation& one : ReportOf(status).details.violations) fields.push_back(one.field);
  return fields;
}

using Change = std::function<void(GenerationSpec&)>;
Status Check(const Change& change, GenerationSpec spec = Valid(), const SpecLimits& limits = {}) {
  change(spec);
  return ValidateSpec(spec, limits);
}

void ExpectTaken(const Change& change, GenerationSpec spec = Valid()) {
  const Status status = Check(change, std::move(spec));
  EXPECT_TRUE(status.ok()) << status;
}

void ExpectRefused(const std::string& field, const Change& change, GenerationSpec spec = Valid()) {
  const Status status = Check(change, std::move(spec));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << field;
  EXPECT_EQ(FieldsOf(status), std::vector<std::string>{field});
}

TEST(ValidateSpec, TakesThePlainRequest) {
  ExpectTaken([](auto&) {});
  ExpectTaken([](auto&) {}, ValidChat());
}

struct FloatRange {
  const char* name;
  std::optional<float> SamplingSpec::*field;
  float low;
  float high;
  enum class Low { kIncluded, kExcluded } end;
};

class ValidateRange : public ::testing::TestWithParam<FloatRange> {};

TEST_P(ValidateRange, EndsAndNothingBeyond) {
  const FloatRange range = GetParam();
  const std::string field = absl::StrCat("sampling.", range.name);
  const auto set = [&range](float value) -> Change {
    return [&range, value](GenerationSpec& spec) { spec.sampling.*range.field = value; };
  };
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  ExpectTaken(set(range.high));
  ExpectTaken(set((range.low + range.high) / 2));
  ExpectTaken(set(std::nextafter(range.low, range.high)));
  ExpectRefused(field, set(std::nextafter(range.high, kInfinity)));
  ExpectRefused(field, set(std::nextafter(range.low, -kInfinity)));
  ExpectRefused(field, set(std::nanf("")));
  ExpectRefused(field, set(kInfinity));
  ExpectRefused(field, set(-kInfinity));
  if (range.end == FloatRange::Low::kIncluded) {
    ExpectTaken(set(range.low));
  } else {
    ExpectRefused(field, set(range.low));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Fields, ValidateRange,
    ::testing::Values(
        FloatRange{"temperature", &SamplingSpec::temperature, 0, 2, FloatRange::Low::kIncluded},
        FloatRange{"top_p", &SamplingSpec::top_p, 0, 1, FloatRange::Low::kExcluded},
        FloatRange{"min_p", &SamplingSpec::min_p, 0, 1, FloatRange::Low::kIncluded},
        FloatRange{"typical_p", &SamplingSpec::typical_p, 0, 1, FloatRange::Low::kExcluded},
        FloatRange{"repetition_penalty", &SamplingSpec::repetition_penalty, 0, 2,
                   FloatRange::Low::kExcluded},
        FloatRange{"presence_penalty", &SamplingSpec::presence_penalty, -2, 2,
                   FloatRange::Low::kIncluded},
        FloatRange{"frequency_penalty", &SamplingSpec::frequency_penalty, -2, 2,
                   FloatRange::Low::kIncluded}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(ValidateSpec, SamplingLists) {
  ExpectTaken([](auto& s) { s.sampling.top_k = UINT32_MAX; });
  ExpectTaken([](auto& s) { s.sampling.logit_bias.assign(1024, {1, 100.0f}); });
  ExpectRefused("sampling.logit_bias", [](auto& s) {
    s.sampling.logit_bias.assign(1025, {1, 1.0f});
  });
  ExpectRefused("sampling.logit_bias[7]", [](auto& s) { s.sampling.logit_bias = {{7, 100.5f}}; });
  ExpectRefused("sampling.logit_bias[7]", [](auto& s) {
    s.sampling.logit_bias = {{7, std::nanf("")}};
  });
  ExpectRefused("sampling.allowed_token_ids",
                [](auto& s) { s.sampling.allowed_token_ids.assign(1025, 1); });
  ExpectRefused("sampling.bad_words", [](auto& s) { s.sampling.bad_words.assign(1025, "x"); });
  ExpectRefused("sampling.bad_words[1]", [](auto& s) { s.sampling.bad_words = {"x", ""}; });
  ExpectRefused("sampling.bad_words[0]",
                [](auto& s) { s.sampling.bad_words = {std::string(257, 'x')}; });
  ExpectTaken([](auto& s) { s.sampling.n = 8; });
  ExpectRefused("sampling.n", [](auto& s) { s.sampling.n = 9; });
  ExpectRefused("sampling.n", [](auto& s) { s.sampling.n = 0; });
}

TEST(ValidateSpec, Stopping) {
  ExpectRefused("stopping.max_tokens", [](auto& s) { s.stopping.max_tokens = 0; });
  ExpectTaken([](auto& s) { s.stopping.max_tokens = UINT32_MAX; });
  ExpectTaken([](auto& s) {
    s.stopping.max_tokens = 3;
    s.stopping.min_tokens = 3;
  });
  ExpectRefused("stopping.min_tokens", [](auto& s) {
    s.stopping.max_tokens = 3;
    s.stopping.min_tokens = 4;
  });
  ExpectTaken([](auto& s) { s.stopping.stop.assign(16, std::string(256, 'x')); });
  ExpectRefused("stopping.stop", [](auto& s) { s.stopping.stop.assign(17, "x"); });
  ExpectRefused("stopping.stop[1]", [](auto& s) { s.stopping.stop = {"x", ""}; });
  ExpectRefused("stopping.stop[0]", [](auto& s) { s.stopping.stop = {std::string(257, 'x')}; });
  ExpectRefused("stopping.stop_token_ids",
                [](auto& s) { s.stopping.stop_token_ids.assign(1025, 1); });
  ExpectRefused("stopping.time_limit", [](auto& s) { s.stopping.time_limit = Duration::zero(); });
  ExpectRefused("stopping.time_limit", [](auto& s) { s.stopping.time_limit = Duration(-1); });
  ExpectTaken([](auto& s) { s.stopping.time_limit = Duration(1); });
}

TEST(ValidateSpec, Output) {
  ExpectTaken([](auto& s) { s.output.logprobs = 20; });
  ExpectRefused("output.logprobs", [](auto& s) { s.output.logprobs = 21; });
  ExpectTaken([](auto& s) { s.output.prompt_logprobs = 5; });
  ExpectRefused("output.prompt_logprobs", [](auto& s) { s.output.prompt_logprobs = 6; });
  ExpectTaken([](auto& s) { s.output.logprob_token_ids.assign(128, 1); });
  ExpectRefused("output.logprob_token_ids",
                [](auto& s) { s.output.logprob_token_ids.assign(129, 1); });
}

TEST(ValidateSpec, NamesAndScheduling) {
  ExpectRefused("model", [](auto& s) { s.model.clear(); });
  ExpectTaken([](auto& s) { s.model = std::string(256, 'm'); });
  ExpectRefused("model", [](auto& s) { s.model = std::string(257, 'm'); });
  ExpectRefused("model", [](auto& s) { s.model = std::string("a\nb"); });
  ExpectTaken([](auto& s) { s.request_id = std::string(128, 'r'); });
  ExpectRefused("request_id", [](auto& s) { s.request_id = std::string(129, 'r'); });
  ExpectRefused("request_id", [](auto& s) { s.request_id = std::string("a\x7f"); });
  ExpectRefused("scheduling.cache_scope",
                [](auto& s) { s.scheduling.cache_scope = std::string("a\x01"); });
  ExpectRefused("scheduling.session_id",
                [](auto& s) { s.scheduling.session_id = std::string(257, 's'); });
  ExpectTaken([](auto& s) { s.scheduling.service_class = std::string("default"); });
  ExpectTaken([](auto& s) { s.scheduling.max_queue_wait = Duration::zero(); });
  ExpectRefused("scheduling.max_queue_wait",
                [](auto& s) { s.scheduling.max_queue_wait = Duration(-1); });
  ExpectRefused("tags", [](auto& s) {
    for (int i = 0; i < 17; ++i) s.tags.emplace(absl::StrCat(i), "v");
  });
  ExpectRefused("tags", [](auto& s) { s.tags["k"] = std::string(256, 'v'); });
}

TEST(ValidateSpec, Prompts) {
  ExpectRefused("prompt", [](auto& s) { s.prompt = PromptSpec(); });
  ExpectRefused("prompt.token_ids", [](auto& s) {
    s.prompt = PromptSpec();
    s.prompt.input = PromptSpec::Input::kTokenIds;
  });
  ExpectRefused("prompt.truncate_to", [](auto& s) { s.prompt.truncate_to = 0; });
  ExpectRefused("continuation", [](auto& s) { s.continuation = PromptSpec(); });
  ExpectRefused("continuation.truncate_to", [](auto& s) {
    s.continuation = s.prompt;
    s.continuation->truncate_to = 3;
  });
  ExpectRefused("dimensions", [](auto& s) { s.embedding = EmbeddingSpec{.dimensions = 0}; });
  ExpectRefused("sampling.n", [](auto& s) {
    s.prompt_only = true;
    s.sampling.n = 2;
  });
  ExpectRefused(
      "generation.prompt",
      [](auto& s) {
        s.prompt.input = PromptSpec::Input::kText;
        s.prompt.text = "x";
      },
      ValidChat());
}

TEST(ValidateSpec, Chats) {
  ExpectRefused(
      "messages", [](auto& s) { s.chat->messages.clear(); }, ValidChat());
  ExpectRefused(
      "messages[0].role", [](auto& s) { s.chat->messages[0].role.clear(); }, ValidChat());
  ExpectRefused(
      "messages[0].role", [](auto& s) { s.chat->messages[0].role = std::string("us\ner"); },
      ValidChat());
  ExpectRefused(
      "messages", [](auto& s) { s.chat->messages.resize(4097, {.role = "user"}); }, ValidChat());
  for (const char* choice : {"", "auto", "none"}) {
    ExpectTaken([choice](auto& s) { s.chat->tool_choice = choice; }, ValidChat());
  }
  // The rest of a chat is inside its generation.
  ExpectRefused(
      "generation.sampling.top_p", [](auto& s) { s.sampling.top_p = 0.0f; }, ValidChat());
}

TEST(ValidateSpec, AllViolationsAtOnce) {
  GenerationSpec spec = Valid();
  spec.model.clear();
  spec.prompt.truncate_to = 0;
  spec.sampling.temperature = 3.0f;
  spec.sampling.n = 100;
  spec.stopping.max_tokens = 0;
  spec.output.logprobs = 1000;
  spec.sampling.beam_width = 2;
  const Status status = ValidateSpec(spec, {});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  const std::vector<std::string> fields = FieldsOf(status);
  for (const char* field : {"model", "prompt.truncate_to", "sampling.temperature", "sampling.n",
                            "stopping.max_tokens", "output.logprobs", "sampling.beam_width"}) {
    EXPECT_EQ(std::count(fields.begin(), fields.end(), field), 1) << field;
  }
  EXPECT_EQ(fields.size(), 7u);
}

TEST(ValidateSpec, WhatIsNotOfferedIsUnimplemented) {
  const auto expect = [](const std::string& field, const Change& change,
                         GenerationSpec spec = Valid()) {
    const Status status = Check(change, std::move(spec));
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << field;
    EXPECT_EQ(FieldsOf(status), std::vector<std::string>{field});
  };
  expect("sampling.beam_width", [](auto& s) { s.sampling.beam_width = 1; });
  expect("constraint.json_schema", [](auto& s) { s.constraint = "json_schema"; });
  expect("resumable", [](auto& s) { s.resumable = true; });
  expect("scheduling.service_class",
         [](auto& s) { s.scheduling.service_class = std::string("gold"); });
  expect(
      "tool_choice", [](auto& s) { s.chat->tool_choice = std::string("required"); }, ValidChat());
}

TEST(ValidateSpec, ReportsAreBounded) {
  const Status status = Check([](GenerationSpec& s) {
    s.sampling.logit_bias.assign(1'000'000, {1, 1000.0f});
    s.sampling.bad_words.assign(100'000, "");
    s.stopping.stop.assign(100'000, "");
  });
  EXPECT_LT(FieldsOf(status).size(), 4000u);
}

TEST(ValidateSpec, LimitsComeFromTheSettings) {
  LimitSettings settings;
  settings.n = 2;
  settings.logprobs = 1;
  settings.prompt_logprobs = 0;
  settings.logit_bias = 1;
  settings.stop.count = 1;
  settings.stop.bytes.bytes = 2;
  const SpecLimits limits = LimitsOf(settings);
  EXPECT_EQ(limits.max_request_time, settings.max_request_time);
  const Status status = Check(
      [](GenerationSpec& s) {
        s.sampling.n = 3;
        s.output.logprobs = 2;
        s.output.prompt_logprobs = 1;
        s.sampling.logit_bias.assign(2, {1, 1.0f});
        s.stopping.stop = {"abc", "d"};
      },
      Valid(), limits);
  EXPECT_EQ(
      FieldsOf(status),
      (std::vector<std::string>{"sampling.logit_bias", "sampling.n", "stopping.stop",
                                "stopping.stop[0]", "output.logprobs", "output.prompt_logprobs"}));
}

TEST(ValidateTokenIds, EveryListAgainstTheVocabulary) {
  GenerationSpec spec = Valid();
  spec.prompt.input = PromptSpec::Input::kTokenIds;
  spec.prompt.token_ids = {0, 9};
  spec.continuation = PromptSpec{.input = PromptSpec::Input::kTokenIds, .token_ids = {9}};
  spec.sampling.logit_bias = {{9, 1.0f}};
  spec.sampling.allowed_token_ids = {9};
  spec.stopping.stop_token_ids = {9};
  spec.output.logprob_token_ids = {9};
  EXPECT_TRUE(ValidateTokenIds(spec, 10).ok());
  EXPECT_EQ(
      FieldsOf(ValidateTokenIds(spec, 9)),
      (std::vector<std::string>{"prompt.token_ids[1]", "continuation.token_ids[0]",
                                "sampling.logit_bias[9]", "sampling.allowed_token_ids[0]",
                                "stopping.stop_token_ids[0]", "output.logprob_token_ids[0]"}));
  GenerationSpec chat = ValidChat();
  chat.stopping.stop_token_ids = {0, 9};
  EXPECT_EQ(FieldsOf(ValidateTokenIds(chat, 9)),
            std::vector<std::string>{"generation.stopping.stop_token_ids[1]"});
}

}  // namespace
}  // namespace tessera::server
