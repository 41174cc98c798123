#include "server/http/openai_request.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace tessera::server {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxPrompts = 256;

void ReadFloat(FieldReader* fields, const char* field, std::optional<float>* out) {
  if (const std::optional<double> value = fields->Number(field)) *out = static_cast<float>(*value);
}

void ReadLogitBias(FieldReader* fields, SamplingSpec* sampling) {
  const Json* const value = fields->Find("logit_bias");
  if (value == nullptr) return;
  if (!value->is_object()) {
    fields->Invalid("logit_bias", "must be an object of token ids and numbers");
    return;
  }
  for (const auto& [key, bias] : value->items()) {
    uint32_t id = 0;
    const bool digits = !key.empty() && key.find_first_not_of("0123456789") == std::string::npos;
    if (!digits || !absl::SimpleAtoi(key, &id)) {
      fields->Invalid("logit_bias", "its keys must be token ids, like \"1234\"");
    } else if (!bias.is_number()) {
      fields->Invalid(absl::StrCat("logit_bias[", id, "]"), "must be a number");
    } else {
      sampling->logit_bias.emplace_back(id, bias.get<float>());
    }
  }
}

void ReadSampling(FieldReader* fields, SamplingSpec* sampling) {
  ReadFloat(fields, "temperature", &sampling->temperature);
  ReadFloat(fields, "top_p", &sampling->top_p);
  ReadFloat(fields, "min_p", &sampling->min_p);
  ReadFloat(fields, "typical_p", &sampling->typical_p);
  ReadFloat(fields, "repetition_penalty", &sampling->repetition_penalty);
  ReadFloat(fields, "presence_penalty", &sampling->presence_penalty);
  ReadFloat(fields, "frequency_penalty", &sampling->frequency_penalty);
  if (const std::optional<int64_t> top_k = fields->Integer("top_k")) {
    if (*top_k < -1 || *top_k > INT32_MAX) {
      fields->Invalid("top_k", absl::StrCat("must be at least 1, or 0 or -1 for off, is ", *top_k));
    } else {
      sampling->top_k = static_cast<uint32_t>(std::max<int64_t>(*top_k, 0));
    }
  }
  const Json* const seed = fields->Find("seed");
  if (seed != nullptr && seed->is_number_unsigned()) {
    sampling->seed = seed->get<uint64_t>();
  } else if (const std::optional<int64_t> number = fields->Integer("seed")) {
    sampling->seed = static_cast<uint64_t>(*number);
  }
  sampling->n = fields->Count("n");
  ReadLogitBias(fields, sampling);
  sampling->allowed_token_ids = fields->Ids("allowed_token_ids");
  sampling->bad_words = fields->Texts("bad_words");
  const std::optional<uint32_t> best_of = fields->Count("best_of");
  if (best_of && *best_of != sampling->n.value_or(1)) {
    fields->Unsupported("best_of", "choosing among more answers than n is not offered");
  }
}

void ReadStopping(FieldReader* fields, StoppingSpec* stopping) {
  const std::optional<uint32_t> max_tokens = fields->Count("max_tokens");
  const std::optional<uint32_t> max_completion_tokens = fields->Count("max_completion_tokens");
  stopping->max_tokens = max_completion_tokens ? max_completion_tokens : max_tokens;
  stopping->min_tokens = fields->Count("min_tokens").value_or(0);
  const Json* const stop = fields->Find("stop");
  if (stop != nullptr && stop->is_string()) {
    stopping->stop.push_back(stop->get<std::string>());
  } else if (stop != nullptr && !stop->is_array()) {
    fields->Invalid("stop", "must be a string or a list of strings");
  } else {
    stopping->stop = fields->Texts("stop");
  }
  stopping->stop_token_ids = fields->Ids("stop_token_ids");
  stopping->include_stop = fields->Flag("include_stop_str_in_output").value_or(false);
  stopping->ignore_eos = fields->Flag("ignore_eos").value_or(false);
}

void ReadStreaming(FieldReader* fields, FieldErrors* errors, OpenAiRequest* request) {
  using Request = OpenAiRequest;
  if (fields->Flag("stream").value_or(false)) request->delivery = Request::Delivery::kStream;
  const Json* const value = fields->Find("stream_options");
  if (value == nullptr) return;
  if (!value->is_object()) {
    fields->Invalid("stream_options", "must be an object");
    return;
  }
  if (request->delivery != Request::Delivery::kStream && !errors->Has("stream")) {
    fields->Invalid("stream_options", "needs stream: true; leave it out otherwise");
    return;
  }
  FieldReader options(*value, "stream_options.", errors);
  const bool always = options.Flag("continuous_usage_stats").value_or(false);
  const bool last = options.Flag("include_usage").value_or(false);
  options.Ignore({"include_obfuscation"});
  if (last) request->usage = Request::StreamUsage::kAtTheEnd;
  if (always) request->usage = Request::StreamUsage::kAlways;
  request->unknown_fields += options.CountUnknown();
}

