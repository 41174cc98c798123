#include "scheduler/executor.h"

#include <algorithm>
#include <chrono>
#include <new>

#include "absl/strings/str_cat.h"
#include "blockzoo/rotary.h"
#include "config/foundation/check.h"

namespace tessera::scheduler {
namespace {

// Logits are made in tiles of rows, so that a scored prompt needs no [prompt, vocab] array.
constexpr uint32_t kLogitsTileRows = 64;

uint64_t Nanoseconds() {
  return static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
}

// What the live chains need of the workspace.
struct Needs {
  uint64_t width = 0;
  uint64_t vocab = 0;
  uint64_t workspace_per_row = 0;
  uint64_t max_width = 0;
  uint64_t head_dim = 0;
  uint64_t stateful_blocks = 0;  // of one chain
};

Needs NeedsOf(const LiveChains& chains) {
  Needs needs;
  for (const std::unique_ptr<LiveChain>& live : chains.chains()) {
    const blockzoo::Chain& chain = *live->info.chain;
    needs.width = std::max(needs.width, chain.width());
    needs.vocab = std::max(needs.vocab, chain.vocab());
    uint64_t stateful = 0;
    for (const auto& block : chain.blocks()) {
      if (!block->state().empty()) ++stateful;
      needs.workspace_per_row = std::max(needs.workspace_per_row, block->workspace_bytes_per_row());
      needs.max_width = std::max(needs.max_width, block->max_width());
      for (const kvcache::StateSpec& state : block->state()) {
        needs.head_dim = std::max<uint64_t>(needs.head_dim, state.format.head_dim);
      }
    }
    needs.stateful_blocks = std::max(needs.stateful_blocks, stateful);
  }
  return needs;
}

}  // namespace

Executor::Executor(const Limits& limits, const kernels::Backend& backend, kernels::ThreadPool& pool,
                   kvcache::KvCache& cache)
    : limits_(limits), backend_(backend), pool_(pool), cache_(cache) {}

Executor::~Executor() = default;

Status Executor::Prepare(const LiveChains& chains) {
  if (chains.chains().empty()) return absl::OkStatus();
  const Needs needs = NeedsOf(chains);
  TESSERA_ASSIGN_OR_RETURN(sample_, backend_.catalog().Find<kernels::SampleOp>(
                                        {.vocab = static_cast<int64_t>(needs.vocab)}));
  logits_rows_ = std::min(kLogitsTileRows, limits_.max_rows);
  context_ = std::make_unique<kernels::ExecContext>(
      pool_, backend_.ScratchBytes({.max_width = needs.max_width,
                                    .max_head_dim = needs.head_dim,
                                    .max_vocab = needs.vocab,
                                    .max_rows = limits_.max_rows}));
  workspace_.resize(needs.workspace_per_row * limits_.max_rows + 64);
  const auto address = reinterpret_cast<uintptr_t>(workspace_.data());
  scratch_.workspace = workspace_.data() + (64 - address % 64) % 64;
  scratch_.Reserve(chains.chains().size());
  residual_.resize(needs.width * limits_.max_rows);
  logits_.resize(needs.vocab * logits_rows_);
  ReserveAngles(chains);
  runs_.reserve(limits_.max_sequences);
  member_runs_.reserve(chains.chains().size());
  members_.reserve(chains.chains().size());
  step_rows_.resize(limits_.max_rows);
  tokens_.resize(limits_.max_rows);
  append_page_.resize(needs.stateful_blocks * limits_.max_rows);
  append_slot_.resize(limits_.max_rows);
  attention_plan_.resize(limits_.max_sequences);
  tables_.reserve(needs.stateful_blocks);
  stateful_.reserve(needs.stateful_blocks);
  head_samples_.reserve(size_t{limits_.max_rows} + limits_.max_sequences);
  seal_pages_.reserve(4096);
  return absl::OkStatus();
}

void Executor::Run(const LiveChains& chains, StepPlan& plan) {
  kernel_ns_ = gather_ns_ = gather_cpu_ns_ = 0;
  const uint64_t start = Nanoseconds();
  FillRotary(plan);
  kernel_ns_ += Nanoseconds() - start;
  for (const LiveChains::Graph& graph : chains.graphs()) {
    for (const blockzoo::Stage& stage : graph.graph.stages()) RunStage(graph, stage, plan);
  }
  setup_ns_ = Nanoseconds() - start - kernel_ns_ - gather_ns_ + gather_cpu_ns_;
}

void Executor::ReserveAngles(const LiveChains& chains) {
  angles_.clear();
  size_t indices = 0;
  for (const std::unique_ptr<LiveChain>& live : chains.chains()) {
    const std::vector<std::vector<float>>& rotary = live->info.chain->rotary_frequencies();
    indices = std::max(indices, rotary.size());
    for (size_t index = 0; index < rotary.size(); ++index) {
      const size_t pairs = rotary[index].size();
      const bool known = std::any_of(angles_.begin(), angles_.end(), [&](const Angles& angles) {
        return angles.index == index && angles.pairs == pairs;
      });
      if (known) continue;
      angles_.push_back({.index = index,
                         .pairs = pairs,
                         .cosine = std::vector<float>(pairs * limits_.max_rows),
                         .sine = std::vector<float>(pairs * limits_.max_rows)});
    }
  }
  rotary_.reserve(indices);
}

Executor::Angles& Executor::AnglesOf(size_t index, size_t pairs) {
  const auto at = std::find_if(angles_.begin(), angles_.end(), [&](const Angles& angles) {
    return angles.index == index && angles.pairs == pairs;
  });
  TESSERA_CHECK(at != angles_.end());
  return *at;
}

// Rows [begin, end) of a sequence's planned rows.
void Executor::FillAngles(const PlannedRows& planned, uint32_t begin, uint32_t end) {
  const blockzoo::Chain& chain = *planned.sequence->chain->info.chain;
  for (size_t r = 0; r < chain.rotary_frequencies().size(); ++r) {
    const std::vector<float>& frequencies = chain.rotary_frequencies()[r];
    Angles& angles = AnglesOf(r, frequencies.size());
    for (uint32_t i = begin; i < end; ++i) {
      const size_t at = (planned.first_row + i) * frequencies.size();
      blockzoo::RotaryAngles(frequencies, planned.position + i, &angles.cosine[at],
                             &angles.sine[at]);
    }
  }
}

void Executor::FillRotary(const StepPlan& plan) {
  constexpr uint32_t kInlineRows = 32;
  if (plan.rows() <= kInlineRows) {
    for (const PlannedRows& planned : plan.sequences) FillAngles(planned, 0, planned.rows);
    return;
  }
  pool_.Run([&](int thread) {
    const kernels::Share share = kernels::ShareOf(plan.rows(), thread, pool_.threads());
    for (const PlannedRows& planned : plan.sequences) {
      const int64_t first = planned.first_row;
      const int64_t begin = std::max(share.begin, first);
      const int64_t end = std::min(share.end, first + planned.rows);
      if (begin < end) {
        FillAngles(planned, static_cast<uint32_t>(begin - first),
                   static_cast<uint32_t>(end - first));
      }
    }
  });
}

void Executor::RunStage(const LiveChains::Graph& graph, const blockzoo::Stage& stage,
                        StepPlan& plan) {
  const uint64_t start = Nanoseconds();
  const uint64_t start_cpu = ThreadNanoseconds();
  const bool runs = GatherRows(graph, stage, plan);
  if (runs) GatherState(graph);
  gather_cpu_ns_ += ThreadNanoseconds() - start_cpu;
  gather_ns_ += Nanoseconds() - start;
  if (!runs) return;
  // Rows of one launch have equal head sizes: their blocks have one signature.
  const blockzoo::Chain& chain = *runs_.front().planned->sequence->chain->info.chain;
  rotary_.clear();
  for (size_t r = 0; r < chain.rotary_frequencies().size(); ++r) {
    const Angles& angles = AnglesOf(r, chain.rotary_frequencies()[r].size());
    rotary_.push_back({.cosine = angles.cosine.data(), .sine = angles.sine.data()});
  }
  const auto& blocks = graph.graph.segments()[stage.segments.front()].blocks;
  size_t stateful = 0;
  for (size_t block = 0; block < blocks.size(); ++block) {
    RunBlock(graph, {.block = block, .stateful = stateful}, plan);
    if (!blocks[block]->state().empty()) ++stateful;
  }
}

// Compact rows of the stage: segment by segment, chain by chain, in plan order. False when none
// runs.
bool Executor::GatherRows(const LiveChains::Graph& graph, const blockzoo::Stage& stage,
                          const StepPlan& plan) {
  runs_.clear();
  member_runs_.clear();
  uint32_t compact = 0;
  for (uint32_t s : stage.segments) {
    const blockzoo::Segment& segment = graph.graph.segments()[s];
    const uint32_t run_begin = static_cast<uint32_t>(runs_.size());
    const uint32_t row_begin = compact;
    // Planned rows and uses are both in slot order: one merge.
    auto use = segment.uses.begin();
    for (const PlannedRows& planned : plan.sequences) {
      if (planned.graph() != graph.index) continue;
      while (use != segment.uses.end() && use->chain < planned.slot()) ++use;
      if (use == segment.uses.end()) break;
      if (use->chain != planned.slot()) continue;
      runs_.push_back({.planned = &planned, .first = compact, .first_block = use->first_block});
      for (uint32_t i = 0; i < planned.rows; ++i) {
        step_rows_[compact] = static_cast<int32_t>(planned.first_row + i);
        tokens_[compact] = plan.tokens[planned.first_row + i];
        ++compact;
      }
    }
    if (compact == row_begin) continue;
    member_runs_.push_back({.segment = s,
                            .run_begin = run_begin,
                            .run_end = static_cast<uint32_t>(runs_.size()),
                            .row_begin = static_cast<int32_t>(row_begin),
                            .row_count = static_cast<int32_t>(compact - row_begin)});
  }
  return compact > 0;
}

// Where each row's key and value go and what it reads, in its own chain's table of each block of
// the stage that has state. Sequence by sequence: its tables lie side by side.
void Executor::GatherState(const LiveChains::Graph& graph) {
  TESSERA_CHECK(runs_.size() <= limits_.max_sequences);
  for (const MemberRuns& member : member_runs_) {
    const blockzoo::Segment& segment = graph.graph.segments()[member.segment];
    stateful_.clear();
    for (size_t block = 0; block < segment.blocks.size(); ++block) {
      if (!segment.blocks[block]->state().empty()) stateful_.push_back(block);
    }
    if (stateful_.empty()) continue;
    // Members of a launch have equal blocks: the tables of their chains lie equally far apart.
    const RowRun& first = runs_[member.run_begin];
    const blockzoo::Chain& chain = *first.planned->sequence->chain->info.chain;
    const size_t base = chain.first_table(first.first_block + stateful_.front());
    tables_.clear();
    for (size_t block : stateful_) {
      tables_.push_back(static_cast<uint32_t>(chain.first_table(first.first_block + block) - base));
    }
    for (uint32_t r = member.run_begin; r < member.run_end; ++r) {
      // What the tables are found by, then the tables.
      constexpr uint32_t kAhead = 4;
      if (r + 2 * kAhead < member.run_end) runs_[r + 2 * kAhead].planned->sequence->Prefetch();
      if (r + kAhead < member.run_end) {
        runs_[r + kAhead].planned->sequence->cache.Prefetch();
        __builtin_prefetch(&attention_plan_[r + kAhead], 1);
      }
      GatherState(r);
    }
  }
}

void Executor::GatherState(uint32_t r) {
  const RowRun& run = runs_[r];
  const PlannedRows& planned = *run.planned;
  const kvcache::SequenceCache& cache = planned.sequence->cache;
  const blockzoo::Chain& chain = *planned.sequence->chain->info.chain;
  const size_t base = chain.first_table(run.first_block + stateful_.front());
  attention_plan_[r] = {.q_begin = static_cast<int32_t>(run.first),
                        .q_rows = static_cast<int32_t>(planned.rows),
                        .position = static_cast<int32_t>(planned.position),
                        .table_stride = cache.table_stride(),
                        .page_table = cache.table(base)};
  for (uint32_t i = 0; i < planned.rows; ++i) {
    append_slot_[run.first + i] =
        static_cast<uint8_t>((planned.position + i) % kernels::kPageTokens);
  }
  for (size_t s = 0; s < stateful_.size(); ++s) {
    const size_t table = base + tables_[s];
    const PageId* pages = cache.table(table);
    const uint32_t shared = cache.shared_tokens(table);
    PageId* append = &append_page_[s * limits_.max_rows + run.first];
    for (uint32_t i = 0; i < planned.rows; ++i) {
      const uint32_t position = planned.position + i;
      append[i] = position < shared ? PageId() : pages[position / kernels::kPageTokens];
    }
  }
}

void Executor::RunBlock(const LiveChains::Graph& graph, BlockAt at, StepPlan& plan) {
  members_.clear();
  int32_t rows = 0;
  for (const MemberRuns& runs : member_runs_) {
    const blockzoo::BoundBlock* bound = graph.graph.segments()[runs.segment].blocks[at.block].get();
    members_.push_back({.block = bound, .row_begin = runs.row_begin, .row_count = runs.row_count});
    rows = runs.row_begin + runs.row_count;
  }
  const bool stateful = !members_.front().block->state().empty();
  blockzoo::Launch launch{.context = context_.get(),
                          .scratch = &scratch_,
                          .members = members_,
                          .rows = rows,
                          .step_rows = step_rows_.data(),
                          .residual = residual_.data(),
                          .tokens = tokens_.data(),
                          .rotary = rotary_,
                          .arena = cache_.arena(),
                          .append_slot = append_slot_.data(),
                          .attention_plan = {},
                          .attention_table = 0,
                          .logits = nullptr};
  if (stateful) {
    launch.append_page = append_page_.data() + at.stateful * limits_.max_rows;
    launch.attention_plan = std::span(attention_plan_).first(runs_.size());
    launch.attention_table = tables_[at.stateful];
  }
  if (members_.front().block->is_head()) {
    RunHead(launch, at.block, graph, plan);
    return;
  }
  const uint64_t start = Nanoseconds();
  members_.front().block->Run(launch);
  kernel_ns_ += Nanoseconds() - start;
}

// The head runs over the rows whose logits are wanted, tile by tile, each tile sampled before the
// next.
void Executor::RunHead(blockzoo::Launch& launch, size_t block, const LiveChains::Graph& graph,
                       StepPlan& plan) {
  for (const MemberRuns& runs : member_runs_) {
    const blockzoo::Segment& segment = graph.graph.segments()[runs.segment];
    const blockzoo::BoundBlock* bound = segment.blocks[block].get();
    const auto& first_chain = *runs_[runs.run_begin].planned->sequence->chain;
    const int32_t vocab = static_cast<int32_t>(first_chain.info.chain->vocab());
    size_t sample = 0;
    uint32_t r = runs.run_begin;
    while (r < runs.run_end) {
      int32_t tile = 0;
      const size_t begin_of_tile = head_samples_.size();
      for (; r < runs.run_end; ++r) {
        const PlannedRows& planned = *runs_[r].planned;
        while (sample < plan.samples.size() && plan.samples[sample].row < planned.first_row) {
          ++sample;
        }
        bool full = false;
        while (sample < plan.samples.size() &&
               plan.samples[sample].row < planned.first_row + planned.rows) {
          const int32_t row = static_cast<int32_t>(plan.samples[sample].row);
          if (tile == 0 || step_rows_[tile - 1] != row) {
            if (tile == static_cast<int32_t>(logits_rows_)) {
              full = true;
              break;
            }
            step_rows_[tile++] = row;
          }
          __builtin_prefetch(&(plan.sample_rows.data() + sample + 8)->logits, 1);
          plan.sample_rows[sample].logits = logits_.data() + int64_t{tile - 1} * vocab;
          head_samples_.push_back(static_cast<uint32_t>(sample++));
        }
        if (full) break;
      }
      if (tile == 0) break;
      const blockzoo::LaunchMember member{.block = bound, .row_begin = 0, .row_count = tile};
      launch.members = {&member, 1};
      launch.rows = tile;
      launch.logits = logits_.data();
      const uint64_t start = Nanoseconds();
      bound->Run(launch);
      Sample(plan, begin_of_tile, head_samples_.size(), vocab);
      kernel_ns_ += Nanoseconds() - start;
      head_samples_.clear();
    }
  }
}

// Samples head_samples_[first, last). They are consecutive runs of plan.samples.
void Executor::Sample(StepPlan& plan, size_t first, size_t last, int32_t vocab) {
  size_t at = first;
  while (at < last) {
    size_t end = at + 1;
    while (end < last && head_samples_[end] == head_samples_[end - 1] + 1) ++end;
    const uint32_t begin = head_samples_[at];
    const size_t count = end - at;
    sample_(*context_, {.rows = std::span(plan.sample_rows).subspan(begin, count),
                        .vocab = vocab,
                        .results = plan.results.data() + begin,
                        .top = plan.top.data() + size_t{begin} * plan.top_stride,
                        .top_stride = static_cast<int32_t>(plan.top_stride)});
    at = end;
  }
}

void Executor::Seal(const blockzoo::Chain& chain,
                    std::span<const kvcache::KvCache::SealedPage> pages) {
  const std::vector<kvcache::TableSpec>& tables = chain.cache_layout()->tables;
  size_t at = 0;
  while (at < pages.size()) {
    const kernels::KvFormat& format = tables[pages[at].table].state.format;
    seal_pages_.clear();
    for (; at < pages.size() && tables[pages[at].table].state.format == format; ++at) {
      seal_pages_.push_back(pages[at].page);
    }
    if (!format.key_statistics) continue;
    const StatusOr<kernels::Kernel<kernels::PageStatsOp>> kernel =
        backend_.catalog().Find<kernels::PageStatsOp>({.kv = format});
    TESSERA_CHECK(kernel.ok());
    (*kernel)(*context_, {.kv = format, .arena = cache_.arena(), .pages = seal_pages_});
  }
}

}  // namespace tessera::scheduler
