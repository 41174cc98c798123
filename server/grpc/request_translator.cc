#include "server/grpc/request_translator.h"

#include <google/protobuf/util/json_util.h>

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/grpc/duration.h"
#include "tessera/v1/inference_service.pb.h"

namespace tessera::server {
namespace {

constexpr int kMaxContinuations = 256;
constexpr int kMaxInputs = 256;
constexpr int kMaxTools = 256;
// Deeper values could exhaust the stack of what walks them.
constexpr int kMaxJsonDepth = 64;

template <typename Field>
std::vector<TokenId> Ids(const Field& field) {
  return {field.begin(), field.end()};
}

SamplingSpec ToSpec(const v1::Sampling& proto) {
  SamplingSpec spec;
  if (proto.has_temperature()) spec.temperature = proto.temperature();
  if (proto.has_top_p()) spec.top_p = proto.top_p();
  if (proto.has_top_k()) spec.top_k = proto.top_k();
  if (proto.has_min_p()) spec.min_p = proto.min_p();
  if (proto.has_typical_p()) spec.typical_p = proto.typical_p();
  if (proto.has_repetition_penalty()) spec.repetition_penalty = proto.repetition_penalty();
  if (proto.has_presence_penalty()) spec.presence_penalty = proto.presence_penalty();
  if (proto.has_frequency_penalty()) spec.frequency_penalty = proto.frequency_penalty();
  if (proto.has_seed()) spec.seed = proto.seed();
  if (proto.has_n()) spec.n = proto.n();
  if (proto.has_beam_width()) spec.beam_width = proto.beam_width();
  spec.logit_bias.assign(proto.logit_bias().begin(), proto.logit_bias().end());
  spec.allowed_token_ids = Ids(proto.allowed_token_ids());
  spec.bad_words.assign(proto.bad_words().begin(), proto.bad_words().end());
  return spec;
}

StoppingSpec ToSpec(const v1::Stopping& proto) {
  StoppingSpec spec;
  if (proto.has_max_tokens()) spec.max_tokens = proto.max_tokens();
  spec.min_tokens = proto.min_tokens();
  spec.stop.assign(proto.stop().begin(), proto.stop().end());
  spec.stop_token_ids = Ids(proto.stop_token_ids());
  spec.include_stop = proto.include_stop();
  spec.ignore_eos = proto.ignore_eos();
  if (proto.has_time_limit()) spec.time_limit = FromProto(proto.time_limit());
  return spec;
}

OutputSpec ToSpec(const v1::Output& proto) {
  OutputSpec spec;
  if (proto.has_logprobs()) spec.logprobs = proto.logprobs();
  if (proto.has_prompt_logprobs()) spec.prompt_logprobs = proto.prompt_logprobs();
  spec.logprob_token_ids = Ids(proto.logprob_token_ids());
  spec.token_ids = proto.token_ids();
  if (proto.has_skip_special_tokens()) spec.skip_special_tokens = proto.skip_special_tokens();
  spec.stream_interval = proto.stream_interval();
  spec.progress = proto.progress();
  return spec;
}

SchedulingSpec ToSpec(const v1::Scheduling& proto) {
  SchedulingSpec spec;
  spec.service_class = proto.service_class();
  if (proto.has_max_queue_wait()) spec.max_queue_wait = FromProto(proto.max_queue_wait());
  spec.cache_scope = proto.cache_scope();
  spec.bypass_prefix_cache = proto.bypass_prefix_cache();
  spec.session_id = proto.session_id();
  spec.deterministic = proto.deterministic();
  return spec;
}

const char* NameOf(v1::Constraint::KindCase kind) {
  switch (kind) {
    case v1::Constraint::kJsonSchema:
      return "json_schema";
    case v1::Constraint::kJsonObject:
      return "json_object";
    case v1::Constraint::kRegex:
      return "regex";
    case v1::Constraint::kGrammar:
      return "grammar";
    case v1::Constraint::kChoices:
      return "choices";
    case v1::Constraint::KIND_NOT_SET:
      break;
  }
  return "";
}

// Why a value cannot be passed on as JSON; empty when it can.
std::string ProblemOf(const google::protobuf::Struct& object, int depth);

std::string ProblemOf(const google::protobuf::Value& value, int depth) {
  if (depth == 0) return absl::StrCat("is nested deeper than ", kMaxJsonDepth);
  if (value.has_number_value() && !std::isfinite(value.number_value())) {
    return "has a number that is not finite, which JSON cannot write";
  }
  if (value.has_struct_value()) return ProblemOf(value.struct_value(), depth - 1);
  if (!value.has_list_value()) return "";
  for (const auto& item : value.list_value().values()) {
    std::string problem = ProblemOf(item, depth - 1);
    if (!problem.empty()) return problem;
  }
  return "";
}

std::string ProblemOf(const google::protobuf::Struct& object, int depth) {
  for (const auto& [key, value] : object.fields()) {
    std::string problem = ProblemOf(value, depth);
    if (!problem.empty()) return problem;
  }
  return "";
}

StatusOr<std::string> JsonOf(const google::protobuf::Struct& object, const std::string& field) {
  std::string problem = ProblemOf(object, kMaxJsonDepth);
  if (!problem.empty()) return InvalidFields({{field, std::move(problem)}});
  std::string json;
  if (!google::protobuf::util::MessageToJsonString(object, &json).ok()) {
    return InvalidFields({{field, "has no JSON form"}});
  }
  return json;
}

MessageSpec ToSpec(const v1::Message& proto) {
  MessageSpec spec;
  spec.role = proto.role();
  spec.content = proto.content();
  spec.name = proto.name();
  for (const v1::ToolCall& call : proto.tool_calls()) {
    spec.tool_calls.push_back({call.id(), call.name(), call.arguments_json()});
  }
  spec.tool_call_id = proto.tool_call_id();
  spec.reasoning = proto.reasoning();
  return spec;
}

}  // namespace

PromptSpec ToSpec(const v1::Prompt& prompt) {
  PromptSpec spec;
  if (prompt.has_text()) {
    spec.input = PromptSpec::Input::kText;
    spec.text = prompt.text();
  } else if (prompt.has_token_ids()) {
    spec.input = PromptSpec::Input::kTokenIds;
    spec.token_ids = Ids(prompt.token_ids().ids());
  }
  if (prompt.has_add_special_tokens()) spec.add_special_tokens = prompt.add_special_tokens();
  spec.parse_special_tokens = prompt.parse_special_tokens();
  if (prompt.has_truncate_to()) spec.truncate_to = prompt.truncate_to();
  return spec;
}

GenerationSpec ToSpec(const v1::GenerateRequest& request) {
  GenerationSpec spec;
  spec.request_id = request.request_id();
  spec.model = request.model();
  if (request.has_prompt()) spec.prompt = ToSpec(request.prompt());
  spec.sampling = ToSpec(request.sampling());
  spec.stopping = ToSpec(request.stopping());
  spec.output = ToSpec(request.output());
  spec.scheduling = ToSpec(request.scheduling());
  spec.constraint = NameOf(request.constraint().kind_case());
  spec.resumable = request.resumable();
  spec.tags.insert(request.tags().begin(), request.tags().end());
  return spec;
}

StatusOr<GenerationSpec> ToSpec(const v1::ChatRequest& request) {
  GenerationSpec spec = ToSpec(request.generation());
  ChatSpec chat;
  for (const v1::Message& message : request.messages()) chat.messages.push_back(ToSpec(message));
  if (request.tools_size() > kMaxTools) {
    return InvalidFields({{"tools", absl::StrCat("must be at most ", kMaxTools, " entries, is ",
                                                 request.tools_size())}});
  }
  for (int i = 0; i < request.tools_size(); ++i) {
    TESSERA_ASSIGN_OR_RETURN(const std::string tool,
                             JsonOf(request.tools(i), absl::StrCat("tools[", i, "]")));
    absl::StrAppend(&chat.tools_json, i == 0 ? "[" : ",", tool);
  }
  if (request.tools_size() > 0) chat.tools_json += "]";
  chat.tool_choice = request.tool_choice();
  chat.parallel_tool_calls = !request.has_parallel_tool_calls() || request.parallel_tool_calls();
  if (request.has_template_args()) {
    TESSERA_ASSIGN_OR_RETURN(chat.template_args_json,
                             JsonOf(request.template_args(), "template_args"));
  }
  if (request.has_add_generation_prompt()) {
    chat.add_generation_prompt = request.add_generation_prompt();
  }
  spec.chat = std::move(chat);
  return spec;
}

StatusOr<std::vector<GenerationSpec>> ToSpecs(const v1::ScoreRequest& request) {
  if (request.continuations_size() == 0 || request.continuations_size() > kMaxContinuations) {
    return InvalidFields(
        {{"continuations", absl::StrCat("must be 1 to ", kMaxContinuations, " entries, is ",
                                        request.continuations_size())}});
  }
  std::vector<GenerationSpec> specs;
  for (const v1::Prompt& continuation : request.continuations()) {
    GenerationSpec& spec = specs.emplace_back();
    spec.model = request.model();
    if (request.has_context()) spec.prompt = ToSpec(request.context());
    spec.continuation = ToSpec(continuation);
    spec.scheduling = ToSpec(request.scheduling());
  }
  return specs;
}

StatusOr<std::vector<GenerationSpec>> ToSpecs(const v1::EmbedRequest& request) {
  if (request.inputs_size() == 0 || request.inputs_size() > kMaxInputs) {
    return InvalidFields({{"inputs", absl::StrCat("must be 1 to ", kMaxInputs, " entries, is ",
                                                  request.inputs_size())}});
  }
  EmbeddingSpec embedding;
  switch (request.pooling()) {
    case v1::POOLING_UNSPECIFIED:
    case v1::POOLING_LAST:
      embedding.pooling = scheduler::Pooling::kLast;
      break;
    case v1::POOLING_MEAN:
      embedding.pooling = scheduler::Pooling::kMean;
      break;
    case v1::POOLING_CLS:
      embedding.pooling = scheduler::Pooling::kFirst;
      break;
    default:
      return InvalidFields({{"pooling", absl::StrCat("is no kind of pooling: ",
                                                     static_cast<int>(request.pooling()))}});
  }
  if (request.has_dimensions()) embedding.dimensions = request.dimensions();
  if (request.has_normalize() && !request.normalize()) {
    embedding.length = EmbeddingSpec::Length::kAsIs;
  }
  std::vector<GenerationSpec> specs;
  for (const v1::Prompt& input : request.inputs()) {
    GenerationSpec& spec = specs.emplace_back();
    spec.model = request.model();
    spec.prompt = ToSpec(input);
    spec.embedding = embedding;
    spec.scheduling = ToSpec(request.scheduling());
  }
  return specs;
}

}  // namespace tessera::server
