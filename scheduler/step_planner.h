// Plans a step: admit -> grow -> preempt -> emit (the engine retires before it plans).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kvcache/kv_cache.h"
#include "scheduler/policy.h"
#include "scheduler/sequence.h"
#include "scheduler/step_plan.h"

namespace tessera::scheduler {

// Owns who waits and who runs; sequences belong to their requests. Engine thread.
class StepPlanner {
 public:
  struct Limits {
    uint32_t max_batch_tokens = 512;
    uint32_t max_running = 256;
    bool prefix_reuse = true;
  };
  StepPlanner(const Limits& limits, kvcache::KvCache& cache, std::unique_ptr<WaitingPolicy> policy);

  void AddWaiting(Sequence* sequence) { policy_->Add(sequence); }
  // A choice that was forked from a running one.
  void AddRunning(Sequence* sequence);
  // Gives back pages and forgets the sequence.
  void Remove(Sequence* sequence);
  // Back to the waiting line; its tokens are computed again, with the same result.
  void Preempt(Sequence* sequence);

  // A sequence whose reader is too slow gets no rows, and its pages go first when others need them.
  void Park(Sequence* sequence, TimePoint now);
  void Unpark(Sequence* sequence);

  // Fills `plan` and reserves its pages. Empty when nothing can run. `now` stamps admissions. Newly
  // admitted sequences are appended to `admitted`.
  void Plan(TimePoint now, StepPlan& plan, std::vector<Sequence*>& admitted);

  [[nodiscard]] const std::vector<Sequence*>& running() const { return running_; }
  [[nodiscard]] const WaitingPolicy& waiting() const { return *policy_; }
  [[nodiscard]] uint64_t preemptions() const { return preemptions_; }
  // No running sequence has a slot at or above this.
  [[nodiscard]] int32_t slots() const { return slots_; }

 private:
  void Admit(TimePoint now, std::vector<Sequence*>& admitted);
  [[nodiscard]] bool MakeRoom(uint64_t bytes);
  void Open(Sequence* sequence);
  [[nodiscard]] uint64_t GrowthBytes() const;
  // Chooses rows for every running sequence within the budget and grows its cache; false when a
  // page is missing.
  [[nodiscard]] bool Grow();
  // The same where a deterministic sequence runs: rows of prompts and rows of decoding in turn,
  // since each have their own kernels, and a row's must not depend on what else is planned.
  [[nodiscard]] bool GrowOneRole();
  [[nodiscard]] kernels::Numerics ChooseRole() const;
  [[nodiscard]] bool GrowOne(Sequence* sequence, uint32_t rows);
  // Whether it may have rows although a step in flight still draws for it.
  [[nodiscard]] static bool CanRun(const Sequence& sequence);
  // Takes it out of those that run.
  void Forget(Sequence* sequence);
  void TakeSlot(Sequence* sequence);
  void GiveSlot(Sequence* sequence);
  // Whom to preempt when a page is missing: the newest parked sequence, else the newest. A sequence
  // that runs alone always fits an empty cache (it was checked when accepted), but with pages of
  // several sizes its own may lie scattered: it then gives them back and opens again, which gathers
  // them.
  [[nodiscard]] Sequence* Victim() const;
  void Emit(StepPlan& plan);
  void EmitSamples(const PlannedRows& planned, StepPlan& plan) const;
  static void EmitPool(const PlannedRows& planned, StepPlan& plan);

  Limits limits_;
  kvcache::KvCache& cache_;
  std::unique_ptr<WaitingPolicy> policy_;
  std::vector<Sequence*> running_;     // by admission
  std::vector<Sequence*> parked_out_;  // parked and without pages: wait outside the line
  std::vector<PlannedRows> chosen_;
  kernels::Numerics numerics_ = kernels::Numerics::kFast;   // of what is chosen
  kernels::Numerics last_role_ = kernels::Numerics::kFast;  // of the last plan with rows
  uint32_t deterministic_ = 0;                              // sequences that run
  std::vector<int32_t> free_slots_;
  int32_t slots_ = 0;  // made so far
  uint64_t preemptions_ = 0;
};

}  // namespace tessera::scheduler
