#include "server/grpc/request_translator.h"

#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <limits>

#include "server/grpc/duration.h"
#include "tessera/v1/inference_service.pb.h"

namespace tessera::server {
namespace {

using Input = PromptSpec::Input;

template <typename Message>
Message FromText(const std::string& text) {
  Message message;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &message)) << text;
  return message;
}
GenerationSpec Generate(const std::string& text) {
  return ToSpec(FromText<v1::GenerateRequest>(text));
}
StatusOr<GenerationSpec> Chat(const std::string& text) {
  return ToSpec(FromText<v1::ChatRequest>(text));
}
std::vector<std::string> FieldsOf(const Status& status) {
  std::vector<std::string> fields;
  for (const FieldViolation& one : ReportOf(status).details.violations) fields.push_back(one.field);
  return fields;
}

// Each field of `message`, also of those inside it, that a test does not set.
void FindUnset(const google::protobuf::Message& message, const std::string& path,
               std::vector<std::string>* unset) {
  const google::protobuf::Descriptor* descriptor = message.GetDescriptor();
  const google::protobuf::Reflection* reflection = message.GetReflection();
  for (int i = 0; i < descriptor->field_count(); ++i) {
    const google::protobuf::FieldDescriptor* field = descriptor->field(i);
    const std::string name = path + std::string(field->name());
    const bool set = field->is_repeated() ? reflection->FieldSize(message, field) > 0
                                          : reflection->HasField(message, field);
    // Of a oneof, one is enough.
    if (!set && field->real_containing_oneof() != nullptr) continue;
    if (!set) unset->push_back(name);
    if (set && !field->is_repeated() && field->message_type() != nullptr &&
        field->message_type()->full_name().rfind("tessera.", 0) == 0) {
      FindUnset(reflection->GetMessage(message, field), name + ".", unset);
    }
  }
}

constexpr const char* kEverything = R"(
  request_id: "r" model: "m"
  prompt { text: "hello" add_special_tokens: false parse_special_tokens: true truncate_to: 7 }
  sampling {
    temperature: 0.5 top_p: 0.25 top_k: 3 min_p: 0.125 typical_p: 0.75 repetition_penalty: 1.5
    presence_penalty: -1 frequency_penalty: -0.5 seed: 18446744073709551615
    logit_bias { key: 5 value: -2 } allowed_token_ids: [1, 2] bad_words: ["x", "y"] n: 4
    beam_width: 6
  }
  stopping {
    max_tokens: 10 min_tokens: 2 stop: ["a", "b"] stop_token_ids: [8, 9] include_stop: true
    ignore_eos: true time_limit { seconds: 1 nanos: 500000000 }
  }
  constraint { regex: "a+" }
  output {
    logprobs: 0 prompt_logprobs: 2 logprob_token_ids: [3] token_ids: true
    skip_special_tokens: false stream_interval: 16 progress: true
  }
  scheduling {
    service_class: "gold" max_queue_wait { seconds: 2 } cache_scope: "c"
    bypass_prefix_cache: true session_id: "s" deterministic: true
  }
  resumable: true
  tags { key: "k" value: "v" })";

TEST(RequestTranslator, TheTestRequestSetsEveryField) {
  std::vector<std::string> unset;
  FindUnset(FromText<v1::GenerateRequest>(kEverything), "", &unset);
  EXPECT_TRUE(unset.empty()) << "not tested: " << unset.front();
}

TEST(RequestTranslator, PromptAndNames) {
  const GenerationSpec spec = Generate(kEverything);
  EXPECT_EQ(spec.request_id, "r");
  EXPECT_EQ(spec.model, "m");
  EXPECT_EQ(spec.prompt.input, Input::kText);
  EXPECT_EQ(spec.prompt.text, "hello");
  EXPECT_EQ(spec.prompt.add_special_tokens, false);
  EXPECT_TRUE(spec.prompt.parse_special_tokens);
  EXPECT_EQ(spec.prompt.truncate_to, 7u);
  EXPECT_EQ(spec.constraint, "regex");
  EXPECT_TRUE(spec.resumable);
  EXPECT_EQ(spec.tags, (std::map<std::string, std::string>{{"k", "v"}}));
  EXPECT_FALSE(spec.chat.has_value());
  EXPECT_FALSE(spec.continuation.has_value());
}

