#include "scheduler/step_planner.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "config/foundation/check.h"

namespace tessera::scheduler {
namespace {

const std::shared_ptr<const kvcache::CacheLayout>& LayoutOf(const Sequence& sequence) {
  return sequence.chain->info.chain->cache_layout();
}

// Bytes of the pages that `rows` more tokens of a sequence need.
uint64_t BytesToGrow(const Sequence& sequence, uint32_t rows) {
  const kvcache::CacheLayout& layout = *LayoutOf(sequence);
  const uint64_t wanted = uint64_t{sequence.computed} + rows;
  const uint64_t held = uint64_t{sequence.cache.page_count()} * kernels::kPageTokens;
  return wanted <= held ? 0 : layout.BytesFor(wanted) - layout.BytesFor(held);
}

// Tokens of which nobody asks for logits or hidden states: they may come from the cache.
uint32_t ReusableTokens(const Sequence& sequence) {
  const GenerationRequest& spec = sequence.request->spec;
  if (spec.pooling == Pooling::kMean || spec.pooling == Pooling::kFirst) return 0;
  uint32_t reusable = static_cast<uint32_t>(sequence.tokens.size()) - 1;
  if (spec.output.prompt_logprobs.has_value()) {
    reusable = std::min(reusable, spec.output.prompt_logprobs_from - 1);
  }
  return reusable;
}

// Tokens that may be found in the cache. Output is computed by the kernels of decoding, prompts by
// others: where bits matter another's prompt is not this one's output.
std::span<const TokenId> FindableTokens(const Sequence& sequence) {
  const std::span<const TokenId> tokens = sequence.tokens;
  return sequence.deterministic ? tokens.first(sequence.prompt_tokens()) : tokens;
}

// State of other numerics is other state.
Digest ScopeOf(const Sequence& sequence) {
  const Digest& scope = sequence.request->spec.cache_scope;
  if (!sequence.deterministic) return scope;
  return Hasher().AddDigest(scope).AddText("deterministic").Finish();
}

// Rows that a sequence has for a step of one role: 0 where its next row is of the other. The role
// of a deterministic row is its position's, also where it is computed again.
uint32_t RowsOfRole(const Sequence& sequence, kernels::Numerics role) {
  const bool decodes = role == kernels::Numerics::kDecodeRows;
  const uint32_t left = sequence.uncomputed();
  const uint32_t prompt = sequence.prompt_tokens();
  if (!sequence.deterministic) return (left == 1) == decodes ? left : 0;
  if (sequence.computed >= prompt) return decodes ? std::min(left, 1u) : 0;
  return decodes ? 0 : prompt - sequence.computed;
}

}  // namespace

StepPlanner::StepPlanner(const Limits& limits, kvcache::KvCache& cache,
                         std::unique_ptr<WaitingPolicy> policy)
    : limits_(limits), cache_(cache), policy_(std::move(policy)) {
  running_.reserve(limits.max_running + 1);
  chosen_.reserve(limits.max_running + 1);
  free_slots_.reserve(limits.max_running + 1);
}

void StepPlanner::TakeSlot(Sequence* sequence) {
  if (free_slots_.empty()) free_slots_.push_back(slots_++);
  sequence->slot = free_slots_.back();
  free_slots_.pop_back();
}

void StepPlanner::GiveSlot(Sequence* sequence) {
  free_slots_.push_back(sequence->slot);
  sequence->slot = -1;
}

void StepPlanner::AddRunning(Sequence* sequence) {
  sequence->phase = SequencePhase::kRunning;
  running_.push_back(sequence);
  if (sequence->deterministic) ++deterministic_;
  TakeSlot(sequence);
}

void StepPlanner::Forget(Sequence* sequence) {
  std::erase(running_, sequence);
  GiveSlot(sequence);
  if (sequence->deterministic) --deterministic_;
}

void StepPlanner::Remove(Sequence* sequence) {
  if (sequence->phase == SequencePhase::kRunning) {
    cache_.Release(sequence->cache);
    Forget(sequence);
  } else if (sequence->phase == SequencePhase::kWaiting) {
    policy_->Remove(sequence);
    std::erase(parked_out_, sequence);
  }
  sequence->phase = SequencePhase::kFinished;
}

void StepPlanner::Preempt(Sequence* sequence) {
  cache_.Release(sequence->cache);
  Forget(sequence);
  sequence->computed = 0;
  sequence->phase = SequencePhase::kWaiting;
  ++sequence->preemptions;
  ++preemptions_;
  if (sequence->parked_since) {
    parked_out_.push_back(sequence);
  } else {
    policy_->Return(sequence);
  }
}

void StepPlanner::Park(Sequence* sequence, TimePoint now) { sequence->parked_since = now; }

void StepPlanner::Unpark(Sequence* sequence) {
  sequence->parked_since.reset();
  if (std::erase(parked_out_, sequence) > 0) policy_->Return(sequence);
}

void StepPlanner::Plan(TimePoint now, StepPlan& plan, std::vector<Sequence*>& admitted) {
  plan.Clear();
  Admit(now, admitted);
  for (;;) {
    cache_.Begin();
    if (Grow()) break;
    cache_.RollBack();
    Sequence* victim = Victim();
    TESSERA_CHECK(victim != nullptr);
    std::erase(admitted, victim);
    Preempt(victim);
  }
  cache_.Keep();
  Emit(plan);
}

uint64_t StepPlanner::GrowthBytes() const {
  uint64_t bytes = 0;
  for (const Sequence* sequence : running_) bytes += BytesToGrow(*sequence, 1);
  return bytes;
}

bool StepPlanner::MakeRoom(uint64_t bytes) {
  while (bytes > cache_.AvailableBytes()) {
    const auto parked = std::find_if(running_.rbegin(), running_.rend(),
                                     [](const Sequence* s) { return s->parked_since.has_value(); });
    if (parked == running_.rend()) return false;
    Preempt(*parked);
  }
  return true;
}

void StepPlanner::Open(Sequence* sequence) {
  const GenerationRequest& spec = sequence->request->spec;
  using Reuse = kvcache::OpenOptions::Reuse;
  const bool reuse = limits_.prefix_reuse && !spec.bypass_prefix_cache;
  sequence->cache = cache_.Open(
      {.layout = LayoutOf(*sequence),
       .max_tokens = static_cast<uint32_t>(spec.prompt.size() + spec.stopping.max_tokens),
       .scope = ScopeOf(*sequence),
       .tokens = FindableTokens(*sequence),
       .max_reused_tokens = ReusableTokens(*sequence),
       .max_published_tokens = sequence->deterministic ? sequence->prompt_tokens() : UINT32_MAX,
       .reuse = reuse ? Reuse::kReadWrite : Reuse::kNone});
  sequence->computed = sequence->cache.committed_tokens();
  // Also after a preemption: its sums begin again.
  if (spec.pooling != Pooling::kNone) {
    sequence->pooled.assign(sequence->chain->info.chain->width(), 0);
  }
}

void StepPlanner::Admit(TimePoint now, std::vector<Sequence*>& admitted) {
  if (policy_->Next() == nullptr) return;
  uint64_t wanted_rows = 0;
  for (const Sequence* sequence : running_) {
    if (!sequence->parked_since) wanted_rows += sequence->uncomputed();
  }
  uint64_t growth = GrowthBytes();
  while (wanted_rows < limits_.max_batch_tokens) {
    Sequence* sequence = policy_->Next();
    if (sequence == nullptr) return;
    const uint32_t choices = sequence->request->forked ? 1 : sequence->request->spec.n;
    if (!running_.empty() && running_.size() + choices > limits_.max_running) return;
    const uint64_t need = LayoutOf(*sequence)->BytesFor(sequence->tokens.size() + 1);
    if (!MakeRoom(growth + need) && !running_.empty()) return;
    policy_->Remove(sequence);
    Open(sequence);
    sequence->admitted_at = now;
    AddRunning(sequence);
    admitted.push_back(sequence);
    growth += BytesToGrow(*sequence, sequence->uncomputed());
    wanted_rows += sequence->uncomputed();
  }
}

bool StepPlanner::GrowOne(Sequence* sequence, uint32_t rows) {
  if (!cache_.Grow(sequence->cache, sequence->computed + rows).ok()) return false;
  const LiveChain& chain = *sequence->chain;
  chosen_.push_back({.sequence = sequence,
                     .rows = rows,
                     .position = sequence->computed,
                     .epoch = sequence->preemptions,
                     .chain_order = uint64_t{chain.graph} << 32 | chain.slot,
                     .request = sequence->request_id,
                     .choice = sequence->choice});
  return true;
}

bool StepPlanner::CanRun(const Sequence& sequence) {
  if (sequence.pending == 0) return true;
  if (sequence.length() >= sequence.max_length || sequence.lockstep) return false;
  return !sequence.forks || sequence.request->forked;
}

kernels::Numerics StepPlanner::ChooseRole() const {
  using kernels::Numerics;
  const auto waits = [this](Numerics role) {
    return std::any_of(running_.begin(), running_.end(), [role](const Sequence* sequence) {
      return !sequence->parked_since && CanRun(*sequence) && RowsOfRole(*sequence, role) > 0;
    });
  };
  const bool prompts = waits(Numerics::kPromptRows);
  const bool in_turn = prompts && last_role_ == Numerics::kDecodeRows;
  return !in_turn && waits(Numerics::kDecodeRows) ? Numerics::kDecodeRows : Numerics::kPromptRows;
}

bool StepPlanner::GrowOneRole() {
  numerics_ = ChooseRole();
  uint32_t budget = limits_.max_batch_tokens;
  for (Sequence* sequence : running_) {
    if (sequence->parked_since || !CanRun(*sequence)) continue;
    const uint32_t rows = std::min(budget, RowsOfRole(*sequence, numerics_));
    if (rows == 0) continue;
    if (!GrowOne(sequence, rows)) return false;
    budget -= rows;
  }
  return true;
}

bool StepPlanner::Grow() {
  chosen_.clear();
  numerics_ = kernels::Numerics::kFast;
  if (deterministic_ > 0) return GrowOneRole();
  uint32_t budget = limits_.max_batch_tokens;
  constexpr size_t kAhead = 8;
  for (size_t i = 0; i < running_.size(); ++i) {
    if (i + kAhead < running_.size()) running_[i + kAhead]->Prefetch();
    Sequence* sequence = running_[i];
    if (sequence->parked_since || sequence->uncomputed() != 1 || budget == 0) continue;
    if (!CanRun(*sequence)) continue;
    sequence->PrefetchDraw();
    if (!GrowOne(sequence, 1)) return false;
    --budget;
  }
  for (Sequence* sequence : running_) {
    if (sequence->parked_since || sequence->uncomputed() <= 1 || budget == 0) continue;
    const uint32_t rows = std::min(budget, sequence->uncomputed());
    if (!GrowOne(sequence, rows)) return false;
    budget -= rows;
  }
  return true;
}

Sequence* StepPlanner::Victim() const {
  if (running_.empty()) return nullptr;
  for (auto at = running_.rbegin(); at != running_.rend(); ++at) {
    if ((*at)->parked_since) return *at;
  }
  return running_.back();
}

void StepPlanner::Emit(StepPlan& plan) {
  const auto before = [](const PlannedRows& a, const PlannedRows& b) {
    return std::tie(a.chain_order, a.request, a.choice) <
           std::tie(b.chain_order, b.request, b.choice);
  };
  // Those of one chain run in the order of their requests, mostly.
  if (!std::is_sorted(chosen_.begin(), chosen_.end(), before)) {
    std::sort(chosen_.begin(), chosen_.end(), before);
  }
  plan.numerics = numerics_;
  if (!chosen_.empty()) last_role_ = numerics_;
  uint32_t row = 0;
  for (PlannedRows& planned : chosen_) {
    planned.first_row = row;
    const Sequence& sequence = *planned.sequence;
    for (uint32_t i = 0; i < planned.rows; ++i) {
      const uint32_t position = planned.position + i;
      const bool known = position < sequence.tokens.size();
      plan.tokens.push_back(known ? sequence.tokens[position] : TokenId());
      plan.token_slots.push_back(known ? -1 : sequence.slot);
      plan.positions.push_back(position);
    }
    const bool decodes = plan.numerics == kernels::Numerics::kFast
                             ? sequence.uncomputed() == 1
                             : plan.numerics == kernels::Numerics::kDecodeRows;
    (decodes ? plan.decode_rows : plan.prefill_rows) += planned.rows;
    plan.sequences.push_back(planned);
    EmitSamples(planned, plan);
    if (sequence.prompt_only && !sequence.pooled.empty()) EmitPool(planned, plan);
    row += planned.rows;
  }
}

void StepPlanner::EmitSamples(const PlannedRows& planned, StepPlan& plan) const {
  Sequence& sequence = *planned.sequence;
  Request& request = *sequence.request;
  const auto add = [&](uint32_t row, Sequence* choice, uint32_t prompt_index) {
    plan.PrefetchSampleRow(plan.samples.size() + 4);
    plan.samples.push_back({.row = row, .sequence = choice, .prompt_index = prompt_index});
    plan.sample_rows.push_back(prompt_index > 0 ? PromptRow(*choice, prompt_index)
                                                : DrawRow(*choice));
  };
  const uint32_t last = planned.first_row + planned.rows - 1;
  const bool decodes = sequence.length() > sequence.prompt_tokens();
  if (decodes && planned.rows == sequence.uncomputed()) {
    add(last, &sequence, 0);
    return;
  }
  const uint32_t prompt = sequence.prompt_tokens();
  // Prompt log-probabilities are reported once: not again for tokens recomputed after a preemption.
  if (sequence.choice == 0 && !decodes && request.WantsPromptLogprobs()) {
    for (uint32_t i = 0; i < planned.rows; ++i) {
      const uint32_t predicted = planned.position + i + 1;
      if (predicted < prompt && predicted >= request.spec.output.prompt_logprobs_from &&
          predicted > sequence.prompt_reported) {
        add(planned.first_row + i, &sequence, predicted);
      }
    }
  }
  if (planned.rows != sequence.uncomputed() || sequence.prompt_only) return;
  if (request.forked || request.spec.n == 1) {
    add(last, &sequence, 0);
    return;
  }
  for (const std::unique_ptr<Sequence>& choice : request.choices) add(last, choice.get(), 0);
}

void StepPlanner::EmitPool(const PlannedRows& planned, StepPlan& plan) {
  const Pooling pooling = planned.sequence->request->spec.pooling;
  uint32_t begin = planned.position;
  uint32_t end = planned.position + planned.rows;
  if (pooling == Pooling::kFirst) end = std::min(end, 1u);
  if (pooling == Pooling::kLast) begin = std::max(begin, planned.sequence->prompt_tokens() - 1);
  if (begin >= end) return;
  plan.pools.push_back({.sequence = planned.sequence,
                        .row = planned.first_row + (begin - planned.position),
                        .rows = end - begin});
}

}  // namespace tessera::scheduler
