#include "scheduler/engine_loop.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "config/foundation/check.h"
#include "scheduler/reason.h"

namespace tessera::scheduler {
namespace {

Status DeadlinePassed() {
  return WithReason(
      absl::DeadlineExceededError("the deadline passed before the generation was complete"),
      "DEADLINE");
}

}  // namespace

EngineLoop::EngineLoop(const EngineOptions& options, const kernels::Backend& backend,
                       kernels::ThreadPool& pool, kvcache::KvCache& cache, Inbox& inbox,
                       EngineMetrics* metrics)
    : options_(options),
      clock_(options.clock != nullptr ? *options.clock : SystemClock()),
      cache_(cache),
      inbox_(inbox),
      metrics_(metrics),
      executor_({.max_rows = options.max_batch_tokens, .max_sequences = options.max_running + 1},
                backend, pool, cache),
      planner_({.max_batch_tokens = options.max_batch_tokens,
                .max_running = options.max_running,
                .prefix_reuse = options.prefix_reuse},
               cache, MakeFirstComePolicy()) {
  constexpr uint32_t kTopStride = kernels::SampleOp::kMaxTopLogprobs + 32;
  plan_.Reserve(options.max_batch_tokens, options.max_running + 1, kTopStride);
  admitted_.reserve(options.max_running + 1);
  sealed_.reserve(4096);
  ended_.reserve(options.max_running + 1);
  ready_.reserve(options.inbox.max_requests + options.max_running);
  requests_.reserve(options.inbox.max_requests + options.max_running);
}

EngineLoop::~EngineLoop() = default;

void EngineLoop::TakeMessages(TimePoint until) {
  if (until > clock_.Now()) {
    inbox_.WaitAndTake(batch_, until);
  } else {
    inbox_.Take(batch_);
  }
  for (std::function<void()>& call : batch_.calls) call();
  for (Submission& submission : batch_.submissions) Accept(std::move(submission));
  for (RequestId id : batch_.releases) ReleaseRequest(id);
  batch_.Clear();
}

Status EngineLoop::AddChain(ChainId id, const EngineChain& info) {
  TESSERA_RETURN_IF_ERROR(chains_.Add(id, info));
  const Status prepared = executor_.Prepare(chains_);
  if (!prepared.ok()) {
    chains_.Remove(id, nullptr);
    chains_.DropUnused();
  }
  return prepared;
}

void EngineLoop::RemoveChain(ChainId id, std::function<void()> done) {
  chains_.Remove(id, std::move(done));
  chains_.DropUnused();
}

void EngineLoop::Accept(Submission submission) {
  GenerationRequest& spec = submission.request;
  LiveChain* chain = chains_.Find(spec.chain);
  if (chain == nullptr) {
    const Status status =
        WithReason(absl::UnavailableError("the chain was unloaded while the request waited"),
                   "MODEL_UNLOADED");
    if (submission.mailbox->PushError(status)) ready_.push_back(submission.mailbox);
    inbox_.NoteAdmitted(spec.prompt.size());
    return;
  }
  const uint64_t id = spec.id.value;
  auto request = std::make_unique<Request>(std::move(spec), std::move(submission.mailbox), chain);
  ++chain->sequences;
  planner_.AddWaiting(request->choices.front().get());
  NoteDeadlines(*request);
  TESSERA_CHECK(requests_.emplace(id, std::move(request)).second);
}

void EngineLoop::ReleaseRequest(RequestId id) {
  const auto found = requests_.find(id.value);
  if (found == requests_.end()) return;
  Request& request = *found->second;
  for (const std::unique_ptr<Sequence>& choice : request.choices) planner_.Remove(choice.get());
  LeaveWaiting(request);
  --request.chain->sequences;
  requests_.erase(found);
  if (chains_.DropUnused()) cache_.DropUnusedPrefixes();
}

void EngineLoop::LeaveWaiting(Request& request) {
  if (request.admitted) return;
  request.admitted = true;
  inbox_.NoteAdmitted(request.spec.prompt.size());
}

void EngineLoop::FailRequest(Request& request, const Status& status) {
  if (request.ended) return;
  request.ended = true;
  if (request.mailbox->PushError(status)) ready_.push_back(request.mailbox);
  ended_.push_back(request.spec.id.value);
}

void EngineLoop::FailAll(const Status& status) {
  for (const auto& [id, request] : requests_) FailRequest(*request, status);
  Retire();
}

void EngineLoop::Retire() {
  for (uint64_t id : ended_) ReleaseRequest(RequestId(id));
  ended_.clear();
}

void EngineLoop::CheckBacklog(Request& request, TimePoint now) {
  const bool behind = request.mailbox->backlog_tokens() > options_.park_above_tokens;
  for (const std::unique_ptr<Sequence>& choice : request.choices) {
    if (choice->phase == SequencePhase::kFinished) continue;
    if (!behind && choice->parked_since) planner_.Unpark(choice.get());
    if (behind && !choice->parked_since) planner_.Park(choice.get(), now);
    if (choice->parked_since && now - *choice->parked_since > options_.park_limit) {
      FailRequest(request, WithReason(absl::AbortedError("the reader stalled for too long; its "
                                                         "generation was ended"),
                                      "SLOW_CONSUMER"));
      return;
    }
  }
}

// Deadlines of every request, and readers that fell behind; when there is something to see.
void EngineLoop::CheckTimes(TimePoint now) {
  if (now < next_deadline_ && !readers_behind_) return;
  stats_.parked = 0;
  for (const auto& [id, request] : requests_) {
    const GenerationRequest& spec = request->spec;
    if (request->ended) continue;
    if (spec.deadline && now >= *spec.deadline) {
      FailRequest(*request, DeadlinePassed());
      continue;
    }
    if (!request->admitted && spec.queue_deadline && now >= *spec.queue_deadline) {
      FailRequest(*request,
                  WithReason(absl::UnavailableError("the request waited longer than allowed"),
                             "QUEUE_TIMEOUT"));
      continue;
    }
    if (request->admitted) CheckBacklog(*request, now);
    if (spec.stopping.soft_deadline && now >= *spec.stopping.soft_deadline) {
      for (const std::unique_ptr<Sequence>& choice : request->choices) {
        if (choice->phase == SequencePhase::kFinished) continue;
        ShowUntil(*choice, UINT64_MAX);
        Finish(*choice, {.reason = FinishReason::kTimeLimit}, now);
      }
    }
    for (const std::unique_ptr<Sequence>& choice : request->choices) {
      if (choice->parked_since) ++stats_.parked;
    }
  }
  Retire();
  readers_behind_ = stats_.parked > 0;
  next_deadline_ = TimePoint::max();
  for (const auto& [id, request] : requests_) NoteDeadlines(*request);
}

// Those that have passed have been acted on.
void EngineLoop::NoteDeadlines(const Request& request) {
  const GenerationRequest& spec = request.spec;
  if (request.ended) return;
  if (spec.deadline) next_deadline_ = std::min(next_deadline_, *spec.deadline);
  if (!request.admitted && spec.queue_deadline) {
    next_deadline_ = std::min(next_deadline_, *spec.queue_deadline);
  }
  if (spec.stopping.soft_deadline) {
    next_deadline_ = std::min(next_deadline_, *spec.stopping.soft_deadline);
  }
}

TimePoint EngineLoop::NextWake() const {
  return std::min(next_deadline_, clock_.Now() + std::chrono::seconds(1));
}

void EngineLoop::NoteAdmissions(TimePoint now) {
  for (Sequence* sequence : admitted_) {
    Request& request = *sequence->request;
    const uint32_t cached = sequence->cache.committed_tokens();
    const ModelMetrics& metrics = request.chain->info.metrics;
    if (!request.admitted) {
      LeaveWaiting(request);
      const Duration wait = now - request.spec.arrival;
      const StartedEvent event{
          .prompt_tokens = sequence->prompt_tokens(), .cached_tokens = cached, .queue_wait = wait};
      if (request.mailbox->PushStarted(event)) ready_.push_back(request.mailbox);
      metrics.queue_seconds.Observe(Seconds(wait));
      metrics.prompt_tokens.Observe(sequence->prompt_tokens());
      metrics.tokens_prompt.Inc(sequence->prompt_tokens());
      metrics.tokens_cached.Inc(cached);
    }
    metrics.prefix_cache_queries_tokens.Inc(static_cast<double>(sequence->tokens.size()));
    metrics.prefix_cache_hits_tokens.Inc(cached);
  }
  admitted_.clear();
}

bool EngineLoop::Step() {
  const TimePoint start = clock_.Now();
  const uint64_t start_cpu = ThreadNanoseconds();
  CheckTimes(start);
  const uint64_t preemptions = planner_.preemptions();
  planner_.Plan(start, plan_, admitted_);
  stats_.preemptions += planner_.preemptions() - preemptions;
  NoteAdmissions(start);
  TellPlanWatchers();
  EndTurn();
  if (plan_.rows() == 0) {
    stepped_before_ = false;
    PublishGauges();
    return false;
  }
  const uint64_t planned_cpu = ThreadNanoseconds();
  executor_.Run(chains_, plan_);
  const TimePoint computed = clock_.Now();
  const uint64_t computed_cpu = ThreadNanoseconds();
  CommitStep(computed);
  EndTurn();
  const TimePoint end = clock_.Now();
  stats_.overhead_ns +=
      planned_cpu - start_cpu + ThreadNanoseconds() - computed_cpu + executor_.setup_ns();
  ++stats_.steps;
  stats_.rows += plan_.rows();
  stats_.step_ns += static_cast<uint64_t>((end - start).count());
  stats_.kernel_ns += executor_.kernel_ns();
  if (metrics_ != nullptr) {
    metrics_->batch_size.Observe(static_cast<double>(plan_.sequences.size()));
    metrics_->step_tokens.Observe(plan_.rows());
    if (stepped_before_) metrics_->step_gap_seconds.Observe(Seconds(start - last_step_end_));
  }
  last_step_end_ = end;
  stepped_before_ = true;
  PublishGauges();
  return true;
}

void EngineLoop::EndTurn() {
  if (ready_.empty()) return;
  if (options_.tell) {
    options_.tell(ready_);
  } else {
    for (const std::shared_ptr<StreamMailbox>& mailbox : ready_) mailbox->Tell();
  }
  ready_.clear();
}

void EngineLoop::CommitRows(const PlannedRows& planned) {
  Sequence& sequence = *planned.sequence;
  const uint32_t prompt = sequence.prompt_tokens();
  const uint32_t before = sequence.computed;
  sequence.computed += planned.rows;
  if (before < prompt) {
    stats_.computed_prompt_tokens += std::min(sequence.computed, prompt) - before;
  }
  sealed_.clear();
  cache_.Commit(sequence.cache, std::span(sequence.tokens).first(sequence.computed), &sealed_);
  if (!sealed_.empty()) executor_.Seal(*sequence.chain->info.chain, sealed_);
  PushProgress(planned);
}

void EngineLoop::PushProgress(const PlannedRows& planned) {
  const Sequence& sequence = *planned.sequence;
  if (!sequence.progress || planned.position >= sequence.prompt_tokens()) return;
  const ProgressEvent event{
      .prompt_tokens_done = std::min(sequence.computed, sequence.prompt_tokens()),
      .prompt_tokens_total = sequence.prompt_tokens()};
  if (sequence.mailbox->PushProgress(event)) ready_.push_back(sequence.mailbox);
}

void EngineLoop::CommitStep(TimePoint now) {
  constexpr size_t kAhead = 8;
  for (size_t i = 0; i < plan_.sequences.size(); ++i) {
    if (i + kAhead < plan_.sequences.size()) plan_.sequences[i + kAhead].sequence->Prefetch();
    const Sequence& sequence = *plan_.sequences[i].sequence;
    // For the second loop: the mailbox, which its reader has in another processor's cache, and the
    // end of the tokens.
    sequence.mailbox->Prefetch();
    __builtin_prefetch(sequence.tokens.data() + sequence.tokens.size(), 1);
    CommitRows(plan_.sequences[i]);
  }
  for (size_t i = 0; i < plan_.samples.size(); ++i) {
    const PlannedSample& planned = plan_.samples[i];
    Sequence& sequence = *planned.sequence;
    if (planned.prompt_index > 0) {
      TakePromptSample(planned, i);
      continue;
    }
    if (sequence.forks && !sequence.request->forked) ForkChoices(*sequence.request);
    TakeDraw(planned, i, now);
  }
  CountNewTokens();
  FinishScored(now);
  Retire();
}

void EngineLoop::CountNewTokens() {
  for (const std::unique_ptr<LiveChain>& chain : chains_.chains()) {
    if (chain->new_tokens == 0) continue;
    chain->info.metrics.tokens_completion.Inc(chain->new_tokens);
    chain->new_tokens = 0;
    chain->token_gaps.Flush();
  }
}

void EngineLoop::FinishScored(TimePoint now) {
  for (const PlannedRows& planned : plan_.sequences) {
    Sequence& sequence = *planned.sequence;
    if (!sequence.score_only || sequence.uncomputed() > 0) continue;
    Finish(sequence, {.reason = FinishReason::kMaxTokens}, now);
  }
}

void EngineLoop::TakePromptSample(const PlannedSample& planned, size_t index) {
  Sequence& sequence = *planned.sequence;
  const kernels::SampleResult& result = plan_.results[index];
  const uint32_t top_count = plan_.sample_rows[index].top_logprobs;
  sequence.prompt_reported = planned.prompt_index;
  PushToken(sequence,
            {.choice = sequence.choice,
             .token = sequence.tokens[planned.prompt_index],
             .rank = result.rank,
             .logprob = result.logprob,
             .has_logprob = true,
             .is_argmax = result.is_argmax,
             .is_prompt = true},
            std::span(plan_.top).subspan(index * plan_.top_stride, top_count));
}

// All choices have drawn from the prompt's last logits; each now gets its own copy of the open
// pages. A choice for which there is no room waits and computes its tokens again.
void EngineLoop::ForkChoices(Request& request) {
  request.forked = true;
  Sequence& first = *request.choices.front();
  std::byte* arena = cache_.arena();
  const auto copy = [arena](PageId from, PageId to, uint64_t bytes) {
    const std::byte* source = kernels::PageAddress(arena, from);
    std::copy(source, source + bytes, kernels::PageAddress(arena, to));
  };
  for (size_t c = 1; c < request.choices.size(); ++c) {
    Sequence& choice = *request.choices[c];
    choice.admitted_at = first.admitted_at;
    StatusOr<kvcache::SequenceCache> forked = cache_.Fork(first.cache, copy);
    planner_.AddRunning(&choice);
    if (forked.ok()) {
      choice.cache = std::move(*forked);
      choice.computed = first.computed;
    } else {
      planner_.Preempt(&choice);
    }
  }
}

void EngineLoop::TakeDraw(const PlannedSample& planned, size_t index, TimePoint now) {
  Sequence& sequence = *planned.sequence;
  if (sequence.phase == SequencePhase::kFinished) return;
  const kernels::SampleRow& row = plan_.sample_rows[index];
  const size_t top_count = row.top_logprobs + row.logprob_ids.size();
  AppendToken(sequence, plan_.results[index],
              std::span(plan_.top).subspan(index * plan_.top_stride, top_count), now);
}

void EngineLoop::WatchPlan(std::function<void(std::string)> watcher) {
  plan_watchers_.push_back(std::move(watcher));
}

void EngineLoop::TellPlanWatchers() {
  if (plan_watchers_.empty()) return;
  const std::string text = Describe(plan_, chains_);
  for (const std::function<void(std::string)>& watcher : plan_watchers_) watcher(text);
  plan_watchers_.clear();
}

void EngineLoop::PublishGauges() {
  stats_.running = static_cast<uint32_t>(planner_.running().size());
  stats_.waiting = static_cast<uint32_t>(planner_.waiting().size());
}

EngineStats EngineLoop::Stats() const {
  EngineStats stats = stats_;
  stats.cache = cache_.stats();
  return stats;
}

}  // namespace tessera::scheduler
