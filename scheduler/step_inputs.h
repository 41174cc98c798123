// What the kernels of a step read, gathered from its plan: rows of every stage, where their state
// goes, what they attend to, whose logits are wanted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "config/foundation/status.h"
#include "kernels/exec_context.h"
#include "scheduler/live_chains.h"
#include "scheduler/step_plan.h"
#include "scheduler/table_mirror.h"

namespace tessera::scheduler {

// Engine thread. Arrays are taken from the arena of the step; those of a recorded step have the
// same places each time.
class StepInputs {
 public:
  explicit StepInputs(kernels::Memory& memory) : tables_(memory) {}

  // Sizes everything for the live chains; what Gather takes of an arena is at most arena_bytes().
  [[nodiscard]] Status Prepare(const LiveChains& chains, const kernels::ExecContext& context,
                               uint32_t max_rows, uint32_t max_sequences);
  [[nodiscard]] uint64_t arena_bytes() const { return arena_bytes_; }
  // Learns the stages of the graphs as they are now.
  void Learn(const LiveChains& chains);

  // Rows of one segment in a stage, and the run of sequences that they belong to.
  struct Member {
    const blockzoo::Segment* segment;
    uint32_t index;  // of the segment
    uint32_t run_begin, run_end;
    int32_t row_begin, row_count;
  };
  // One stage that has rows.
  struct Stage {
    const blockzoo::Chain* chain;  // of its first row: all have equal shapes
    std::span<const Member> members;
    int32_t rows = 0;
    const int32_t* step_rows = nullptr;   // [rows]; null: the same rows in order
    uint32_t stride = 0;                  // of append_page
    const PageId* append_page = nullptr;  // [stateful blocks, stride]
    const uint8_t* append_slot = nullptr;
    // By block of the segment: number of its first table after the first one's, and its plan.
    std::span<const uint32_t> tables;
    std::span<const kernels::AttentionPlan> plans;
    std::span<const int32_t> plan_of_block;  // -1: no state
    size_t head_begin = 0, head_end = 0;     // into heads()
    size_t pool_begin = 0, pool_end = 0;     // into pools()
  };
  // Logits of one head over some rows, made before the next tile's.
  struct Head {
    const blockzoo::BoundBlock* block;
    const blockzoo::Chain* chain;
    const int32_t* step_rows;  // [rows]
    int32_t rows;
    uint32_t tile;
    float* logits;
    size_t sample_begin, sample_end;  // into sample_order()
  };

  // Rows of one head whose final hidden states are added up.
  struct Pool {
    const blockzoo::BoundBlock* block;
    const int32_t* step_rows;  // [rows]
    int32_t rows;
    std::span<const kernels::PoolRowsTask> tasks;  // one a sequence
  };

  // Where logits are made, and how many floats fit.
  struct Logits {
    float* data;
    uint64_t floats;
  };
  // Fills `arena` from `plan`, launching `rows` rows: the plan's, or more of them when all belong
  // to one chain. UNAVAILABLE when the device is lost.
  [[nodiscard]] Status Gather(StepPlan& plan, uint32_t rows, const Logits& logits,
                              kernels::ExecContext& context, kernels::StepArena& arena);

  [[nodiscard]] std::span<const Stage> stages() const { return stages_; }
  [[nodiscard]] std::span<const Head> heads() const { return heads_; }
  [[nodiscard]] std::span<const Pool> pools() const { return pools_; }
  // Samples of plan.samples, head by head.
  [[nodiscard]] std::span<const uint32_t> sample_order() const { return sample_order_; }
  [[nodiscard]] kernels::StepTablesOp::Params& step_tables() { return step_tables_; }
  [[nodiscard]] const int32_t* positions() const { return positions_; }
  // What decides the launches of the step, besides the values in the arena.
  [[nodiscard]] std::span<const uint32_t> key() const { return key_; }
  // Tiles of logits; each is sampled before the next is made.
  [[nodiscard]] uint32_t tiles() const { return heads_.empty() ? 0 : heads_.back().tile + 1; }

 private:
  // Facts of a stage of a graph.
  struct StageInfo {
    const LiveChains::Graph* graph;
    const blockzoo::Stage* stage;
    std::vector<size_t> stateful;  // blocks
    std::vector<uint32_t> tables;  // of each of those, after the first one's
    std::vector<kernels::AttentionShape> shapes;
    std::vector<int32_t> plan_of_block;     // [blocks] index into shapes
    std::vector<uint32_t> tables_of_block;  // [blocks]
  };
  // A sequence's rows in the stage being gathered.
  struct RowRun {
    const PlannedRows* planned;
    uint32_t first;        // row of the stage
    uint32_t first_block;  // of the segment, in the row's chain
    const PageId* table;   // its table 0
  };

  Status GatherStep(StepPlan& plan, uint32_t rows, kernels::StepArena& arena);
  [[nodiscard]] bool GatherRows(const StageInfo& info, const StepPlan& plan, uint32_t rows,
                                kernels::StepArena& arena, Stage& stage);
  void GatherState(const StageInfo& info, uint32_t rows, kernels::ExecContext& context,
                   kernels::StepArena& arena, Stage& stage);
  void GatherRun(const StageInfo& info, const RowRun& run, uint32_t stride, PageId* append_page,
                 uint8_t* append_slot, kernels::AttentionRow* attention) const;
  void GatherHeads(const Stage& stage, const Logits& logits, StepPlan& plan,
                   kernels::StepArena& arena);
  void GatherPools(const Stage& stage, const StepPlan& plan, kernels::StepArena& arena);
  void AddHead(Head head, const Logits& logits, StepPlan& plan);
  void FinishKey(const StepPlan& plan, uint32_t rows);

  TableMirror tables_;
  uint64_t arena_bytes_ = 0;
  uint32_t max_rows_ = 0;
  uint32_t max_samples_ = 0;
  uint64_t logits_used_ = 0;  // floats of the tile being filled
  std::vector<StageInfo> infos_;
  std::vector<Stage> stages_;
  std::vector<Member> members_;
  std::vector<RowRun> runs_;
  std::vector<const PageId*> table_of_;  // [sequences of the plan]
  std::vector<kernels::AttentionRow> attention_rows_;
  std::vector<kernels::AttentionPlan> plans_;
  std::vector<kernels::TableUpdate> updates_;
  std::vector<Head> heads_;
  std::vector<Pool> pools_;
  std::vector<kernels::PoolRowsTask> pool_tasks_;
  std::vector<uint32_t> sample_order_;
  std::vector<uint32_t> sample_row_;  // of each, in its head
  std::vector<uint32_t> key_;
  kernels::StepTablesOp::Params step_tables_;
  const int32_t* positions_ = nullptr;
};

}  // namespace tessera::scheduler
