// One generation in progress, and the request that it answers. Owned by the engine thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "config/foundation/clock.h"
#include "config/foundation/fetching.h"
#include "kernels/ops/sample.h"
#include "kvcache/kv_cache.h"
#include "scheduler/live_chains.h"
#include "scheduler/request.h"
#include "scheduler/stop_matcher.h"
#include "scheduler/stream_mailbox.h"

namespace tessera::scheduler {

struct Request;

enum class SequencePhase : uint8_t { kWaiting, kRunning, kFinished };

// A choice of a request: tokens, position, sampler and cache state.
//
// What an ordinary step of decoding asks fills the first kHotLines lines of memory, with the facts
// of the request among it: a step touches hundreds of sequences, and its kernels push them out of
// the near caches each time.
struct alignas(64) Sequence {
  Sequence(Request* request, uint32_t choice);

  Request* request;
  LiveChain* chain;
  std::shared_ptr<StreamMailbox> mailbox;
  // Prompt, then output. Room for everything is reserved at the start.
  std::vector<TokenId> tokens;
  uint32_t prompt_length;
  uint32_t computed =
      0;  // leading tokens whose state is in the cache, or will be by steps in flight

  TimePoint last_token_at{};
  std::optional<TimePoint> first_token_at;
  std::optional<TimePoint> parked_since;
  uint32_t choice;
  uint32_t emitted = 0;   // output tokens shown to the reader
  uint32_t max_length;    // tokens, by max_tokens and the chain's context
  int32_t slot = -1;      // while it runs: its place in what steps keep of sequences
  uint8_t pending = 0;    // tokens that a step in flight draws
  uint8_t in_flight = 0;  // steps that name it
  SequencePhase phase = SequencePhase::kWaiting;
  bool prompt_only;
  bool logprobs;      // OutputSettings::logprobs
  bool progress;      // OutputSettings::progress
  bool penalties;     // `counts` is kept
  bool bans;          // there may be tokens to ban
  bool stop_strings;  // `stop` has some
  bool forks;         // one of several choices
  bool lockstep;      // the next draw depends on the last in a way that only the host knows
  // Its rows run in steps of numerics other than kFast.
  bool deterministic;

  // End and stop tokens that end it once min_tokens are out.
  absl::InlinedVector<TokenId, 6> last_tokens;
  uint64_t request_id;
  kvcache::SequenceCache cache;

  static constexpr int kHotLines = 4;
  // Begins to bring the hot lines near, to be written.
  TESSERA_FETCHING void Prefetch() const {
    for (int line = 0; line < kHotLines; ++line) {
      __builtin_prefetch(reinterpret_cast<const std::byte*>(this) + 64 * line, 1);
    }
  }

  // The same for what DrawRow and the next row read.
  TESSERA_FETCHING void PrefetchDraw() const {
    __builtin_prefetch(tokens.data() + computed);
    const auto* begin = reinterpret_cast<const std::byte*>(&draw);
    for (size_t at = 0; at < sizeof(draw); at += 64) __builtin_prefetch(begin + at);
  }

  uint32_t preemptions = 0;
  uint32_t prompt_reported = 0;  // last prompt token whose log-probability was reported
  TimePoint admitted_at{};
  StopMatcher stop;
  // Tokens that a stop string may still claim, with their ends in output bytes.
  struct Held {
    TokenEvent event;
    uint64_t begin = 0;
    uint64_t end = 0;
    std::vector<kernels::TokenLogprob> top;
  };
  std::vector<Held> held;

  // Sums of the hidden states that are pooled, [width] once admitted; empty without pooling.
  std::vector<double> pooled;

  // Occurrences for the penalties, sorted by id; empty when no penalty is set.
  std::vector<kernels::TokenCount> counts;
  std::vector<TokenId> banned;  // of the next draw
  kernels::SampleRow draw;      // what DrawRow begins with: all that no token changes

  [[nodiscard]] uint32_t prompt_tokens() const { return prompt_length; }
  [[nodiscard]] uint32_t output_tokens() const {
    return static_cast<uint32_t>(tokens.size()) - prompt_tokens();
  }
  // Tokens, with those that steps in flight draw.
  [[nodiscard]] uint32_t length() const { return static_cast<uint32_t>(tokens.size()) + pending; }
  [[nodiscard]] uint32_t uncomputed() const { return length() - computed; }
};

struct Request {
  Request(GenerationRequest given, std::shared_ptr<StreamMailbox> box, LiveChain* live);

  GenerationRequest spec;
  std::shared_ptr<StreamMailbox> mailbox;
  LiveChain* chain;
  std::vector<std::unique_ptr<Sequence>> choices;
  uint32_t unfinished = 0;
  bool admitted = false;  // has left the waiting line once
  bool forked = false;    // choices past the first have their own state
  bool ended = false;     // an error or the last event was pushed

  [[nodiscard]] bool WantsPromptLogprobs() const { return spec.output.prompt_logprobs.has_value(); }
};

// Counts `token` as output for the penalties.
void CountOutput(Sequence& sequence, TokenId token);

// What the sampler needs for the next token of `sequence` (output token number `output_tokens()`).
// The spans point into the sequence and its request.
[[nodiscard]] kernels::SampleRow DrawRow(Sequence& sequence);
// Log-probability of prompt token `index`, from the logits of the row before it.
[[nodiscard]] kernels::SampleRow PromptRow(const Sequence& sequence, uint32_t index);

}  // namespace tessera::scheduler
