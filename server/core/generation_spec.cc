#include "server/core/generation_spec.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "server/text/utf8.h"

namespace tessera::server {
namespace {

constexpr size_t kMaxIdBytes = 128;
constexpr size_t kMaxNameBytes = 256;
constexpr size_t kMaxLogprobIds = 128;
constexpr size_t kMaxMessages = 4096;
constexpr size_t kMaxTags = 16;
constexpr size_t kMaxTagBytes = 256;
constexpr float kMaxBias = 100;

// Gathers violations under one path.
class Report {
 public:
  explicit Report(std::string prefix) : prefix_(std::move(prefix)) {}

  void Add(absl::string_view field, std::string description) {
    violations_.push_back({absl::StrCat(prefix_, field), std::move(description)});
  }
  void AddUnsupported(absl::string_view field, absl::string_view why) {
    unsupported_.push_back({absl::StrCat(prefix_, field), std::string(why)});
  }
  // NaN is in no range.
  enum class Low : uint8_t { kIncluded, kExcluded };
  void Range(absl::string_view field, const std::optional<float>& value, float low, float high,
             Low end = Low::kIncluded) {
    if (!value) return;
    const bool above = end == Low::kIncluded ? *value >= low : *value > low;
    if (above && *value <= high) return;
    Add(field, absl::StrCat("must be in ", end == Low::kIncluded ? "[" : "(", low, ", ", high,
                            "], is ", *value));
  }
  void AtMost(absl::string_view field, uint64_t value, uint64_t limit,
              absl::string_view unit = "") {
    if (value > limit) Add(field, absl::StrCat("must be at most ", limit, unit, ", is ", value));
  }
  void Text(absl::string_view field, absl::string_view text, size_t max_bytes) {
    AtMost(field, text.size(), max_bytes, " bytes");
    for (const char c : text) {
      if (static_cast<unsigned char>(c) >= 0x20 && c != 0x7f) continue;
      Add(field, "must not have control characters");
      return;
    }
  }
  void set_prefix(std::string prefix) { prefix_ = std::move(prefix); }
  std::vector<FieldViolation>* violations() { return &violations_; }

  [[nodiscard]] Status Finish() && {
    if (violations_.empty() && unsupported_.empty()) return absl::OkStatus();
    if (!violations_.empty()) {
      violations_.insert(violations_.end(), unsupported_.begin(), unsupported_.end());
      return InvalidFields(std::move(violations_));
    }
    ErrorDetails details;
    details.condition = Condition::kUnsupported;
    std::string message;
    for (const FieldViolation& one : unsupported_) {
      absl::StrAppend(&message, message.empty() ? "" : "; ", one.field, ": ", one.description);
    }
    details.violations = std::move(unsupported_);
    return MakeError(details, message);
  }

