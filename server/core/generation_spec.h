// A generation request as a value, whichever front door it came through; and its validation.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "config/foundation/clock.h"
#include "config/foundation/ids.h"
#include "config/settings.h"
#include "server/core/embedding.h"
#include "server/core/errors.h"

namespace tessera::server {

struct PromptSpec {
  enum class Input : uint8_t { kNone, kText, kTokenIds } input = Input::kNone;
  std::string text;  // valid UTF-8
  std::vector<TokenId> token_ids;
  std::optional<bool> add_special_tokens;  // unset: as the tokenizer says
  bool parse_special_tokens = false;       // false: control tokens in text stay text
  std::optional<uint32_t> truncate_to;     // keep the last this many tokens
};

struct ToolCallSpec {
  std::string id;
  std::string name;
  std::string arguments_json;
};

struct MessageSpec {
  std::string role;
  std::string content;
  std::string name;
  std::vector<ToolCallSpec> tool_calls;
  std::string tool_call_id;
  std::string reasoning;
};

struct ChatSpec {
  std::vector<MessageSpec> messages;
  std::string tools_json;           // a JSON array; empty: none
  std::string tool_choice;          // "", "auto" or "none"
  bool parallel_tool_calls = true;  // false: calls after the first are left out of the answer
  std::string template_args_json;   // a JSON object; empty: none
  bool add_generation_prompt = true;
};

// Unset: the model's default, then the program's (temperature 1, everything else off).
struct SamplingSpec {
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<uint32_t> top_k;  // 0: off
  std::optional<float> min_p;
  std::optional<float> typical_p;
  std::optional<float> repetition_penalty;
  std::optional<float> presence_penalty;
  std::optional<float> frequency_penalty;
  std::optional<uint64_t> seed;  // unset: random
  std::vector<std::pair<TokenId, float>> logit_bias;
  std::vector<TokenId> allowed_token_ids;
  std::vector<std::string> bad_words;
  std::optional<uint32_t> n;  // unset: 1
  std::optional<uint32_t> beam_width;
};

struct StoppingSpec {
  std::optional<uint32_t> max_tokens;  // unset: to the end of the context
  uint32_t min_tokens = 0;
  std::vector<std::string> stop;
  std::vector<TokenId> stop_token_ids;
  bool include_stop = false;
  bool ignore_eos = false;
  std::optional<Duration> time_limit;  // from arrival; soft
};

struct OutputSpec {
  std::optional<uint32_t> logprobs;
  std::optional<uint32_t> prompt_logprobs;
  std::vector<TokenId> logprob_token_ids;
  bool token_ids = false;           // list tokens in deltas (also done when logprobs are asked)
  bool skip_special_tokens = true;  // in text
  uint32_t stream_interval = 0;     // tokens a delta at least; 0: each step
  bool progress = false;
};

struct SchedulingSpec {
  std::string service_class;
  std::optional<Duration> max_queue_wait;  // unset: the server's
  std::string cache_scope;                 // prefixes are shared inside it alone
  bool bypass_prefix_cache = false;
  std::string session_id;      // a hint; nothing depends on it
  bool deterministic = false;  // the tokens do not depend on what else runs
};

struct GenerationSpec {
  std::string request_id;  // empty: one is made
  std::string model;
  PromptSpec prompt;  // or chat
  std::optional<ChatSpec>
      chat;  // rendered by the model's template; control tokens of data stay text
  // Set: nothing is generated; the log-probabilities of these tokens after the prompt are the
  // answer, delivered as prompt tokens.
  std::optional<PromptSpec> continuation;
  // Set: nothing is generated; the answer is a vector.
  std::optional<EmbeddingSpec> embedding;
  // Nothing is generated: the prompt's log-probabilities are the answer, if they are asked for.
  bool prompt_only = false;
  SamplingSpec sampling;
  StoppingSpec stopping;
  OutputSpec output;
  SchedulingSpec scheduling;
  std::string constraint;  // name of the kind that was asked for ("json_schema"); empty: none
  bool resumable = false;
  std::map<std::string, std::string> tags;
  std::optional<TimePoint> deadline;  // hard

  [[nodiscard]] bool generates() const { return !continuation && !embedding && !prompt_only; }
};

// Bounds that an operator may move. Others are constants of generation_spec.cc.
struct SpecLimits {
  uint32_t n = 8;
  uint32_t logprobs = 20;
  uint32_t prompt_logprobs = 5;
  uint32_t entries = 1024;  // logit_bias, allowed_token_ids, bad_words
  uint32_t stops = 16;
  uint64_t stop_bytes = 256;
  Duration max_request_time = std::chrono::minutes(10);
};
[[nodiscard]] SpecLimits LimitsOf(const LimitSettings& settings);

// OK, or all violations at once: INVALID_ARGUMENT, or UNIMPLEMENTED when nothing is wrong but
// something is not offered. Field paths are those of tessera.v1.GenerateRequest; fields of the chat
// have those of ChatRequest ("messages[0].role") and then the others start with "generation.".
[[nodiscard]] Status ValidateSpec(const GenerationSpec& spec, const SpecLimits& limits);
// The fields of a prompt alone, under `path`.
void ValidatePrompt(const PromptSpec& prompt, const std::string& path,
                    std::vector<FieldViolation>* violations);
// What needs the model: every token id is below `vocab`.
[[nodiscard]] Status ValidateTokenIds(const GenerationSpec& spec, uint64_t vocab);

}  // namespace tessera::server
