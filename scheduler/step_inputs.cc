#include "scheduler/step_inputs.h"

#include <algorithm>
#include <cstring>

#include "config/foundation/check.h"

namespace tessera::scheduler {
namespace {

using kernels::Mirrored;
using kernels::StepArena;

// More page table entries than this in one step are written on their own.
constexpr size_t kMaxUpdates = 1 << 16;

template <typename T>
uint64_t Bytes(uint64_t count) {
  return StepArena::BytesFor<T>(count);
}

// Floats of a row of logits.
uint64_t StrideOf(const blockzoo::Chain& chain) {
  return static_cast<uint64_t>(kernels::LogitsStride(static_cast<int64_t>(chain.vocab())));
}

}  // namespace

void StepInputs::Learn(const LiveChains& chains) {
  infos_.clear();
  size_t members = 0;
  size_t plans = 0;
  for (const LiveChains::Graph& graph : chains.graphs()) {
    for (const blockzoo::Stage& stage : graph.graph.stages()) {
      StageInfo info{.graph = &graph,
                     .stage = &stage,
                     .stateful = {},
                     .tables = {},
                     .shapes = {},
                     .plan_of_block = {},
                     .tables_of_block = {}};
      // Members of a launch have equal blocks: the tables of their chains lie equally far apart.
      const blockzoo::Segment& segment = graph.graph.segments()[stage.segments.front()];
      const blockzoo::Segment::Use& use = segment.uses.front();
      const blockzoo::Chain& chain = *graph.chains[use.chain]->info.chain;
      for (size_t block = 0; block < segment.blocks.size(); ++block) {
        const blockzoo::BoundBlock& bound = *segment.blocks[block];
        info.plan_of_block.push_back(-1);
        info.tables_of_block.push_back(0);
        if (bound.state().empty()) continue;
        const uint32_t table = chain.first_table(use.first_block + block);
        if (info.stateful.empty()) info.tables.push_back(0);
        if (!info.stateful.empty()) {
          info.tables.push_back(table - chain.first_table(use.first_block + info.stateful.front()));
        }
        info.stateful.push_back(block);
        info.tables_of_block.back() = info.tables.back();
        TESSERA_CHECK(bound.attention_shape().has_value());
        const auto shape =
            std::find(info.shapes.begin(), info.shapes.end(), *bound.attention_shape());
        info.plan_of_block.back() = static_cast<int32_t>(shape - info.shapes.begin());
        if (shape == info.shapes.end()) info.shapes.push_back(*bound.attention_shape());
      }
      members += stage.segments.size();
      plans += info.shapes.size();
      infos_.push_back(std::move(info));
    }
  }
  stages_.reserve(infos_.size());
  members_.reserve(members);
  plans_.reserve(plans);
  key_.reserve(8 + 4 * members + 4 * infos_.size());
}

Status StepInputs::Prepare(const LiveChains& chains, const kernels::ExecContext& context,
                           uint32_t max_rows, uint32_t max_sequences) {
  Learn(chains);
  max_rows_ = max_rows;
  max_samples_ = max_rows + max_sequences;
  uint64_t bytes = Bytes<TokenId>(max_rows) + 2 * Bytes<int32_t>(max_rows) +
                   Bytes<kernels::TableUpdate>(kMaxUpdates);
  for (const StageInfo& info : infos_) {
    bytes += 2 * Bytes<int32_t>(max_rows) + Bytes<uint8_t>(max_rows) +
             Bytes<PageId>(info.stateful.size() * max_rows) + Bytes<int32_t>(max_samples_);
    for (const kernels::AttentionShape& shape : info.shapes) {
      bytes += context.AttentionPlanBytes(shape, max_rows);
    }
  }
  arena_bytes_ = bytes;
  runs_.reserve(max_sequences);
  table_of_.reserve(max_sequences);
  attention_rows_.reserve(size_t{max_sequences} * infos_.size());
  updates_.reserve(tables_.copies() ? kMaxUpdates : 0);
  heads_.reserve(size_t{max_samples_} / 16 + 2 * infos_.size() + 16);
  pools_.reserve(infos_.size() + chains.chains().size());
  pool_tasks_.reserve(max_sequences);
  sample_order_.reserve(max_samples_);
  sample_row_.reserve(max_samples_);
  uint64_t entries = 0;
  for (const std::unique_ptr<LiveChain>& live : chains.chains()) {
    const blockzoo::Chain& chain = *live->info.chain;
    const uint64_t pages = (chain.max_context() + kernels::kPageTokens - 1) / kernels::kPageTokens;
    entries = std::max<uint64_t>(entries, chain.cache_layout()->tables.size() * pages);
  }
  return tables_.Prepare(2 * max_sequences, entries);
}

Status StepInputs::Gather(StepPlan& plan, uint32_t rows, const Logits& logits,
                          kernels::ExecContext& context, StepArena& arena) {
  stages_.clear();
  members_.clear();
  plans_.clear();
  attention_rows_.clear();
  heads_.clear();
  pools_.clear();
  pool_tasks_.clear();
  sample_order_.clear();
  sample_row_.clear();
  logits_used_ = 0;
  key_.clear();
  TESSERA_RETURN_IF_ERROR(GatherStep(plan, rows, arena));
  for (const StageInfo& info : infos_) {
    Stage stage;
    if (!GatherRows(info, plan, rows, arena, stage)) continue;
    if (!info.stateful.empty()) GatherState(info, rows, context, arena, stage);
    const blockzoo::Segment& segment = *stage.members.front().segment;
    stage.head_begin = heads_.size();
    stage.pool_begin = pools_.size();
    if (segment.blocks.back()->is_head()) {
      GatherHeads(stage, logits, plan, arena);
      if (!plan.pools.empty()) GatherPools(stage, plan, arena);
    }
    stage.head_end = heads_.size();
    stage.pool_end = pools_.size();
    stages_.push_back(stage);
  }
  // Last: their number changes from step to step, and nothing else may move.
  const Mirrored<kernels::TableUpdate> updates = arena.Take<kernels::TableUpdate>(updates_.size());
  std::copy(updates_.begin(), updates_.end(), updates.host);
  step_tables_.updates = updates.device;
  FinishKey(plan, rows);
  return absl::OkStatus();
}

// Tokens, positions and page tables of the whole step.
Status StepInputs::GatherStep(StepPlan& plan, uint32_t rows, StepArena& arena) {
  const Mirrored<TokenId> tokens = arena.Take<TokenId>(rows);
  const Mirrored<int32_t> slots = arena.Take<int32_t>(rows);
  const Mirrored<int32_t> positions = arena.Take<int32_t>(rows);
  const size_t planned = plan.rows();
  std::copy(plan.tokens.begin(), plan.tokens.end(), tokens.host);
  std::copy(plan.token_slots.begin(), plan.token_slots.end(), slots.host);
  std::copy(plan.positions.begin(), plan.positions.end(), positions.host);
  std::fill(tokens.host + planned, tokens.host + rows, TokenId());
  std::fill(slots.host + planned, slots.host + rows, -1);
  std::fill(positions.host + planned, positions.host + rows, 0);
  positions_ = positions.device;
  table_of_.clear();
  updates_.clear();
  for (const PlannedRows& planned_rows : plan.sequences) {
    Sequence& sequence = *planned_rows.sequence;
    TESSERA_ASSIGN_OR_RETURN(const PageId* table,
                             tables_.Follow(sequence.cache, sequence.slot, kMaxUpdates, updates_));
    table_of_.push_back(table);
  }
  step_tables_ = {.tokens = tokens.device,
                  .slots = slots.device,
                  .resolved = tokens.device,
                  .rows = static_cast<int32_t>(rows),
                  .update_count = static_cast<int32_t>(updates_.size()),
                  .tables = tables_.base()};
  return absl::OkStatus();
}

// Compact rows of the stage: segment by segment, chain by chain, in plan order. False when none
// runs.
bool StepInputs::GatherRows(const StageInfo& info, const StepPlan& plan, uint32_t rows,
                            StepArena& arena, Stage& stage) {
  runs_.clear();
  const size_t member_begin = members_.size();
  uint32_t compact = 0;
  Mirrored<int32_t> step_rows;
  bool in_order = true;
  for (uint32_t s : info.stage->segments) {
    const blockzoo::Segment& segment = info.graph->graph.segments()[s];
    const auto run_begin = static_cast<uint32_t>(runs_.size());
    const uint32_t row_begin = compact;
    // Planned rows and uses are both in slot order: one merge.
    auto use = segment.uses.begin();
    for (size_t i = 0; i < plan.sequences.size(); ++i) {
      const PlannedRows& planned = plan.sequences[i];
      if (planned.graph() != info.graph->index) continue;
      while (use != segment.uses.end() && use->chain < planned.slot()) ++use;
      if (use == segment.uses.end()) break;
      if (use->chain != planned.slot()) continue;
      if (step_rows.host == nullptr) step_rows = arena.Take<int32_t>(rows);
      runs_.push_back({.planned = &planned,
                       .first = compact,
                       .first_block = use->first_block,
                       .table = table_of_[i]});
      for (uint32_t r = 0; r < planned.rows; ++r) {
        in_order = in_order && planned.first_row + r == compact;
        step_rows.host[compact++] = static_cast<int32_t>(planned.first_row + r);
      }
    }
    if (compact == row_begin) continue;
    members_.push_back({.segment = &segment,
                        .index = s,
                        .run_begin = run_begin,
                        .run_end = static_cast<uint32_t>(runs_.size()),
                        .row_begin = static_cast<int32_t>(row_begin),
                        .row_count = static_cast<int32_t>(compact - row_begin)});
  }
  if (compact == 0) return false;
  // Rows that only fill up a recorded step.
  if (plan.rows() < rows) {
    for (; compact < rows; ++compact) step_rows.host[compact] = static_cast<int32_t>(compact);
    members_.back().row_count = static_cast<int32_t>(compact) - members_.back().row_begin;
  }
  stage.chain = runs_.front().planned->sequence->chain->info.chain.get();
  stage.members = std::span(members_).subspan(member_begin);
  stage.rows = static_cast<int32_t>(compact);
  // Kernels write rows in order at once, where others pass through scratch.
  stage.step_rows = in_order ? nullptr : step_rows.device;
  return true;
}

// Where each row's key and value go and what it reads, in its own chain's table of each block of
// the stage that has state. Sequence by sequence: its tables lie side by side.
void StepInputs::GatherState(const StageInfo& info, uint32_t rows, kernels::ExecContext& context,
                             StepArena& arena, Stage& stage) {
  const Mirrored<PageId> append_page = arena.Take<PageId>(info.stateful.size() * rows);
  const Mirrored<uint8_t> append_slot = arena.Take<uint8_t>(rows);
  const size_t attention_begin = attention_rows_.size();
  attention_rows_.resize(attention_begin + runs_.size());
  for (size_t r = 0; r < runs_.size(); ++r) {
    // What the tables are found by, then the tables.
    constexpr size_t kAhead = 4;
    if (r + 2 * kAhead < runs_.size()) runs_[r + 2 * kAhead].planned->sequence->Prefetch();
    if (r + kAhead < runs_.size()) {
      runs_[r + kAhead].planned->sequence->cache.Prefetch();
      __builtin_prefetch(&attention_rows_[attention_begin + r + kAhead], 1);
    }
    GatherRun(info, runs_[r], rows, append_page.host, append_slot.host,
              &attention_rows_[attention_begin + r]);
  }
  const RowRun& last = runs_.back();
  for (uint32_t i = last.first + last.planned->rows; i < static_cast<uint32_t>(stage.rows); ++i) {
    append_slot.host[i] = 0;
    for (size_t s = 0; s < info.stateful.size(); ++s) append_page.host[s * rows + i] = PageId();
  }
  stage.stride = rows;
  stage.append_page = append_page.device;
  stage.append_slot = append_slot.device;
  stage.tables = info.tables_of_block;
  stage.plan_of_block = info.plan_of_block;
  const size_t plan_begin = plans_.size();
  for (const kernels::AttentionShape& shape : info.shapes) {
    kernels::AttentionPlan& plan = plans_.emplace_back();
    plan.rows = std::span(attention_rows_).subspan(attention_begin);
    plan.capacity = rows;
    context.PrepareAttention(shape, plan, arena);
  }
  stage.plans = std::span(plans_).subspan(plan_begin);
}

void StepInputs::GatherRun(const StageInfo& info, const RowRun& run, uint32_t stride,
                           PageId* append_page, uint8_t* append_slot,
                           kernels::AttentionRow* attention) const {
  const PlannedRows& planned = *run.planned;
  const kvcache::SequenceCache& cache = planned.sequence->cache;
  const blockzoo::Chain& chain = *planned.sequence->chain->info.chain;
  const size_t base = chain.first_table(run.first_block + info.stateful.front());
  *attention = {.q_begin = static_cast<int32_t>(run.first),
                .q_rows = static_cast<int32_t>(planned.rows),
                .position = static_cast<int32_t>(planned.position),
                .table_stride = cache.table_stride(),
                .page_table = run.table + base * cache.table_stride()};
  for (uint32_t i = 0; i < planned.rows; ++i) {
    append_slot[run.first + i] =
        static_cast<uint8_t>((planned.position + i) % kernels::kPageTokens);
  }
  for (size_t s = 0; s < info.stateful.size(); ++s) {
    const size_t table = base + info.tables[s];
    const PageId* pages = cache.table(table);
    const uint32_t shared = cache.shared_tokens(table);
    PageId* append = append_page + s * stride + run.first;
    for (uint32_t i = 0; i < planned.rows; ++i) {
      const uint32_t position = planned.position + i;
      append[i] = position < shared ? PageId() : pages[position / kernels::kPageTokens];
    }
  }
}

// The head runs over the rows whose logits are wanted, as many at a time as the logits hold. Chains
// that end in one block have one head: its weights are read once for all of them.
void StepInputs::GatherHeads(const Stage& stage, const Logits& logits, StepPlan& plan,
                             StepArena& arena) {
  const Mirrored<int32_t> head_rows =
      arena.Take<int32_t>(std::max<size_t>(plan.samples.size(), static_cast<size_t>(stage.rows)));
  int32_t filled = 0;
  Head head{};
  const auto flush = [&] {
    if (head.rows > 0) {
      head.sample_end = sample_order_.size();
      AddHead(head, logits, plan);
    }
    head.step_rows = head_rows.device + filled;
    head.rows = 0;
    head.sample_begin = sample_order_.size();
  };
  for (const Member& member : stage.members) {
    const blockzoo::BoundBlock* block = member.segment->blocks.back().get();
    if (block != head.block) {
      flush();
      head.block = block;
      head.chain = runs_[member.run_begin].planned->sequence->chain->info.chain.get();
    }
    const auto most = static_cast<int32_t>(logits.floats / StrideOf(*head.chain));
    TESSERA_CHECK(most > 0);
    size_t sample = 0;
    for (uint32_t r = member.run_begin; r < member.run_end; ++r) {
      const PlannedRows& planned = *runs_[r].planned;
      while (sample < plan.samples.size() && plan.samples[sample].row < planned.first_row) ++sample;
      for (; sample < plan.samples.size() &&
             plan.samples[sample].row < planned.first_row + planned.rows;
           ++sample) {
        const auto row = static_cast<int32_t>(plan.samples[sample].row);
        if (head.rows == 0 || head_rows.host[filled - 1] != row) {
          if (head.rows == most) flush();
          head_rows.host[filled++] = row;
          ++head.rows;
        }
        sample_order_.push_back(static_cast<uint32_t>(sample));
        sample_row_.push_back(static_cast<uint32_t>(head.rows - 1));
      }
    }
    // Rows that only fill up a recorded step.
    for (;
         plan.rows() < static_cast<uint32_t>(stage.rows) && head.rows < std::min(most, stage.rows);
         ++head.rows) {
      head_rows.host[filled++] = 0;
    }
  }
  flush();
}

// Rows that are pooled, head by head: those of a sequence are one task.
void StepInputs::GatherPools(const Stage& stage, const StepPlan& plan, StepArena& arena) {
  const Mirrored<int32_t> rows = arena.Take<int32_t>(static_cast<size_t>(stage.rows));
  int32_t filled = 0;
  for (const Member& member : stage.members) {
    const int32_t begin = filled;
    const size_t task_begin = pool_tasks_.size();
    auto pool = plan.pools.begin();
    for (uint32_t r = member.run_begin; r < member.run_end; ++r) {
      const PlannedRows& planned = *runs_[r].planned;
      while (pool != plan.pools.end() && pool->row < planned.first_row) ++pool;
      if (pool == plan.pools.end() || pool->sequence != planned.sequence) continue;
      pool_tasks_.push_back({.sum = pool->sequence->pooled.data(),
                             .row_begin = filled - begin,
                             .row_count = static_cast<int32_t>(pool->rows)});
      for (uint32_t i = 0; i < pool->rows; ++i) {
        rows.host[filled++] = static_cast<int32_t>(pool->row + i);
      }
    }
    if (filled == begin) continue;
    pools_.push_back({.block = member.segment->blocks.back().get(),
                      .step_rows = rows.device + begin,
                      .rows = filled - begin,
                      .tasks = std::span(pool_tasks_).subspan(task_begin)});
  }
}

void StepInputs::AddHead(Head head, const Logits& logits, StepPlan& plan) {
  const uint64_t stride = StrideOf(*head.chain);
  const uint64_t floats = static_cast<uint64_t>(head.rows) * stride;
  head.tile = heads_.empty() ? 0 : heads_.back().tile;
  if (logits_used_ + floats > logits.floats) {
    ++head.tile;
    logits_used_ = 0;
  }
  head.logits = logits.data + logits_used_;
  logits_used_ += floats;
  for (size_t i = head.sample_begin; i < head.sample_end; ++i) {
    constexpr size_t kAhead = 8;
    __builtin_prefetch(&(plan.sample_rows.data() + sample_order_[i] + kAhead)->logits, 1);
    plan.sample_rows[sample_order_[i]].logits = head.logits + sample_row_[i] * stride;
  }
  heads_.push_back(head);
}

void StepInputs::FinishKey(const StepPlan& plan, uint32_t rows) {
  key_.push_back(rows);
  key_.push_back(static_cast<uint32_t>(plan.numerics));
  for (const Stage& stage : stages_) {
    key_.push_back(static_cast<uint32_t>(stage.members.size()) * 2 +
                   (stage.step_rows == nullptr ? 1 : 0));
    for (const Member& member : stage.members) {
      key_.push_back(member.index);
      key_.push_back(static_cast<uint32_t>(member.row_begin));
      key_.push_back(static_cast<uint32_t>(member.row_count));
    }
  }
  for (const Head& head : heads_) key_.push_back(static_cast<uint32_t>(head.rows));
}

}  // namespace tessera::scheduler