 private:
  std::string prefix_;
  std::vector<FieldViolation> violations_;
  std::vector<FieldViolation> unsupported_;
};

void CheckSampling(const SamplingSpec& sampling, const SpecLimits& limits, Report* report) {
  report->Range("sampling.temperature", sampling.temperature, 0, 2);
  report->Range("sampling.top_p", sampling.top_p, 0, 1, Report::Low::kExcluded);
  report->Range("sampling.min_p", sampling.min_p, 0, 1);
  report->Range("sampling.typical_p", sampling.typical_p, 0, 1, Report::Low::kExcluded);
  report->Range("sampling.repetition_penalty", sampling.repetition_penalty, 0, 2,
                Report::Low::kExcluded);
  report->Range("sampling.presence_penalty", sampling.presence_penalty, -2, 2);
  report->Range("sampling.frequency_penalty", sampling.frequency_penalty, -2, 2);
  report->AtMost("sampling.logit_bias", sampling.logit_bias.size(), limits.entries, " entries");
  for (const auto& [id, bias] : sampling.logit_bias) {
    report->Range(absl::StrCat("sampling.logit_bias[", id, "]"), bias, -kMaxBias, kMaxBias);
    if (report->violations()->size() > limits.entries) break;
  }
  report->AtMost("sampling.allowed_token_ids", sampling.allowed_token_ids.size(), limits.entries,
                 " entries");
  report->AtMost("sampling.bad_words", sampling.bad_words.size(), limits.entries, " entries");
  for (size_t i = 0; i < sampling.bad_words.size() && i < limits.entries; ++i) {
    const std::string field = absl::StrCat("sampling.bad_words[", i, "]");
    if (sampling.bad_words[i].empty()) report->Add(field, "must not be empty");
    report->AtMost(field, sampling.bad_words[i].size(), limits.stop_bytes, " bytes");
  }
  if (sampling.n) {
    if (*sampling.n == 0) report->Add("sampling.n", "must be at least 1");
    report->AtMost("sampling.n", *sampling.n, limits.n);
  }
  if (sampling.beam_width) {
    report->AddUnsupported("sampling.beam_width", "beam search is not offered; leave it out");
  }
}

void CheckStopping(const StoppingSpec& stopping, const SpecLimits& limits, Report* report) {
  if (stopping.max_tokens && *stopping.max_tokens == 0) {
    report->Add("stopping.max_tokens", "must be at least 1; leave it out for no bound");
  }
  if (stopping.max_tokens && stopping.min_tokens > *stopping.max_tokens) {
    report->Add("stopping.min_tokens",
                absl::StrCat("must be at most max_tokens (", *stopping.max_tokens, "), is ",
                             stopping.min_tokens));
  }
  report->AtMost("stopping.stop", stopping.stop.size(), limits.stops, " entries");
  for (size_t i = 0; i < stopping.stop.size() && i < limits.stops; ++i) {
    const std::string field = absl::StrCat("stopping.stop[", i, "]");
    if (stopping.stop[i].empty()) report->Add(field, "must not be empty");
    report->AtMost(field, stopping.stop[i].size(), limits.stop_bytes, " bytes");
  }
  report->AtMost("stopping.stop_token_ids", stopping.stop_token_ids.size(), limits.entries,
                 " entries");
  if (stopping.time_limit && *stopping.time_limit <= Duration::zero()) {
    report->Add("stopping.time_limit", "must be above zero; leave it out for no bound");
  }
}

void CheckOutput(const OutputSpec& output, const SpecLimits& limits, Report* report) {
  if (output.logprobs) report->AtMost("output.logprobs", *output.logprobs, limits.logprobs);
  if (output.prompt_logprobs) {
    report->AtMost("output.prompt_logprobs", *output.prompt_logprobs, limits.prompt_logprobs);
  }
  report->AtMost("output.logprob_token_ids", output.logprob_token_ids.size(), kMaxLogprobIds,
                 " entries");
}

void CheckScheduling(const GenerationSpec& spec, Report* report) {
  const SchedulingSpec& scheduling = spec.scheduling;
  if (!scheduling.service_class.empty() && scheduling.service_class != "default") {
    report->AddUnsupported("scheduling.service_class",
                           "there is one class, \"default\"; leave it out");
  }
  if (scheduling.max_queue_wait && *scheduling.max_queue_wait < Duration::zero()) {
    report->Add("scheduling.max_queue_wait", "must not be negative");
  }
  report->Text("scheduling.cache_scope", scheduling.cache_scope, kMaxNameBytes);
  report->Text("scheduling.session_id", scheduling.session_id, kMaxNameBytes);
  if (!spec.constraint.empty()) {
    report->AddUnsupported(absl::StrCat("constraint.", spec.constraint),
                           "constrained output is not offered; leave it out");
  }
  if (spec.resumable) {
    report->AddUnsupported("resumable", "resuming a stream is not offered; leave it out");
  }
  report->AtMost("tags", spec.tags.size(), kMaxTags, " entries");
  for (const auto& [key, value] : spec.tags) {
    report->AtMost("tags", key.size() + value.size(), kMaxTagBytes, " bytes each");
  }
}

void CheckChat(const ChatSpec& chat, Report* report) {
  if (chat.messages.empty()) report->Add("messages", "must not be empty");
  report->AtMost("messages", chat.messages.size(), kMaxMessages, " entries");
  for (size_t i = 0; i < chat.messages.size() && i < kMaxMessages; ++i) {
    const std::string field = absl::StrCat("messages[", i, "]");
    if (chat.messages[i].role.empty()) report->Add(field + ".role", "must be set");
    report->Text(field + ".role", chat.messages[i].role, kMaxIdBytes);
  }
  if (!chat.tool_choice.empty() && chat.tool_choice != "auto" && chat.tool_choice != "none") {
    report->AddUnsupported("tool_choice", "only \"auto\" and \"none\" are offered");
  }
}

void CheckIds(const std::vector<TokenId>& ids, absl::string_view field, uint64_t vocab,
              std::vector<FieldViolation>* violations) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < vocab) continue;
    violations->push_back(
        {absl::StrCat(field, "[", i, "]"),
         absl::StrCat("must be below ", vocab, ", the model's vocabulary, is ", ids[i])});
    return;  // one a field says enough
  }
}

}  // namespace

