// What the server asks of the engine: an immutable request, and the events that answer it. Only ids
// and values; text never reaches the engine.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "config/foundation/clock.h"
#include "config/foundation/digest.h"
#include "config/foundation/ids.h"
#include "config/foundation/status.h"
#include "kernels/ops/sample.h"

namespace tessera::scheduler {

// Ranges are checked by the server (api_ops §3.1); the engine checks only what could break it.
struct SamplingSettings {
  float temperature = 1.0f;  // 0: greedy
  float top_p = 1.0f;
  float min_p = 0.0f;
  float typical_p = 1.0f;
  uint32_t top_k = 0;
  float repetition_penalty = 1.0f;              // counts prompt and output
  float presence_penalty = 0.0f;                // output only
  float frequency_penalty = 0.0f;               // output only
  uint64_t seed = 0;                            // choice c of n draws with seed + c
  std::vector<kernels::TokenBias> bias;         // sorted by id, unique
  std::vector<TokenId> allowed;                 // sorted; empty: all
  std::vector<std::vector<TokenId>> bad_words;  // token sequences that must not be completed
};

struct StoppingSettings {
  uint32_t max_tokens = 0;        // >= 1; prompt + max_tokens <= the chain's context
  uint32_t min_tokens = 0;        // no end or stop before this many
  std::vector<std::string> stop;  // byte strings, not empty
  std::vector<TokenId> stop_token_ids;
  std::vector<TokenId>
      end_token_ids;          // the chain's; banned while min_tokens holds, ignored with ignore_eos
  bool include_stop = false;  // keep the matched stop text or token in the output
  bool ignore_eos = false;
  std::optional<TimePoint> soft_deadline;  // ends with kTimeLimit and the tokens so far
};

struct OutputSettings {
  // Report each token's log-probability and rank, and this many of the best.
  std::optional<uint32_t> logprobs;
  // The same for prompt tokens (from the second on); bypasses prefix hits.
  std::optional<uint32_t> prompt_logprobs;
  // Prompt log-probabilities are wanted from this prompt index on (scoring a continuation);
  // positions before it may come from the cache.
  uint32_t prompt_logprobs_from = 1;
  std::vector<TokenId> logprob_ids;
  bool progress = false;  // prefill progress events
};

// What is made of a prompt's final hidden states (after the last norm), one vector of the chain's
// width.
enum class Pooling : uint8_t {
  kNone,
  kMean,   // of all tokens
  kLast,   // the last token's
  kFirst,  // the first token's
};

struct GenerationRequest {
  RequestId id;
  ChainId chain;
  std::vector<TokenId> prompt;  // not empty, each < vocab
  SamplingSettings sampling;
  StoppingSettings stopping;
  OutputSettings output;
  uint32_t n = 1;
  // Its tokens must not depend on what else runs. UNIMPLEMENTED where the engine cannot give that.
  bool deterministic = false;
  Digest cache_scope;
  bool bypass_prefix_cache = false;
  bool prompt_only = false;  // compute the prompt and finish without sampling
  // With prompt_only, and a chain whose pooling() is OK: the answer is MailboxBatch::pooled.
  Pooling pooling = Pooling::kNone;
  TimePoint arrival;
  std::optional<TimePoint> deadline;        // hard: DEADLINE_EXCEEDED
  std::optional<TimePoint> queue_deadline;  // still waiting then: UNAVAILABLE
};

enum class FinishReason : uint8_t {
  kNone,
  kEos,
  kStop,
  kMaxTokens,
  kContextFull,
  kTimeLimit,
  kCancelled,
};

struct StartedEvent {
  uint32_t prompt_tokens = 0;
  uint32_t cached_tokens = 0;
  Duration queue_wait{};
};

struct ProgressEvent {
  uint32_t queue_position = 0;
  uint32_t prompt_tokens_done = 0;
  uint32_t prompt_tokens_total = 0;
};

// One token of the output (or of the prompt, when prompt log-probabilities were asked).
struct TokenEvent {
  static constexpr uint32_t kAllBytes = UINT32_MAX;
  uint32_t choice = 0;
  TokenId token = 0;
  uint32_t visible_bytes = kAllBytes;  // a stop text may cut the last token
  uint32_t rank = 0;
  float logprob = 0;
  uint32_t top_begin = 0;  // in MailboxBatch::top
  uint32_t top_count = 0;
  bool has_logprob = false;
  bool is_argmax = false;
  bool is_prompt = false;
};

struct FinishedEvent {
  uint32_t choice = 0;
  FinishReason reason = FinishReason::kNone;
  int32_t stop_index = -1;            // which of StoppingSettings::stop matched
  std::optional<TokenId> stop_token;  // which stop or end token ended it
  uint32_t completion_tokens = 0;     // tokens of this choice in the output
  uint32_t preemptions = 0;
  Duration prefill{};
  Duration decode{};
  bool last = false;  // no further event follows
};

}  // namespace tessera::scheduler
