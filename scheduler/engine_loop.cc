#include "scheduler/engine_loop.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "config/foundation/check.h"
#include "config/foundation/log.h"
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
      executor_({.max_rows = options.max_batch_tokens,
                 .max_sequences = options.max_running + 1,
                 .deterministic = options.determinism != Determinism::kOff},
                backend, pool, cache),
      planner_({.max_batch_tokens = options.max_batch_tokens,
                .max_running = options.max_running,
                .prefix_reuse = options.prefix_reuse},
               cache, MakeFirstComePolicy()) {
  constexpr uint32_t kTopStride = kernels::SampleOp::kMaxTopLogprobs + 32;
  for (StepPlan& plan : plans_) {
    plan.Reserve(options.max_batch_tokens, options.max_running + 1, kTopStride);
  }
  admitted_.reserve(options.max_running + 1);
  sealed_.reserve(4096);
  ended_.reserve(options.max_running + 1);
  ready_.reserve(options.inbox.max_requests + options.max_running);
  requests_.reserve(options.inbox.max_requests + options.max_running);
}

EngineLoop::~EngineLoop() { FinishAll(); }

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
  FinishAll();
  TESSERA_RETURN_IF_ERROR(chains_.Add(id, info));
  Status prepared = executor_.Prepare(chains_);
  if (prepared.ok() && options_.determinism != Determinism::kOff) {
    const Status deterministic = executor_.deterministic();
    if (options_.determinism == Determinism::kAlways) {
      prepared = deterministic;
    } else if (!deterministic.ok()) {
      LogWarning("deterministic_requests_refused",
                 {{"chain", info.name}, {"why", deterministic.message()}});
    }
  }
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

Status EngineLoop::Admit(const LiveChain* chain, GenerationRequest& spec) const {
  if (device_lost_) {
    return WithReason(absl::UnavailableError("the device is lost; the server must be restarted"),
                      "DEVICE_LOST");
  }
  if (chain == nullptr) {
    return WithReason(absl::UnavailableError("the chain was unloaded while the request waited"),
                      "MODEL_UNLOADED");
  }
  if (options_.determinism == Determinism::kAlways) spec.deterministic = true;
  // What every request has needs no steps of its own.
  if (executor_.batch_invariant()) spec.deterministic = false;
  if (!spec.deterministic) return absl::OkStatus();
  if (options_.determinism == Determinism::kOff) {
    return Error(absl::StatusCode::kUnimplemented,
                 {.what = "deterministic: this server's device has no such kernels ready",
                  .why = "engine.deterministic is off",
                  .fix = "leave the field out, or set engine.deterministic to on_request"});
  }
  const Status able = executor_.deterministic();
  if (able.ok()) return able;
  return Error(
      absl::StatusCode::kUnimplemented,
      {.what = "deterministic: this server's device cannot give it to the models it serves",
       .why = std::string(able.message()),
       .fix = "leave the field out"});
}