// Fields whose meaning we know and do not have: an answer that ignored them would be another one.
void RefuseCommon(FieldReader* fields) {
  constexpr absl::string_view kConstrained = "constrained output is not offered; leave it out";
  for (const char* field : {"guided_json", "guided_regex", "guided_choice", "guided_grammar",
                            "structured_outputs", "json_schema", "regex", "ebnf", "grammar"}) {
    fields->Refuse(field, kConstrained);
  }
  fields->Refuse("use_beam_search", "beam search is not offered; leave it out");
  if (fields->Find("beam_width") != nullptr) {
    fields->Unsupported("beam_width", "beam search is not offered; leave it out");
  }
  fields->Refuse("logits_processors", "code from requests is not run; leave it out");
  if (fields->Find("prompt_logprobs") != nullptr) {
    fields->Unsupported("prompt_logprobs",
                        "is not offered; completions with echo and logprobs have the prompt's");
  }
  fields->Refuse("prompt_embeds", "only text and token ids are taken as a prompt");
  fields->Ignore({"user", "metadata", "store", "service_tier", "prompt_cache_key",
                  "prompt_cache_retention", "safety_identifier", "priority", "length_penalty",
                  "early_stopping", "spaces_between_special_tokens", "guided_decoding_backend"});
}

void RefuseInChat(FieldReader* fields) {
  fields->Refuse("functions", "is replaced by tools; send those");
  fields->Refuse("function_call", "is replaced by tool_choice; send that");
  fields->Refuse("audio", "only text is made here; leave it out");
  fields->Refuse("prediction", "predicted output is not offered; leave it out");
  fields->Refuse("web_search_options", "searching is not offered; leave it out");
  fields->Refuse("documents", "documents are not offered; put them into a message");
  fields->Refuse("chat_template", "the model's own template is used, never one of a request");
  fields->Refuse("continue_final_message", "is not offered; leave it out");
  fields->Refuse("echo", "is for completions; leave it out");
  if (const Json* const modalities = fields->Find("modalities")) {
    if (!modalities->is_array()) {
      fields->Invalid("modalities", "must be a list of strings");
    } else if (!std::all_of(modalities->begin(), modalities->end(),
                            [](const Json& one) { return one == "text"; })) {
      fields->Unsupported("modalities", "only text is made here");
    }
  }
  fields->Ignore({"reasoning_effort", "verbosity"});
}

void ReadResponseFormat(FieldReader* fields, FieldErrors* errors, GenerationSpec* spec) {
  const Json* const value = fields->Find("response_format");
  if (value == nullptr) return;
  if (!value->is_object()) {
    fields->Invalid("response_format", "must be an object with a type");
    return;
  }
  FieldReader format(*value, "response_format.", errors);
  const std::optional<std::string> type = format.Text("type");
  if (!type || *type == "text") {
    if (!type) format.Invalid("type", "must be set");
  } else if (*type == "json_object" || *type == "json_schema") {
    spec->constraint = *type;
  } else {
    format.Invalid("type", "must be \"text\", \"json_object\" or \"json_schema\"");
  }
}

void ReadCompletion(FieldReader* fields, OpenAiRequest* request, GenerationSpec* spec) {
  spec->output.logprobs = fields->Count("logprobs");
  fields->Refuse("suffix", "filling in before a suffix is not offered; leave it out");
  if (!fields->Flag("echo").value_or(false)) return;
  request->echo = OpenAiRequest::Echo::kBefore;
  spec->output.prompt_logprobs = spec->output.logprobs;
  if (spec->stopping.max_tokens != 0u) return;
  spec->prompt_only = true;
  spec->stopping.max_tokens.reset();
  spec->stopping.min_tokens = 0;
}

void ReadChatOutput(FieldReader* fields, FieldErrors* errors, GenerationSpec* spec) {
  const bool logprobs = fields->Flag("logprobs").value_or(false);
  const std::optional<uint32_t> top = fields->Count("top_logprobs");
  if (logprobs) {
    spec->output.logprobs = top.value_or(0);
  } else if (top.value_or(0) > 0 && !errors->Has("logprobs")) {
    fields->Invalid("top_logprobs", "needs logprobs: true");
  }
}

// What ValidateSpec finds, under the names that the client used.
void Validate(const OpenAiRequest& request, const SpecLimits& limits, FieldErrors* errors) {
  // Specs differ in prompts alone, which ReadPrompts has judged.
  const Status status = ValidateSpec(request.specs.front(), limits);
  if (status.ok()) return;
  const ErrorReport report = ReportOf(status);
  const bool invalid = report.details.condition == Condition::kInvalidParameter;
  for (const FieldViolation& one : report.details.violations) {
    std::string field = OpenAiFieldName(request.endpoint, one.field);
    if (invalid) {
      errors->Invalid(std::move(field), one.description);
    } else {
      errors->Unsupported(std::move(field), one.description);
    }
  }
}

