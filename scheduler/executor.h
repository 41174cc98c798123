// Runs step plans: stages of the union graphs, block by block, then logits and samples.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "config/foundation/status.h"
#include "kernels/backend.h"
#include "kernels/exec_context.h"
#include "kvcache/kv_cache.h"
#include "scheduler/live_chains.h"
#include "scheduler/rotary_step.h"
#include "scheduler/step_inputs.h"
#include "scheduler/step_plan.h"

namespace tessera::scheduler {

// Owns the step's workspace, which `Prepare` sizes for the live chains; a step allocates nothing.
// Engine thread.
//
// A plan is submitted, then finished, in the order of submission; at most max_in_flight() are
// between the two. On a device the next plan can be made and submitted while one runs.
class Executor {
 public:
  struct Limits {
    uint32_t max_rows = 512;
    uint32_t max_sequences = 256;
    bool deterministic = false;  // plans may have numerics other than kFast
  };
  Executor(const Limits& limits, const kernels::Backend& backend, kernels::ThreadPool& pool,
           kvcache::KvCache& cache);
  ~Executor();

  // Sizes the workspace and binds the step's own ops for the chains. RESOURCE_EXHAUSTED when memory
  // is short, UNIMPLEMENTED when the backend lacks a kernel. With nothing in flight.
  [[nodiscard]] Status Prepare(const LiveChains& chains);

  // Counts the launches of steps from now on; null: no more. See OpProfile.
  void SetProfile(kernels::OpProfile* profile) {
    profile_ = profile;
    if (context_ != nullptr) context_->set_profile(profile);
  }

  // Of the context that Prepare made.
  [[nodiscard]] bool batch_invariant() const { return context_->batch_invariant(); }
  [[nodiscard]] Status deterministic() const { return context_->deterministic(); }
  [[nodiscard]] int max_in_flight() const {
    return context_ != nullptr ? context_->max_in_flight() : 1;
  }
  // Queues every row of `plan` and its samples. `slots`: sequences have slots below it. Errors of a
  // device: then the plan must be finished all the same.
  [[nodiscard]] Status Submit(const LiveChains& chains, StepPlan& plan, int32_t slots);
  // Waits for the plan; plan.results and plan.top are then readable. UNAVAILABLE when the device
  // was lost.
  [[nodiscard]] Status Finish(StepPlan& plan);

  // Writes the key statistics of pages that were sealed.
  void Seal(const blockzoo::Chain& chain, std::span<const kvcache::KvCache::SealedPage> pages);
  // Copies pages of the cache.
  void CopyPages(std::span<const kernels::PageCopy> copies);

  // Wall time of the last Submit: inside kernels (or launching them), and around them.
  [[nodiscard]] uint64_t kernel_ns() const { return kernel_ns_; }
  [[nodiscard]] uint64_t setup_ns() const { return setup_ns_; }
  // Time that a device waited for the host before the step of the last Finish.
  [[nodiscard]] uint64_t idle_ns() const { return idle_ns_; }
  [[nodiscard]] uint64_t workspace_bytes() const { return workspace_bytes_; }

 private:
  struct Needs;
  Status AllocateFor(const Needs& needs);
  Status PrepareOps(const LiveChains& chains, const Needs& needs);
  void RunTables();
  void TakeOutputs(StepPlan& plan);
  void RunStage(const StepInputs::Stage& stage);
  void RunHeads(const StepInputs::Stage& stage, StepPlan& plan);
  void RunPools(const StepInputs::Stage& stage);
  void Sample(StepPlan& plan, uint32_t tile);
  [[nodiscard]] bool Records(const StepPlan& plan) const;

  Limits limits_;
  const kernels::Backend& backend_;
  kernels::ThreadPool& pool_;
  kvcache::KvCache& cache_;
  std::unique_ptr<kernels::ExecContext> context_;
  kernels::Kernel<kernels::SampleOp> sample_;
  kernels::Kernel<kernels::StepTablesOp> step_tables_;
  kernels::Kernel<kernels::CopyPagesOp> copy_pages_;
  blockzoo::LaunchScratch scratch_;
  std::shared_ptr<kernels::Buffer> workspace_;
  std::shared_ptr<kernels::Buffer> residual_;
  std::shared_ptr<kernels::Buffer> logits_;
  std::shared_ptr<kernels::Buffer> drawn_;  // [slots] last token drawn for each
  uint64_t workspace_bytes_ = 0;
  uint32_t logits_rows_ = 0;
  uint64_t generation_ = 0;

  StepInputs inputs_;
  RotaryStep rotary_;
  std::vector<kernels::StepArena> input_arenas_;   // [max_in_flight]
  std::vector<kernels::StepArena> output_arenas_;  // [max_in_flight]
  size_t arena_ = 0;                               // of the step being submitted
  kernels::Mirrored<kernels::SampleResult> results_;
  kernels::Mirrored<kernels::TokenLogprob> top_;
  std::vector<blockzoo::LaunchMember> members_;
  std::vector<PageId> seal_pages_;
  kernels::OpProfile* profile_ = nullptr;
  uint64_t kernel_ns_ = 0;
  uint64_t setup_ns_ = 0;
  uint64_t idle_ns_ = 0;
};

}  // namespace tessera::scheduler
