// One generation in progress, and the request that it answers. Owned by the engine thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "config/foundation/clock.h"
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
struct Sequence {
  Sequence(Request* request, uint32_t choice);

  // What every step asks comes first, with the request's facts among it: a step touches hundreds of
  // sequences, and each line of memory that it does not need counts.
  Request* request;
  uint32_t choice;
  uint32_t prompt_length;
  bool score_only;
  bool progress;   // OutputSettings::progress
  bool penalties;  // `counts` is kept
  bool bans;       // there may be tokens to ban
  SequencePhase phase = SequencePhase::kWaiting;
  // Prompt, then output. Room for everything is reserved at the start.
  std::vector<TokenId> tokens;
  uint32_t computed = 0;  // leading tokens whose state is in the cache
  kvcache::SequenceCache cache;
  uint32_t preemptions = 0;
  uint32_t emitted = 0;          // output tokens shown to the reader
  uint32_t prompt_reported = 0;  // last prompt token whose log-probability was reported
  std::optional<TimePoint> parked_since;
  TimePoint admitted_at{};
  std::optional<TimePoint> first_token_at;
  TimePoint last_token_at{};

  StopMatcher stop;
  // Tokens that a stop string may still claim, with their ends in output bytes.
  struct Held {
    TokenEvent event;
    uint64_t begin = 0;
    uint64_t end = 0;
    std::vector<kernels::TokenLogprob> top;
  };
  std::vector<Held> held;

  // Occurrences for the penalties, sorted by id; empty when no penalty is set.
  std::vector<kernels::TokenCount> counts;
  std::vector<TokenId> banned;  // of the next draw
  kernels::SampleRow draw;      // what DrawRow begins with: all that no token changes

  [[nodiscard]] uint32_t prompt_tokens() const { return prompt_length; }
  [[nodiscard]] uint32_t output_tokens() const {
    return static_cast<uint32_t>(tokens.size()) - prompt_tokens();
  }
  [[nodiscard]] uint32_t uncomputed() const {
    return static_cast<uint32_t>(tokens.size()) - computed;
  }
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