SpecLimits LimitsOf(const LimitSettings& settings) {
  SpecLimits limits;
  limits.n = static_cast<uint32_t>(settings.n);
  limits.logprobs = static_cast<uint32_t>(settings.logprobs);
  limits.prompt_logprobs = static_cast<uint32_t>(settings.prompt_logprobs);
  limits.entries = static_cast<uint32_t>(settings.logit_bias);
  limits.stops = static_cast<uint32_t>(settings.stop.count);
  limits.stop_bytes = static_cast<uint64_t>(settings.stop.bytes.bytes);
  limits.max_request_time = settings.max_request_time;
  return limits;
}

void ValidatePrompt(const PromptSpec& prompt, const std::string& path,
                    std::vector<FieldViolation>* violations) {
  if (prompt.input == PromptSpec::Input::kNone) {
    violations->push_back({path, "must have text or token_ids"});
  }
  if (prompt.input == PromptSpec::Input::kTokenIds && prompt.token_ids.empty()) {
    violations->push_back({path + ".token_ids", "must not be empty"});
  }
  if (prompt.truncate_to && *prompt.truncate_to == 0) {
    violations->push_back({path + ".truncate_to", "must be at least 1; leave it out for no bound"});
  }
}

Status ValidateSpec(const GenerationSpec& spec, const SpecLimits& limits) {
  Report report("");
  if (spec.chat) {
    CheckChat(*spec.chat, &report);
    report.set_prefix("generation.");
    if (spec.prompt.input != PromptSpec::Input::kNone) {
      report.Add("prompt", "must not be set in a chat; the messages are the prompt");
    }
  } else {
    ValidatePrompt(spec.prompt, "prompt", report.violations());
  }
  if (spec.continuation) {
    ValidatePrompt(*spec.continuation, "continuation", report.violations());
    if (spec.continuation->truncate_to) {
      report.Add("continuation.truncate_to", "must not be set: all of it is scored");
    }
  }
  if (spec.embedding && spec.embedding->dimensions == 0u) {
    report.Add("dimensions", "must be at least 1; leave it out for all");
  }
  if (!spec.generates() && spec.sampling.n.value_or(1) > 1) {
    report.Add("sampling.n", "must be 1 where nothing is generated");
  }
  if (spec.model.empty()) report.Add("model", "must be set");
  report.Text("model", spec.model, kMaxNameBytes);
  report.Text("request_id", spec.request_id, kMaxIdBytes);
  CheckSampling(spec.sampling, limits, &report);
  CheckStopping(spec.stopping, limits, &report);
  CheckOutput(spec.output, limits, &report);
  CheckScheduling(spec, &report);
  return std::move(report).Finish();
}

Status ValidateTokenIds(const GenerationSpec& spec, uint64_t vocab) {
  std::vector<FieldViolation> violations;
  CheckIds(spec.prompt.token_ids, "prompt.token_ids", vocab, &violations);
  if (spec.continuation) {
    CheckIds(spec.continuation->token_ids, "continuation.token_ids", vocab, &violations);
  }
  for (const auto& [id, bias] : spec.sampling.logit_bias) {
    if (id < vocab) continue;
    // By its key, as the range of its value is reported: a map has no positions.
    violations.push_back({absl::StrCat("sampling.logit_bias[", id, "]"),
                          absl::StrCat("must be below ", vocab, ", the model's vocabulary")});
    break;
  }
  CheckIds(spec.sampling.allowed_token_ids, "sampling.allowed_token_ids", vocab, &violations);
  CheckIds(spec.stopping.stop_token_ids, "stopping.stop_token_ids", vocab, &violations);
  CheckIds(spec.output.logprob_token_ids, "output.logprob_token_ids", vocab, &violations);
  if (violations.empty()) return absl::OkStatus();
  if (spec.chat) {
    for (FieldViolation& violation : violations) violation.field.insert(0, "generation.");
  }
  return InvalidFields(std::move(violations));
}

}  // namespace tessera::server
