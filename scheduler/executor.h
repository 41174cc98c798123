// Runs a step plan: stages of the union graphs, block by block, then logits and samples.
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
#include "scheduler/step_plan.h"

namespace tessera::scheduler {

// Owns the step's workspace, which `Prepare` sizes for the live chains; `Run` allocates nothing.
// Engine thread.
class Executor {
 public:
  struct Limits {
    uint32_t max_rows = 512;
    uint32_t max_sequences = 256;
  };
  Executor(const Limits& limits, const kernels::Backend& backend, kernels::ThreadPool& pool,
           kvcache::KvCache& cache);
  ~Executor();

  // Sizes the workspace and binds the sampler for the chains. RESOURCE_EXHAUSTED when memory is
  // short, UNIMPLEMENTED when the backend lacks a kernel. Between steps.
  [[nodiscard]] Status Prepare(const LiveChains& chains);

  // Computes every row of `plan` and fills plan.results and plan.top.
  void Run(const LiveChains& chains, StepPlan& plan);

  // Writes the key statistics of pages that were sealed.
  void Seal(const blockzoo::Chain& chain, std::span<const kvcache::KvCache::SealedPage> pages);

  // Wall time of the last Run: inside kernels, and around them.
  [[nodiscard]] uint64_t kernel_ns() const { return kernel_ns_; }
  [[nodiscard]] uint64_t setup_ns() const { return setup_ns_; }
  [[nodiscard]] uint64_t workspace_bytes() const { return workspace_.size(); }

 private:
  struct Angles;
  // A block of the stage being run, by its place among all and among those with state.
  struct BlockAt {
    size_t block;
    size_t stateful;
  };

  void ReserveAngles(const LiveChains& chains);
  [[nodiscard]] Angles& AnglesOf(size_t index, size_t pairs);
  void FillRotary(const StepPlan& plan);
  void FillAngles(const PlannedRows& planned, uint32_t begin, uint32_t end);
  void RunStage(const LiveChains::Graph& graph, const blockzoo::Stage& stage, StepPlan& plan);
  bool GatherRows(const LiveChains::Graph& graph, const blockzoo::Stage& stage,
                  const StepPlan& plan);
  void GatherState(const LiveChains::Graph& graph);
  void GatherState(uint32_t run);
  void RunBlock(const LiveChains::Graph& graph, BlockAt at, StepPlan& plan);
  void RunHead(blockzoo::Launch& launch, size_t block, const LiveChains::Graph& graph,
               StepPlan& plan);
  void Sample(StepPlan& plan, size_t first, size_t last, int32_t vocab);

  Limits limits_;
  const kernels::Backend& backend_;
  kernels::ThreadPool& pool_;
  kvcache::KvCache& cache_;
  std::unique_ptr<kernels::ExecContext> context_;
  kernels::Kernel<kernels::SampleOp> sample_;
  blockzoo::LaunchScratch scratch_;
  std::vector<std::byte> workspace_;
  std::vector<float> residual_;
  std::vector<float> logits_;
  uint32_t logits_rows_ = 0;

  // Angles of every row for one rotary index and head size: [max_rows, pairs]. Only rows of chains
  // that have it are filled.
  struct Angles {
    size_t index;
    size_t pairs;
    std::vector<float> cosine, sine;
  };
  std::vector<Angles> angles_;
  std::vector<blockzoo::RotaryRows> rotary_;  // of the stage being run

  // Rows of the stage being run, compact.
  struct RowRun {
    const PlannedRows* planned;
    uint32_t first;        // compact row
    uint32_t first_block;  // of the segment, in the row's chain
  };
  struct MemberRuns {
    uint32_t segment;
    uint32_t run_begin, run_end;
    int32_t row_begin, row_count;
  };
  std::vector<RowRun> runs_;
  std::vector<MemberRuns> member_runs_;
  std::vector<blockzoo::LaunchMember> members_;
  std::vector<int32_t> step_rows_;
  std::vector<TokenId> tokens_;
  // State of those rows. Blocks that have any share the attention plan; each reads tables of its
  // own, this many after those of the first.
  std::vector<kernels::AttentionRow> attention_plan_;  // [max_sequences]
  std::vector<size_t> stateful_;                       // those blocks, of the member being gathered
  std::vector<uint32_t> tables_;                       // [stateful blocks]
  std::vector<PageId> append_page_;                    // [stateful blocks, max_rows]
  std::vector<uint8_t> append_slot_;
  std::vector<uint32_t> head_samples_;  // samples of the head being run, by row
  std::vector<PageId> seal_pages_;
  uint64_t kernel_ns_ = 0;
  uint64_t gather_ns_ = 0;      // wall time
  uint64_t gather_cpu_ns_ = 0;  // processor time of the same
  uint64_t setup_ns_ = 0;
};

}  // namespace tessera::scheduler
