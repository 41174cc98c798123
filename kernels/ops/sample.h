// From logits to one token a row, with log-probabilities (api_ops §3.1).
//
// Order: logit bias, allowed ids and banned ids -> repetition, presence and frequency penalties ->
// temperature -> min_p -> top_k -> typical_p -> top_p -> draw. temperature 0 is the argmax after
// bias and penalties; ties take the lowest id. Log-probabilities are of the raw logits. The draw is
// counter-based (Philox-like on (seed, counter)): it depends on nothing but the row.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "config/foundation/ids.h"

namespace tessera::kernels {

// Floats from a row of logits to the next: rows begin at 16 bytes.
[[nodiscard]] constexpr int64_t LogitsStride(int64_t vocab) { return (vocab + 3) / 4 * 4; }

struct TokenBias {
  TokenId id;
  float bias;
};

// How often a token of the context occurred; sorted by id, unique.
struct TokenCount {
  TokenId id;
  uint32_t in_prompt;
  uint32_t in_output;
};

struct TokenLogprob {
  TokenId id;
  float logprob;
};

struct SampleRow {
  const float* logits = nullptr;  // [vocab]
  float temperature = 1.0f;       // 0: greedy
  float top_p = 1.0f;             // (0, 1]
  float min_p = 0.0f;             // [0, 1]
  float typical_p = 1.0f;         // (0, 1]
  uint32_t top_k = 0;             // 0: off
  float repetition_penalty = 1.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  uint64_t seed = 0;
  uint64_t counter = 0;                  // index of the token in its sequence
  std::span<const TokenCount> counts;    // for the penalties
  std::span<const TokenBias> bias;       // sorted by id, unique
  std::span<const TokenId> allowed;      // sorted; empty: all
  std::span<const TokenId> banned;       // sorted (min_tokens, bad words)
  std::span<const TokenId> logprob_ids;  // also wanted, in any order
  uint32_t top_logprobs = 0;             // how many of the best to report
  // -1: draw. >= 0: the token is given (scoring a prompt); report its log-probability and rank.
  int64_t forced = -1;
  bool want_logprob = false;
  int32_t slot = -1;  // where Params::drawn takes the token; -1: nowhere
  // A token of the output that is not in `counts` yet, by its slot in Params::drawn; -1: none. For
  // backends that may have several steps in flight.
  int32_t pending = -1;
};

struct SampleResult {
  TokenId token = 0;
  uint32_t rank = 0;  // 1 = most likely by raw logits, ties in favour of the token; 0: not asked
  float logprob = 0;  // of raw logits; valid when want_logprob or top_logprobs > 0
  bool is_argmax = false;  // token is the raw argmax (lowest id among ties)
};

struct SampleOp {
  static constexpr const char* kName = "sample";
  static constexpr uint32_t kMaxTopLogprobs = 128;
  struct Desc {
    int64_t vocab = 0;
  };
  struct Params {
    std::span<const SampleRow> rows;  // host memory, with what its spans name
    int32_t vocab = 0;
    SampleResult* results = nullptr;  // [rows]
    TokenId* drawn = nullptr;         // [slots] or null
    // [rows, top_stride]: first top_logprobs entries by falling log-probability (ties: lowest id),
    // then one for each of logprob_ids. Null when no row asks.
    TokenLogprob* top = nullptr;
    int32_t top_stride = 0;
  };
};
[[nodiscard]] std::string Describe(const SampleOp::Desc& desc);

}  // namespace tessera::kernels
