// The engine's work without its thread: takes messages, runs steps, answers. All state of the
// engine is here, and one thread calls it.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "config/foundation/clock.h"
#include "config/foundation/metrics.h"
#include "scheduler/engine.h"
#include "scheduler/executor.h"
#include "scheduler/inbox.h"
#include "scheduler/live_chains.h"
#include "scheduler/sequence.h"
#include "scheduler/step_plan.h"
#include "scheduler/step_planner.h"

namespace tessera::scheduler {

[[nodiscard]] inline double Seconds(Duration duration) {
  return std::chrono::duration<double>(duration).count();
}

class EngineLoop {
 public:
  EngineLoop(const EngineOptions& options, const kernels::Backend& backend,
             kernels::ThreadPool& pool, kvcache::KvCache& cache, Inbox& inbox,
             EngineMetrics* metrics);
  ~EngineLoop();

  // Takes what the inbox holds; with `until` in the future it waits for something first.
  void TakeMessages(TimePoint until);
  // Runs one step; false when there was nothing to run.
  bool Step();
  // Tells the readers of what was pushed.
  void EndTurn();
  // When the loop must look again although no message comes (a deadline, a parked reader).
  [[nodiscard]] TimePoint NextWake() const;

  [[nodiscard]] Status AddChain(ChainId id, const EngineChain& info);
  void RemoveChain(ChainId id, std::function<void()> done);
  // Ends every request with `status`.
  void FailAll(const Status& status);

  [[nodiscard]] bool idle() const { return requests_.empty() && in_flight_ == 0; }
  [[nodiscard]] EngineStats Stats() const;
  // Calls `watcher` with the text of the next step's plan, or of an empty one when nothing runs.
  void WatchPlan(std::function<void(std::string)> watcher);
  void SetProfile(kernels::OpProfile* profile) { executor_.SetProfile(profile); }
  [[nodiscard]] uint64_t workspace_bytes() const { return executor_.workspace_bytes(); }

 private:
  void Accept(Submission submission);
  // Why a request for `chain` (or for none) cannot be taken; readies `spec` for the device.
  [[nodiscard]] Status Admit(const LiveChain* chain, GenerationRequest& spec) const;
  void ReleaseRequest(RequestId id);
  void CheckTimes(TimePoint now);
  void CheckBacklog(Request& request, TimePoint now);
  void NoteDeadlines(const Request& request);
  void TellStarted(const Request& request, uint32_t cached_tokens, TimePoint now);
  void NoteAdmissions(TimePoint now);
  void PublishGauges();
  void TellPlanWatchers(const StepPlan& plan);

  // Steps in flight, oldest first.
  bool PlanStep(TimePoint start);
  void EnterFlight(StepPlan& plan);
  void LeaveFlight();
  void FinishAll();
  void DropLeaving();
  [[nodiscard]] StepPlan& OldestPlan() { return plans_[static_cast<size_t>(oldest_)]; }
  // Ends every request with UNAVAILABLE.
  void LoseDevice(const Status& status);

  // After a step: lengths, cache, samples.
  void CommitStep(TimePoint now);
  void CommitRows(const PlannedRows& planned);
  void PushProgress(const PlannedRows& planned);
  void TakePromptSample(const StepPlan& plan, size_t index);
  void TakeDraw(const StepPlan& plan, size_t index, TimePoint now);
  void ForkChoices(Request& request);
  void CountNewTokens();
  void FinishPrompts(const StepPlan& plan, TimePoint now);
  void PushPooled(const Sequence& sequence);
  void AppendToken(Sequence& sequence, const kernels::SampleResult& result,
                   std::span<const kernels::TokenLogprob> top, TimePoint now);
  bool EndByToken(Sequence& sequence, TokenEvent event, std::span<const kernels::TokenLogprob> top,
                  TimePoint now);
  bool EndByText(Sequence& sequence, const TokenEvent& event,
                 std::span<const kernels::TokenLogprob> top, TimePoint now);
  void PushToken(Sequence& sequence, const TokenEvent& event,
                 std::span<const kernels::TokenLogprob> top);
  void Show(Sequence& sequence, const Sequence::Held& held);
  void ShowSafe(Sequence& sequence);
  void ShowUntil(Sequence& sequence, uint64_t end_byte);
  void Finish(Sequence& sequence, FinishedEvent event, TimePoint now);
  void FailRequest(Request& request, const Status& status);
  void LeaveWaiting(Request& request);
  void Retire();

  EngineOptions options_;
  const Clock& clock_;
  kvcache::KvCache& cache_;
  Inbox& inbox_;
  EngineMetrics* metrics_;
  LiveChains chains_;
  Executor executor_;
  StepPlanner planner_;
  Inbox::Batch batch_;
  std::array<StepPlan, 2> plans_;
  int oldest_ = 0;     // of the plans in flight
  int in_flight_ = 0;  // plans submitted and not finished
  uint64_t submit_cpu_ns_ = 0;
  bool device_lost_ = false;
  std::vector<Sequence*> admitted_;
  std::vector<kvcache::KvCache::SealedPage> sealed_;
  std::vector<kernels::PageCopy> page_copies_;
  std::vector<std::unique_ptr<Request>> leaving_;  // ended, but a step in flight names them
  std::unordered_map<uint64_t, std::unique_ptr<Request>> requests_;
  std::vector<std::function<void(std::string)>> plan_watchers_;
  std::vector<uint64_t> ended_;                        // requests to retire after the step
  std::vector<std::shared_ptr<StreamMailbox>> ready_;  // their readers are to be told
  TimePoint next_deadline_ = TimePoint::max();         // of all requests
  bool readers_behind_ = false;                        // some are parked, or should be
  TimePoint last_step_end_{};
  bool stepped_before_ = false;
  EngineStats stats_;
};

}  // namespace tessera::scheduler