TEST(RequestTranslator, Sampling) {
  const SamplingSpec sampling = Generate(kEverything).sampling;
  EXPECT_EQ(sampling.temperature, 0.5f);
  EXPECT_EQ(sampling.top_p, 0.25f);
  EXPECT_EQ(sampling.top_k, 3u);
  EXPECT_EQ(sampling.min_p, 0.125f);
  EXPECT_EQ(sampling.typical_p, 0.75f);
  EXPECT_EQ(sampling.repetition_penalty, 1.5f);
  EXPECT_EQ(sampling.presence_penalty, -1.0f);
  EXPECT_EQ(sampling.frequency_penalty, -0.5f);
  EXPECT_EQ(sampling.seed, UINT64_MAX);
  EXPECT_EQ(sampling.logit_bias, (std::vector<std::pair<TokenId, float>>{{5, -2.0f}}));
  EXPECT_EQ(sampling.allowed_token_ids, (std::vector<TokenId>{1, 2}));
  EXPECT_EQ(sampling.bad_words, (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(sampling.n, 4u);
  EXPECT_EQ(sampling.beam_width, 6u);
}

TEST(RequestTranslator, StoppingOutputAndScheduling) {
  const GenerationSpec spec = Generate(kEverything);
  EXPECT_EQ(spec.stopping.max_tokens, 10u);
  EXPECT_EQ(spec.stopping.min_tokens, 2u);
  EXPECT_EQ(spec.stopping.stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(spec.stopping.stop_token_ids, (std::vector<TokenId>{8, 9}));
  EXPECT_TRUE(spec.stopping.include_stop);
  EXPECT_TRUE(spec.stopping.ignore_eos);
  EXPECT_EQ(spec.stopping.time_limit, std::chrono::milliseconds(1500));
  EXPECT_EQ(spec.output.logprobs, 0u);
  EXPECT_EQ(spec.output.prompt_logprobs, 2u);
  EXPECT_EQ(spec.output.logprob_token_ids, std::vector<TokenId>{3});
  EXPECT_TRUE(spec.output.token_ids);
  EXPECT_FALSE(spec.output.skip_special_tokens);
  EXPECT_EQ(spec.output.stream_interval, 16u);
  EXPECT_TRUE(spec.output.progress);
  EXPECT_EQ(spec.scheduling.service_class, "gold");
  EXPECT_EQ(spec.scheduling.max_queue_wait, std::chrono::seconds(2));
  EXPECT_EQ(spec.scheduling.cache_scope, "c");
  EXPECT_TRUE(spec.scheduling.bypass_prefix_cache);
  EXPECT_TRUE(spec.scheduling.deterministic);
  EXPECT_EQ(spec.scheduling.session_id, "s");
}

TEST(RequestTranslator, UnsetIsNotZero) {
  const GenerationSpec spec = Generate("");
  EXPECT_EQ(spec.prompt.input, Input::kNone);
  EXPECT_EQ(spec.prompt.add_special_tokens, std::nullopt);
  EXPECT_EQ(spec.prompt.truncate_to, std::nullopt);
  EXPECT_EQ(spec.sampling.temperature, std::nullopt);
  EXPECT_EQ(spec.sampling.top_k, std::nullopt);
  EXPECT_EQ(spec.sampling.seed, std::nullopt);
  EXPECT_EQ(spec.sampling.n, std::nullopt);
  EXPECT_EQ(spec.sampling.beam_width, std::nullopt);
  EXPECT_EQ(spec.stopping.max_tokens, std::nullopt);
  EXPECT_EQ(spec.stopping.time_limit, std::nullopt);
  EXPECT_EQ(spec.output.logprobs, std::nullopt);
  EXPECT_EQ(spec.output.prompt_logprobs, std::nullopt);
  EXPECT_TRUE(spec.output.skip_special_tokens);
  EXPECT_EQ(spec.scheduling.max_queue_wait, std::nullopt);
  EXPECT_EQ(spec.constraint, "");
  const GenerationSpec zero = Generate("sampling { temperature: 0 top_k: 0 seed: 0 }");
  EXPECT_EQ(zero.sampling.temperature, 0.0f);
  EXPECT_EQ(zero.sampling.top_k, 0u);
  EXPECT_EQ(zero.sampling.seed, 0u);
}

TEST(RequestTranslator, PromptsAsIds) {
  const PromptSpec ids = Generate("prompt { token_ids { ids: [0, 4294967295] } }").prompt;
  EXPECT_EQ(ids.input, Input::kTokenIds);
  EXPECT_EQ(ids.token_ids, (std::vector<TokenId>{0, UINT32_MAX}));
  EXPECT_EQ(Generate("prompt { token_ids { } }").prompt.input, Input::kTokenIds);
  // An empty text is a text.
  EXPECT_EQ(Generate("prompt { text: \"\" }").prompt.input, Input::kText);
}

TEST(RequestTranslator, EveryConstraintHasItsName) {
  EXPECT_EQ(Generate("constraint { json_schema: \"{}\" }").constraint, "json_schema");
  EXPECT_EQ(Generate("constraint { json_object: true }").constraint, "json_object");
  EXPECT_EQ(Generate("constraint { grammar: \"g\" }").constraint, "grammar");
  EXPECT_EQ(Generate("constraint { choices { values: \"a\" } }").constraint, "choices");
  EXPECT_EQ(Generate("constraint { }").constraint, "");
}

TEST(RequestTranslator, Chats) {
  const StatusOr<GenerationSpec> spec = Chat(R"(
    messages { role: "user" content: "hi" name: "bob" reasoning: "hm" }
    messages {
      role: "tool" content: "4" tool_call_id: "c1"
      tool_calls { id: "c1" name: "add" arguments_json: "{\"a\":1}" }
    }
    tools { fields { key: "name" value { string_value: "add" } } }
    tools { fields { key: "n" value { number_value: 2 } } }
    tool_choice: "auto"
    template_args { fields { key: "think" value { bool_value: true } } }
    add_generation_prompt: false
    parallel_tool_calls: false
    generation { model: "m" sampling { n: 2 } })");
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->model, "m");
  EXPECT_EQ(spec->sampling.n, 2u);
  EXPECT_EQ(spec->prompt.input, Input::kNone);
  ASSERT_TRUE(spec->chat.has_value());
  const ChatSpec& chat = *spec->chat;
  ASSERT_EQ(chat.messages.size(), 2u);
  EXPECT_EQ(chat.messages[0].role, "user");
  EXPECT_EQ(chat.messages[0].content, "hi");
  EXPECT_EQ(chat.messages[0].name, "bob");
  EXPECT_EQ(chat.messages[0].reasoning, "hm");
  EXPECT_EQ(chat.messages[1].tool_call_id, "c1");
  ASSERT_EQ(chat.messages[1].tool_calls.size(), 1u);
  EXPECT_EQ(chat.messages[1].tool_calls[0].id, "c1");
  EXPECT_EQ(chat.messages[1].tool_calls[0].name, "add");
  EXPECT_EQ(chat.messages[1].tool_calls[0].arguments_json, "{\"a\":1}");
  EXPECT_EQ(chat.tools_json, "[{\"name\":\"add\"},{\"n\":2}]");
  EXPECT_EQ(chat.tool_choice, "auto");
  EXPECT_EQ(chat.template_args_json, "{\"think\":true}");
  EXPECT_FALSE(chat.add_generation_prompt);
  EXPECT_FALSE(chat.parallel_tool_calls);
  const StatusOr<GenerationSpec> plain = Chat("messages { role: \"user\" }");
  ASSERT_TRUE(plain.ok());
  EXPECT_TRUE(plain->chat->parallel_tool_calls);
  EXPECT_TRUE(plain->chat->add_generation_prompt);
  EXPECT_EQ(plain->chat->tools_json, "");
  EXPECT_EQ(plain->chat->template_args_json, "");
}

TEST(RequestTranslator, ValuesWithoutJsonAreRefused) {
  EXPECT_EQ(
      FieldsOf(
          Chat("template_args { fields { key: \"x\" value { number_value: inf } } }").status()),
      std::vector<std::string>{"template_args"});
  v1::ChatRequest deep;
  google::protobuf::Struct* at = deep.add_tools();
  for (int i = 0; i < 90; ++i) at = (*at->mutable_fields())["a"].mutable_struct_value();
  EXPECT_EQ(FieldsOf(ToSpec(deep).status()), std::vector<std::string>{"tools[0]"});
  v1::ChatRequest lists;
  google::protobuf::Value* value = &(*lists.mutable_template_args()->mutable_fields())["a"];
  for (int i = 0; i < 90; ++i) value = value->mutable_list_value()->add_values();
  EXPECT_EQ(FieldsOf(ToSpec(lists).status()), std::vector<std::string>{"template_args"});
  v1::ChatRequest many;
  for (int i = 0; i < 257; ++i) many.add_tools();
  EXPECT_EQ(FieldsOf(ToSpec(many).status()), std::vector<std::string>{"tools"});
}

TEST(RequestTranslator, ScoresAreOneRequestAContinuation) {
  const auto score = [](const std::string& text) {
    return ToSpecs(FromText<v1::ScoreRequest>(text));
  };
  const auto specs = score(R"(
    model: "m" context { text: "a" } continuations { text: "b" }
    continuations { token_ids { ids: 7 } } scheduling { cache_scope: "c" })");
  ASSERT_TRUE(specs.ok()) << specs.status();
  ASSERT_EQ(specs->size(), 2u);
  for (const GenerationSpec& spec : *specs) {
    EXPECT_EQ(spec.model, "m");
    EXPECT_EQ(spec.prompt.text, "a");
    EXPECT_EQ(spec.scheduling.cache_scope, "c");
  }
  EXPECT_EQ((*specs)[0].continuation->text, "b");
  EXPECT_EQ((*specs)[1].continuation->token_ids, std::vector<TokenId>{7});
  EXPECT_EQ(FieldsOf(score("model: \"m\"").status()), std::vector<std::string>{"continuations"});
  v1::ScoreRequest many;
  for (int i = 0; i < 257; ++i) many.add_continuations();
  EXPECT_EQ(FieldsOf(ToSpecs(many).status()), std::vector<std::string>{"continuations"});
}

TEST(RequestTranslator, EmbeddingsAreOneRequestAnInput) {
  const auto embed = [](const std::string& text) {
    return ToSpecs(FromText<v1::EmbedRequest>(text));
  };
  const auto plain = embed(R"(model: "m" inputs { text: "a" } inputs { token_ids { ids: 7 } })");
  ASSERT_TRUE(plain.ok()) << plain.status();
  ASSERT_EQ(plain->size(), 2u);
  EXPECT_EQ((*plain)[1].prompt.token_ids, std::vector<TokenId>{7});
  EXPECT_EQ((*plain)[0].embedding->pooling, scheduler::Pooling::kLast);
  EXPECT_EQ((*plain)[0].embedding->length, EmbeddingSpec::Length::kOne);
  const auto full = embed(R"(model: "m" inputs { text: "a" } pooling: POOLING_MEAN dimensions: 3
                             normalize: false scheduling { cache_scope: "c" })");
  ASSERT_TRUE(full.ok());
  EXPECT_EQ((*full)[0].embedding->pooling, scheduler::Pooling::kMean);
  EXPECT_EQ((*full)[0].embedding->dimensions, 3u);
  EXPECT_EQ((*full)[0].embedding->length, EmbeddingSpec::Length::kAsIs);
  EXPECT_EQ((*full)[0].scheduling.cache_scope, "c");
  const auto cls = embed(R"(inputs { text: "a" } pooling: POOLING_CLS)");
  EXPECT_EQ((*cls)[0].embedding->pooling, scheduler::Pooling::kFirst);
  EXPECT_EQ(FieldsOf(embed("model: \"m\"").status()), std::vector<std::string>{"inputs"});
  v1::EmbedRequest many;
  for (int i = 0; i < 257; ++i) many.add_inputs();
  EXPECT_EQ(FieldsOf(ToSpecs(many).status()), std::vector<std::string>{"inputs"});
  v1::EmbedRequest odd;
  odd.add_inputs()->set_text("a");
  odd.set_pooling(static_cast<v1::Pooling>(9));
  EXPECT_EQ(FieldsOf(ToSpecs(odd).status()), std::vector<std::string>{"pooling"});
}

TEST(Durations, SaturateInsteadOfOverflowing) {
  const auto duration = [](int64_t seconds, int32_t nanos) {
    google::protobuf::Duration proto;
    proto.set_seconds(seconds);
    proto.set_nanos(nanos);
    return FromProto(proto);
  };
  EXPECT_EQ(duration(1, 2), Duration(1'000'000'002));
  EXPECT_EQ(duration(-1, 5), Duration(-999'999'995));
  EXPECT_EQ(duration(std::numeric_limits<int64_t>::max(), 0),
            std::chrono::seconds(kMaxDurationSeconds));
  EXPECT_EQ(duration(std::numeric_limits<int64_t>::min(), 0),
            std::chrono::seconds(-kMaxDurationSeconds));
  // Such a wait can be added to any time of the clock.
  EXPECT_GT(TimePoint(std::chrono::hours(1000)) + duration(INT64_MAX, INT32_MAX),
            TimePoint(std::chrono::hours(1000)));
  for (const Duration value : {Duration(1'500'000'000), Duration(-1), Duration(0)}) {
    EXPECT_EQ(FromProto(ToProto(value)), value);
  }
}

}  // namespace
}  // namespace tessera::server
