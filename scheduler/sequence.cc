#include "scheduler/sequence.h"

#include <algorithm>
#include <cstddef>
#include <utility>

namespace tessera::scheduler {
namespace {

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Winvalid-offsetof"
// The cache's own first lines, up to its committed tokens, are the last that a step asks for.
static_assert(offsetof(Sequence, cache) + 80 <= 64 * Sequence::kHotLines);
static_assert(offsetof(Sequence, preemptions) > offsetof(Sequence, cache));
#pragma GCC diagnostic pop

bool HasPenalty(const SamplingSettings& sampling) {
  return sampling.repetition_penalty != 1.0f || sampling.presence_penalty != 0.0f ||
         sampling.frequency_penalty != 0.0f;
}

std::vector<kernels::TokenCount>::iterator FindCount(Sequence& sequence, TokenId token) {
  return std::lower_bound(
      sequence.counts.begin(), sequence.counts.end(), token,
      [](const kernels::TokenCount& count, TokenId id) { return count.id < id; });
}

void CountPrompt(Sequence& sequence, std::span<const TokenId> prompt) {
  std::vector<TokenId> sorted(prompt.begin(), prompt.end());
  std::sort(sorted.begin(), sorted.end());
  for (TokenId token : sorted) {
    if (sequence.counts.empty() || sequence.counts.back().id != token) {
      sequence.counts.push_back({.id = token, .in_prompt = 0, .in_output = 0});
    }
    ++sequence.counts.back().in_prompt;
  }
}

// Tokens that would complete a bad word after the tokens so far.
void AddBadWords(const Sequence& sequence, std::vector<TokenId>& banned) {
  for (const std::vector<TokenId>& word : sequence.request->spec.sampling.bad_words) {
    const size_t before = word.size() - 1;
    const size_t output = sequence.output_tokens();
    if (before > output) continue;
    if (std::equal(word.begin(), word.end() - 1, sequence.tokens.end() - before)) {
      banned.push_back(word.back());
    }
  }
}

void FindBanned(Sequence& sequence) {
  const StoppingSettings& stopping = sequence.request->spec.stopping;
  sequence.banned.clear();
  if (sequence.length() - sequence.prompt_tokens() < stopping.min_tokens) {
    sequence.banned.insert(sequence.banned.end(), stopping.end_token_ids.begin(),
                           stopping.end_token_ids.end());
    sequence.banned.insert(sequence.banned.end(), stopping.stop_token_ids.begin(),
                           stopping.stop_token_ids.end());
  }
  AddBadWords(sequence, sequence.banned);
  std::sort(sequence.banned.begin(), sequence.banned.end());
}

// The spans point into the request, which outlives its sequences.
kernels::SampleRow FirstRow(const GenerationRequest& spec, uint32_t choice) {
  const SamplingSettings& sampling = spec.sampling;
  kernels::SampleRow row;
  row.temperature = sampling.temperature;
  row.top_p = sampling.top_p;
  row.min_p = sampling.min_p;
  row.typical_p = sampling.typical_p;
  row.top_k = sampling.top_k;
  row.repetition_penalty = sampling.repetition_penalty;
  row.presence_penalty = sampling.presence_penalty;
  row.frequency_penalty = sampling.frequency_penalty;
  row.seed = sampling.seed + choice;
  row.bias = sampling.bias;
  row.allowed = sampling.allowed;
  if (spec.output.logprobs.has_value()) {
    row.want_logprob = true;
    row.top_logprobs = *spec.output.logprobs;
    row.logprob_ids = spec.output.logprob_ids;
  }
  return row;
}

uint32_t MaxLength(const Request& request) {
  const GenerationRequest& spec = request.spec;
  return static_cast<uint32_t>(std::min<uint64_t>(spec.prompt.size() + spec.stopping.max_tokens,
                                                  request.chain->info.chain->max_context()));
}

}  // namespace

Sequence::Sequence(Request* owner, uint32_t index)
    : request(owner),
      chain(owner->chain),
      mailbox(owner->mailbox),
      prompt_length(static_cast<uint32_t>(owner->spec.prompt.size())),
      choice(index),
      max_length(MaxLength(*owner)),
      prompt_only(owner->spec.prompt_only),
      logprobs(owner->spec.output.logprobs.has_value()),
      progress(owner->spec.output.progress),
      penalties(HasPenalty(owner->spec.sampling)),
      bans(owner->spec.stopping.min_tokens > 0 || !owner->spec.sampling.bad_words.empty()),
      stop_strings(!owner->spec.stopping.stop.empty()),
      forks(owner->spec.n > 1),
      lockstep(!owner->spec.sampling.bad_words.empty()),
      deterministic(owner->spec.deterministic),
      request_id(owner->spec.id.value),
      stop(&owner->spec.stopping.stop),
      draw(FirstRow(owner->spec, index)) {
  const GenerationRequest& spec = owner->spec;
  const StoppingSettings& stopping = spec.stopping;
  last_tokens.assign(stopping.stop_token_ids.begin(), stopping.stop_token_ids.end());
  if (!stopping.ignore_eos) {
    last_tokens.insert(last_tokens.end(), stopping.end_token_ids.begin(),
                       stopping.end_token_ids.end());
  }
  tokens.reserve(spec.prompt.size() + spec.stopping.max_tokens);
  tokens.assign(spec.prompt.begin(), spec.prompt.end());
  banned.reserve(spec.stopping.end_token_ids.size() + spec.stopping.stop_token_ids.size() +
                 spec.sampling.bad_words.size());
  if (penalties) {
    counts.reserve(spec.prompt.size() + spec.stopping.max_tokens);
    CountPrompt(*this, spec.prompt);
  }
}

Request::Request(GenerationRequest given, std::shared_ptr<StreamMailbox> box, LiveChain* live)
    : spec(std::move(given)), mailbox(std::move(box)), chain(live) {
  for (uint32_t choice = 0; choice < spec.n; ++choice) {
    choices.push_back(std::make_unique<Sequence>(this, choice));
  }
  unfinished = spec.n;
}

void CountOutput(Sequence& sequence, TokenId token) {
  if (!sequence.penalties) return;
  const auto at = FindCount(sequence, token);
  if (at != sequence.counts.end() && at->id == token) {
    ++at->in_output;
  } else {
    sequence.counts.insert(at, {.id = token, .in_prompt = 0, .in_output = 1});
  }
}

kernels::SampleRow DrawRow(Sequence& sequence) {
  if (sequence.bans) FindBanned(sequence);
  kernels::SampleRow row = sequence.draw;
  row.counter = sequence.length() - sequence.prompt_tokens();
  row.slot = sequence.slot;
  row.pending = sequence.penalties && sequence.pending > 0 ? sequence.slot : -1;
  row.counts = sequence.counts;
  row.banned = sequence.banned;
  return row;
}

kernels::SampleRow PromptRow(const Sequence& sequence, uint32_t index) {
  kernels::SampleRow row;
  row.temperature = 0;
  row.forced = sequence.tokens[index];
  row.want_logprob = true;
  row.top_logprobs = sequence.request->spec.output.prompt_logprobs.value_or(0);
  return row;
}

}  // namespace tessera::scheduler