void EngineLoop::Accept(Submission submission) {
  GenerationRequest& spec = submission.request;
  LiveChain* chain = chains_.Find(spec.chain);
  const Status status = Admit(chain, spec);
  if (!status.ok()) {
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
  bool in_flight = false;
  for (const std::unique_ptr<Sequence>& choice : request.choices) {
    planner_.Remove(choice.get());
    in_flight = in_flight || choice->in_flight > 0;
  }
  LeaveWaiting(request);
  if (in_flight) {
    // A step that runs names it, and its chain's weights.
    leaving_.push_back(std::move(found->second));
    requests_.erase(found);
    return;
  }
  --request.chain->sequences;
  requests_.erase(found);
  if (chains_.DropUnused()) cache_.DropUnusedPrefixes();
}

// Lets go of requests that no step in flight names any more.
void EngineLoop::DropLeaving() {
  if (leaving_.empty()) return;
  std::erase_if(leaving_, [](const std::unique_ptr<Request>& request) {
    for (const std::unique_ptr<Sequence>& choice : request->choices) {
      if (choice->in_flight > 0) return false;
    }
    --request->chain->sequences;
    return true;
  });
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
      if (!request->admitted) TellStarted(*request, 0, now);
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

// A stream that finishes has started first, also where its time ended in the queue.
void EngineLoop::TellStarted(const Request& request, uint32_t cached_tokens, TimePoint now) {
  const StartedEvent event{.prompt_tokens = request.choices.front()->prompt_tokens(),
                           .cached_tokens = cached_tokens,
                           .queue_wait = now - request.spec.arrival};
  if (request.mailbox->PushStarted(event)) ready_.push_back(request.mailbox);
}

void EngineLoop::NoteAdmissions(TimePoint now) {
  for (Sequence* sequence : admitted_) {
    Request& request = *sequence->request;
    const uint32_t cached = sequence->cache.committed_tokens();
    const ModelMetrics& metrics = request.chain->info.metrics;
    if (!request.admitted) {
      LeaveWaiting(request);
      TellStarted(request, cached, now);
      metrics.queue_seconds.Observe(Seconds(now - request.spec.arrival));
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
  const bool submitted = PlanStep(start);
  if (in_flight_ == 0) {
    stepped_before_ = false;
    PublishGauges();
    return false;
  }
  uint64_t waited_cpu = 0;
  TimePoint computed = clock_.Now();
  if (!submitted || in_flight_ == executor_.max_in_flight()) {
    const uint64_t before_cpu = ThreadNanoseconds();
    const Status done = executor_.Finish(OldestPlan());
    waited_cpu = ThreadNanoseconds() - before_cpu;
    stats_.device_idle_ns += executor_.idle_ns();
    if (metrics_ != nullptr && executor_.max_in_flight() > 1) {
      metrics_->step_gap_seconds.Observe(1e-9 * static_cast<double>(executor_.idle_ns()));
    }
    computed = clock_.Now();
    if (done.ok()) {
      CommitStep(computed);
    } else {
      LoseDevice(done);
    }
    LeaveFlight();
  }
  EndTurn();
  const TimePoint end = clock_.Now();
  const uint64_t inside = submitted ? submit_cpu_ns_ : 0;
  stats_.overhead_ns += ThreadNanoseconds() - start_cpu - waited_cpu - inside +
                        (submitted ? executor_.setup_ns() : 0);
  stats_.step_ns += static_cast<uint64_t>((end - start).count());
  PublishGauges();
  return true;
}

// Plans the next step and submits it; false when there is no room for one or nothing to run.
bool EngineLoop::PlanStep(TimePoint start) {
  if (in_flight_ == executor_.max_in_flight()) return false;
  StepPlan& plan = plans_[(oldest_ + in_flight_) % plans_.size()];
  const uint64_t preemptions = planner_.preemptions();
  planner_.Plan(start, plan, admitted_);
  stats_.preemptions += planner_.preemptions() - preemptions;
  NoteAdmissions(start);
  TellPlanWatchers(plan);
  EndTurn();
  if (plan.rows() == 0) return false;
  const uint64_t before_cpu = ThreadNanoseconds();
  const Status queued = executor_.Submit(chains_, plan, planner_.slots());
  submit_cpu_ns_ = ThreadNanoseconds() - before_cpu;
  if (!queued.ok()) {
    LoseDevice(queued);
    return false;
  }
  EnterFlight(plan);
  ++stats_.steps;
  stats_.rows += plan.rows();
  stats_.kernel_ns += executor_.kernel_ns();
  if (metrics_ != nullptr) {
    metrics_->batch_size.Observe(static_cast<double>(plan.sequences.size()));
    metrics_->step_tokens.Observe(plan.rows());
    // On a device the next step is planned while one runs: what it waited is known when it ends.
    if (stepped_before_ && executor_.max_in_flight() == 1) {
      metrics_->step_gap_seconds.Observe(Seconds(start - last_step_end_));
    }
  }
  last_step_end_ = clock_.Now();
  stepped_before_ = true;
  return true;
}

// From here on sequences count what the step will have computed and drawn.
void EngineLoop::EnterFlight(StepPlan& plan) {
  for (const PlannedRows& planned : plan.sequences) {
    planned.sequence->computed += planned.rows;
    ++planned.sequence->in_flight;
  }
  for (const PlannedSample& sample : plan.samples) {
    if (sample.prompt_index > 0) continue;
    ++sample.sequence->pending;
    // Choices of a prompt draw from rows of the first.
    ++sample.sequence->in_flight;
  }
  ++in_flight_;
}

void EngineLoop::LeaveFlight() {
  const StepPlan& plan = OldestPlan();
  for (const PlannedRows& planned : plan.sequences) --planned.sequence->in_flight;
  for (const PlannedSample& sample : plan.samples) {
    if (sample.prompt_index == 0) --sample.sequence->in_flight;
  }
  oldest_ = (oldest_ + 1) % plans_.size();
  --in_flight_;
  DropLeaving();
}

// Ends what was in flight: whatever happens next changes what steps rely on.
void EngineLoop::FinishAll() {
  while (in_flight_ > 0) {
    const Status done = executor_.Finish(OldestPlan());
    if (done.ok()) {
      CommitStep(clock_.Now());
    } else {
      LoseDevice(done);
    }
    LeaveFlight();
  }
}

void EngineLoop::LoseDevice(const Status& status) {
  if (options_.on_device_lost && !device_lost_) options_.on_device_lost(status);
  device_lost_ = true;
  FailAll(WithReason(absl::UnavailableError(std::string(status.message())), "DEVICE_LOST"));
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
  const uint32_t computed = planned.position + planned.rows;
  if (planned.position < prompt) {
    stats_.computed_prompt_tokens += std::min(computed, prompt) - planned.position;
  }
  // It has ended meanwhile, or given its pages to others.
  if (sequence.phase != SequencePhase::kRunning || sequence.preemptions != planned.epoch) return;
  sealed_.clear();
  cache_.Commit(sequence.cache, std::span(sequence.tokens).first(computed), &sealed_);
  if (!sealed_.empty()) executor_.Seal(*sequence.chain->info.chain, sealed_);
  PushProgress(planned);
}

void EngineLoop::PushProgress(const PlannedRows& planned) {
  const Sequence& sequence = *planned.sequence;
  if (!sequence.progress || planned.position >= sequence.prompt_tokens()) return;
  const ProgressEvent event{
      .prompt_tokens_done = std::min(planned.position + planned.rows, sequence.prompt_tokens()),
      .prompt_tokens_total = sequence.prompt_tokens()};
  if (sequence.mailbox->PushProgress(event)) ready_.push_back(sequence.mailbox);
}

void EngineLoop::CommitStep(TimePoint now) {
  const StepPlan& plan = OldestPlan();
  constexpr size_t kAhead = 8;
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    if (i + kAhead < plan.sequences.size()) plan.sequences[i + kAhead].sequence->Prefetch();
    const Sequence& sequence = *plan.sequences[i].sequence;
    // For the second loop: the mailbox, which its reader has in another processor's cache, and the
    // end of the tokens.
    sequence.mailbox->Prefetch();
    __builtin_prefetch(sequence.tokens.data() + sequence.tokens.size(), 1);
    CommitRows(plan.sequences[i]);
  }
  for (size_t i = 0; i < plan.samples.size(); ++i) {
    const PlannedSample& planned = plan.samples[i];
    Sequence& sequence = *planned.sequence;
    if (planned.prompt_index > 0) {
      TakePromptSample(plan, i);
      continue;
    }
    --sequence.pending;
    if (sequence.phase == SequencePhase::kFinished) continue;
    if (sequence.forks && !sequence.request->forked) ForkChoices(*sequence.request);
    TakeDraw(plan, i, now);
  }
  CountNewTokens();
  FinishPrompts(plan, now);
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

// Ends those that wanted their prompt computed and no more.
void EngineLoop::FinishPrompts(const StepPlan& plan, TimePoint now) {
  for (const PlannedRows& planned : plan.sequences) {
    Sequence& sequence = *planned.sequence;
    if (!sequence.prompt_only || planned.position + planned.rows < sequence.tokens.size()) continue;
    if (sequence.phase == SequencePhase::kFinished) continue;
    if (!sequence.pooled.empty()) PushPooled(sequence);
    Finish(sequence, {.reason = FinishReason::kMaxTokens}, now);
  }
}

void EngineLoop::PushPooled(const Sequence& sequence) {
  const bool mean = sequence.request->spec.pooling == Pooling::kMean;
  const double count = mean ? sequence.prompt_tokens() : 1;
  std::vector<float> pooled(sequence.pooled.size());
  std::transform(sequence.pooled.begin(), sequence.pooled.end(), pooled.begin(),
                 [count](double sum) { return static_cast<float>(sum / count); });
  if (sequence.mailbox->PushPooled(std::move(pooled))) ready_.push_back(sequence.mailbox);
}

void EngineLoop::TakePromptSample(const StepPlan& plan, size_t index) {
  const PlannedSample& planned = plan.samples[index];
  Sequence& sequence = *planned.sequence;
  if (sequence.phase == SequencePhase::kFinished) return;
  const kernels::SampleResult& result = plan.results[index];
  const uint32_t top_count = plan.sample_rows[index].top_logprobs;
  sequence.prompt_reported = planned.prompt_index;
  PushToken(sequence,
            {.choice = sequence.choice,
             .token = sequence.tokens[planned.prompt_index],
             .rank = result.rank,
             .logprob = result.logprob,
             .has_logprob = true,
             .is_argmax = result.is_argmax,
             .is_prompt = true},
            plan.TopOf(index, top_count));
}

// All choices have drawn from the prompt's last logits; each now gets its own copy of the open
// pages. A choice for which there is no room waits and computes its tokens again.
void EngineLoop::ForkChoices(Request& request) {
  request.forked = true;
  Sequence& first = *request.choices.front();
  page_copies_.clear();
  const auto copy = [this](PageId from, PageId to, uint64_t bytes) {
    page_copies_.push_back({.from = from, .to = to, .bytes = bytes});
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
  executor_.CopyPages(page_copies_);
}

void EngineLoop::TakeDraw(const StepPlan& plan, size_t index, TimePoint now) {
  const kernels::SampleRow& row = plan.sample_rows[index];
  const size_t top_count = row.top_logprobs + row.logprob_ids.size();
  AppendToken(*plan.samples[index].sequence, plan.results[index], plan.TopOf(index, top_count),
              now);
}

void EngineLoop::WatchPlan(std::function<void(std::string)> watcher) {
  plan_watchers_.push_back(std::move(watcher));
}

void EngineLoop::TellPlanWatchers(const StepPlan& plan) {
  if (plan_watchers_.empty()) return;
  const std::string text = Describe(plan, chains_);
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