PromptSpec TextPrompt(std::string text) {
  PromptSpec prompt;
  prompt.input = PromptSpec::Input::kText;
  prompt.text = std::move(text);
  return prompt;
}

std::optional<PromptSpec> IdsPrompt(const Json& list, const std::string& field,
                                    FieldReader* fields) {
  PromptSpec prompt;
  prompt.input = PromptSpec::Input::kTokenIds;
  prompt.token_ids.reserve(list.size());
  for (const Json& one : list) {
    const std::optional<uint32_t> id = IdOf(one);
    if (!id) {
      fields->Invalid(absl::StrCat(field, "[", prompt.token_ids.size(), "]"),
                      "must be a token id, as the others are");
      return std::nullopt;
    }
    prompt.token_ids.push_back(*id);
  }
  if (prompt.token_ids.empty()) {
    fields->Invalid(field, "must not be empty");
    return std::nullopt;
  }
  return prompt;
}

}  // namespace

std::vector<PromptSpec> ReadPrompts(FieldReader* fields, const char* field) {
  std::vector<PromptSpec> prompts;
  const Json* const value = fields->Find(field);
  if (value == nullptr || !(value->is_string() || value->is_array())) {
    fields->Invalid(field, absl::StrCat(value == nullptr ? "must be set: " : "must be ",
                                        "a string, a list of strings, a list of token ids, or a "
                                        "list of such lists"));
  } else if (value->is_string()) {
    prompts.push_back(TextPrompt(value->get<std::string>()));
  } else if (value->empty()) {
    fields->Invalid(field, "must not be empty");
  } else if (value->front().is_number()) {
    if (auto prompt = IdsPrompt(*value, field, fields)) prompts.push_back(std::move(*prompt));
  } else if (value->size() > kMaxPrompts) {
    fields->Invalid(field,
                    absl::StrCat("must be at most ", kMaxPrompts, " prompts, is ", value->size()));
  } else {
    for (const Json& one : *value) {
      const std::string place = absl::StrCat(field, "[", &one - &value->front(), "]");
      if (one.is_string()) {
        prompts.push_back(TextPrompt(one.get<std::string>()));
      } else if (!one.is_array()) {
        fields->Invalid(place, "must be a string or a list of token ids");
      } else if (auto prompt = IdsPrompt(one, place, fields)) {
        prompts.push_back(std::move(*prompt));
      }
    }
  }
  return prompts;
}

StatusOr<OpenAiRequest> ParseOpenAiRequest(OpenAiEndpoint endpoint, absl::string_view text,
                                           const SpecLimits& limits) {
  TESSERA_ASSIGN_OR_RETURN(const Json body, ParseJsonBody(text));
  FieldErrors errors;
  FieldReader fields(body, "", &errors);
  OpenAiRequest request;
  request.endpoint = endpoint;
  GenerationSpec spec;
  spec.model = fields.Text("model").value_or("");
  ReadSampling(&fields, &spec.sampling);
  ReadStopping(&fields, &spec.stopping);
  ReadStreaming(&fields, &errors, &request);
  ReadResponseFormat(&fields, &errors, &spec);
  RefuseCommon(&fields);
  spec.output.skip_special_tokens = fields.Flag("skip_special_tokens").value_or(true);
  spec.scheduling.cache_scope = fields.Text("cache_salt").value_or("");
  spec.scheduling.deterministic = fields.Flag("deterministic").value_or(false);
  if (endpoint == OpenAiEndpoint::kChat) {
    RefuseInChat(&fields);
    ReadChatOutput(&fields, &errors, &spec);
    spec.chat = ReadChat(&fields, &errors);
    request.specs.push_back(std::move(spec));
  } else {
    ReadCompletion(&fields, &request, &spec);
    const std::optional<bool> special = fields.Flag("add_special_tokens");
    const std::optional<uint32_t> truncate = fields.Count("truncate_prompt_tokens");
    for (PromptSpec& prompt : ReadPrompts(&fields, "prompt")) {
      prompt.add_special_tokens = special;
      prompt.truncate_to = truncate;
      request.specs.push_back(spec);
      request.specs.back().prompt = std::move(prompt);
    }
    if (request.specs.empty()) request.specs.push_back(std::move(spec));
  }
  Validate(request, limits, &errors);
  TESSERA_RETURN_IF_ERROR(std::move(errors).Finish());
  request.unknown_fields += fields.CountUnknown();
  return request;
}

}  // namespace tessera::server
