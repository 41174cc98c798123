// What becomes of a drawn token: stop rules, what the reader may see, how a choice ends.
#include <algorithm>
#include <utility>

#include "config/foundation/check.h"
#include "scheduler/engine_loop.h"

namespace tessera::scheduler {
namespace {

template <typename Ids>
bool Contains(const Ids& ids, TokenId token) {
  return std::find(ids.begin(), ids.end(), token) != ids.end();
}

TokenEvent EventOf(const Sequence& sequence, const kernels::SampleResult& result) {
  return {.choice = sequence.choice,
          .token = result.token,
          .rank = result.rank,
          .logprob = result.logprob,
          .has_logprob = sequence.logprobs,
          .is_argmax = result.is_argmax};
}

void ObserveToken(Sequence& sequence, TimePoint now) {
  if (!sequence.first_token_at) {
    const ModelMetrics& metrics = sequence.chain->info.metrics;
    sequence.first_token_at = now;
    metrics.ttft_seconds.Observe(Seconds(now - sequence.request->spec.arrival));
    metrics.prefill_seconds.Observe(Seconds(now - sequence.admitted_at));
  } else {
    sequence.chain->token_gaps.Add(Seconds(now - sequence.last_token_at));
  }
  sequence.last_token_at = now;
}

}  // namespace

void EngineLoop::AppendToken(Sequence& sequence, const kernels::SampleResult& result,
                             std::span<const kernels::TokenLogprob> top, TimePoint now) {
  const TokenId token = result.token;
  sequence.tokens.push_back(token);
  CountOutput(sequence, token);
  ++stats_.output_tokens;
  ++sequence.chain->new_tokens;
  ObserveToken(sequence, now);

  const TokenEvent event = EventOf(sequence, result);
  if (Contains(sequence.last_tokens, token) && EndByToken(sequence, event, top, now)) return;
  if (!sequence.stop_strings) {
    ++sequence.emitted;
    PushToken(sequence, event, top);
  } else if (EndByText(sequence, event, top, now)) {
    return;
  }
  if (sequence.tokens.size() >= sequence.max_length) {
    ShowUntil(sequence, UINT64_MAX);
    const bool full = sequence.tokens.size() >= sequence.chain->info.chain->max_context();
    Finish(sequence, {.reason = full ? FinishReason::kContextFull : FinishReason::kMaxTokens}, now);
  }
}

// Ends the sequence by `event`, which has one of its last tokens; false when it is too early.
bool EngineLoop::EndByToken(Sequence& sequence, TokenEvent event,
                            std::span<const kernels::TokenLogprob> top, TimePoint now) {
  const StoppingSettings& stopping = sequence.request->spec.stopping;
  if (sequence.output_tokens() <= stopping.min_tokens) return false;
  const bool is_end = !stopping.ignore_eos && Contains(stopping.end_token_ids, event.token);
  ShowUntil(sequence, UINT64_MAX);
  if (!stopping.include_stop) event.visible_bytes = 0;
  ++sequence.emitted;
  PushToken(sequence, event, top);
  Finish(sequence,
         {.reason = is_end ? FinishReason::kEos : FinishReason::kStop, .stop_token = event.token},
         now);
  return true;
}

// Shows what no stop string can claim any more; true when one has ended the sequence.
bool EngineLoop::EndByText(Sequence& sequence, const TokenEvent& event,
                           std::span<const kernels::TokenLogprob> top, TimePoint now) {
  const StoppingSettings& stopping = sequence.request->spec.stopping;
  StopMatcher::Match match;
  const absl::string_view bytes = sequence.chain->info.tokens->Of(event.token);
  const uint64_t begin = sequence.stop.seen_bytes();
  if (sequence.output_tokens() > stopping.min_tokens) {
    match = sequence.stop.Add(bytes);
  } else {
    sequence.stop.Skip(bytes);
  }
  sequence.held.push_back({.event = event,
                           .begin = begin,
                           .end = begin + bytes.size(),
                           .top = {top.begin(), top.end()}});
  if (match.stop_index >= 0) {
    ShowUntil(sequence, stopping.include_stop ? match.end : match.begin);
    Finish(sequence, {.reason = FinishReason::kStop, .stop_index = match.stop_index}, now);
    return true;
  }
  ShowSafe(sequence);
  return false;
}

void EngineLoop::PushToken(Sequence& sequence, const TokenEvent& event,
                           std::span<const kernels::TokenLogprob> top) {
  if (sequence.mailbox->PushToken(event, top)) ready_.push_back(sequence.mailbox);
  if (sequence.mailbox->backlog_tokens() > options_.park_above_tokens) readers_behind_ = true;
}

void EngineLoop::Show(Sequence& sequence, const Sequence::Held& held) {
  ++sequence.emitted;
  PushToken(sequence, held.event, held.top);
}

// Tokens whose bytes no stop string can claim any more.
void EngineLoop::ShowSafe(Sequence& sequence) {
  const uint64_t safe = sequence.stop.safe_bytes();
  size_t shown = 0;
  for (; shown < sequence.held.size() && sequence.held[shown].end <= safe; ++shown) {
    Show(sequence, sequence.held[shown]);
  }
  sequence.held.erase(sequence.held.begin(), sequence.held.begin() + shown);
}

// Held tokens up to an output byte; the one that the byte cuts is shown in part, later ones are
// dropped.
void EngineLoop::ShowUntil(Sequence& sequence, uint64_t end_byte) {
  for (Sequence::Held& held : sequence.held) {
    if (held.begin >= end_byte && held.end > held.begin) break;
    if (held.end > end_byte) {
      held.event.visible_bytes = static_cast<uint32_t>(end_byte - held.begin);
    }
    Show(sequence, held);
  }
  sequence.held.clear();
}

void EngineLoop::Finish(Sequence& sequence, FinishedEvent event, TimePoint now) {
  Request& request = *sequence.request;
  TESSERA_CHECK(request.unfinished > 0);
  planner_.Remove(&sequence);
  --request.unfinished;
  event.choice = sequence.choice;
  event.completion_tokens = sequence.emitted;
  event.preemptions = sequence.preemptions;
  const TimePoint first = sequence.first_token_at.value_or(now);
  event.prefill = first - sequence.admitted_at;
  event.decode = now - first;
  event.last = request.unfinished == 0;
  const ModelMetrics& metrics = request.chain->info.metrics;
  metrics.completion_tokens.Observe(sequence.emitted);
  metrics.decode_seconds.Observe(Seconds(event.decode));
  metrics.preemptions.Inc(sequence.preemptions);
  if (sequence.output_tokens() > 1) {
    metrics.tpot_seconds.Observe(Seconds(event.decode) / (sequence.output_tokens() - 1));
  }
  if (event.last) {
    metrics.e2e_seconds.Observe(Seconds(now - request.spec.arrival));
    request.ended = true;
    ended_.push_back(request.spec.id.value);
  }
  if (request.mailbox->PushFinished(event)) ready_.push_back(request.mailbox);
}

}  // namespace tessera::scheduler
