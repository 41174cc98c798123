#include "scheduler/executor.h"

#include <algorithm>
#include <chrono>

#include "config/foundation/check.h"
#include "config/foundation/clock.h"

namespace tessera::scheduler {
namespace {

uint64_t Nanoseconds() {
  return static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
}

}  // namespace

// What the live chains need of the workspace.
struct Executor::Needs {
  uint64_t width = 0;
  uint64_t vocab = 0;
  uint64_t workspace_per_row = 0;
  uint64_t max_width = 0;
  size_t linear_tasks = 0;
  uint64_t head_dim = 0;
  std::vector<kernels::AttentionShape> attention;
  std::vector<kernels::LinearGroup> products;
  size_t members = 0;

  explicit Needs(const LiveChains& chains) : members(chains.chains().size()) {
    for (const std::unique_ptr<LiveChain>& live : chains.chains()) {
      const blockzoo::Chain& chain = *live->info.chain;
      width = std::max(width, chain.width());
      vocab = std::max(vocab, chain.vocab());
      for (const auto& block : chain.blocks()) {
        workspace_per_row = std::max(workspace_per_row, block->workspace_bytes_per_row());
        max_width = std::max(max_width, block->max_width());
        linear_tasks = std::max(linear_tasks, block->linear_tasks());
        for (const kernels::LinearGroup& group : block->products()) {
          if (std::find(products.begin(), products.end(), group) == products.end()) {
            products.push_back(group);
          }
        }
        for (const kvcache::StateSpec& state : block->state()) {
          head_dim = std::max<uint64_t>(head_dim, state.format.head_dim);
        }
        if (block->attention_shape().has_value() &&
            std::find(attention.begin(), attention.end(), *block->attention_shape()) ==
                attention.end()) {
          attention.push_back(*block->attention_shape());
        }
      }
    }
  }
};

Executor::Executor(const Limits& limits, const kernels::Backend& backend, kernels::ThreadPool& pool,
                   kvcache::KvCache& cache)
    : limits_(limits), backend_(backend), pool_(pool), cache_(cache), inputs_(backend.memory()) {}

Executor::~Executor() = default;

Status Executor::Prepare(const LiveChains& chains) {
  if (chains.chains().empty()) return absl::OkStatus();
  const Needs needs(chains);
  // Its scratch goes before the new one comes.
  context_.reset();
  TESSERA_ASSIGN_OR_RETURN(context_,
                           backend_.MakeContext(pool_, {.max_width = needs.max_width,
                                                        .max_head_dim = needs.head_dim,
                                                        .max_vocab = needs.vocab,
                                                        .max_rows = limits_.max_rows,
                                                        .max_sequences = limits_.max_sequences,
                                                        .attention = needs.attention,
                                                        .products = needs.products,
                                                        .deterministic = limits_.deterministic}));
  context_->set_profile(profile_);
  TESSERA_RETURN_IF_ERROR(PrepareOps(chains, needs));
  TESSERA_RETURN_IF_ERROR(AllocateFor(needs));
  TESSERA_RETURN_IF_ERROR(
      inputs_.Prepare(chains, *context_, limits_.max_rows, limits_.max_sequences));
  TESSERA_ASSIGN_OR_RETURN(input_arenas_, context_->MakeArenas(inputs_.arena_bytes()));
  const uint64_t samples = uint64_t{limits_.max_rows} + limits_.max_sequences;
  constexpr uint64_t kTopStride = kernels::SampleOp::kMaxTopLogprobs + 32;
  TESSERA_ASSIGN_OR_RETURN(
      output_arenas_,
      context_->MakeArenas(
          kernels::StepArena::BytesFor<kernels::SampleResult>(samples) +
          kernels::StepArena::BytesFor<kernels::TokenLogprob>(samples * kTopStride)));
  generation_ = chains.generation();
  members_.reserve(needs.members);
  scratch_.Reserve(needs.members, needs.linear_tasks);
  seal_pages_.reserve(4096);
  return absl::OkStatus();
}

Status Executor::PrepareOps(const LiveChains& chains, const Needs& needs) {
  const kernels::Catalog& catalog = backend_.catalog();
  TESSERA_ASSIGN_OR_RETURN(
      sample_, catalog.Find<kernels::SampleOp>({.vocab = static_cast<int64_t>(needs.vocab)}));
  TESSERA_ASSIGN_OR_RETURN(step_tables_, catalog.Find<kernels::StepTablesOp>({}));
  TESSERA_ASSIGN_OR_RETURN(copy_pages_, catalog.Find<kernels::CopyPagesOp>({}));
  return rotary_.Prepare(chains, backend_, limits_.max_rows);
}

Status Executor::AllocateFor(const Needs& needs) {
  kernels::Memory& memory = backend_.memory();
  logits_rows_ = std::min(backend_.logits_rows(), limits_.max_rows);
  workspace_bytes_ = 0;
  const auto allocate = [&](std::shared_ptr<kernels::Buffer>& buffer, uint64_t bytes,
                            absl::string_view purpose) -> Status {
    workspace_bytes_ += bytes;
    if (buffer != nullptr && buffer->size() >= bytes) return absl::OkStatus();
    buffer.reset();
    TESSERA_ASSIGN_OR_RETURN(buffer, memory.Allocate(bytes, purpose));
    return absl::OkStatus();
  };
  TESSERA_RETURN_IF_ERROR(
      allocate(workspace_, needs.workspace_per_row * limits_.max_rows + 64, "workspace"));
  scratch_.workspace = workspace_->data();
  TESSERA_RETURN_IF_ERROR(
      allocate(residual_, needs.width * limits_.max_rows * sizeof(float), "residual stream"));
  TESSERA_RETURN_IF_ERROR(
      allocate(logits_, (needs.vocab + 4) * logits_rows_ * sizeof(float), "logits"));
  // A sequence gives its slot back before the next takes one; forks come on top.
  return allocate(drawn_, uint64_t{2} * limits_.max_sequences * sizeof(TokenId), "drawn tokens");
}

bool Executor::Records(const StepPlan& plan) const {
  return plan.prefill_rows == 0 && context_->RecordedRows(plan.rows()) <= logits_rows_;
}

Status Executor::Submit(const LiveChains& chains, StepPlan& plan, int32_t slots) {
  TESSERA_CHECK(slots <= static_cast<int32_t>(2 * limits_.max_sequences));
  kernel_ns_ = 0;
  const uint64_t start_cpu = ThreadNanoseconds();
  if (chains.generation() != generation_) {
    inputs_.Learn(chains);
    context_->DropRecorded();
    generation_ = chains.generation();
  }
  arena_ = (arena_ + 1) % input_arenas_.size();
  input_arenas_[arena_].Reset();
  context_->SetNumerics(plan.numerics);
  bool records = Records(plan);
  // Rows may be added to a step that is recorded where one chain has them all.
  const bool uniform = plan.sequences.front().chain_order == plan.sequences.back().chain_order;
  const uint32_t rows = records && uniform ? context_->RecordedRows(plan.rows()) : plan.rows();
  TESSERA_RETURN_IF_ERROR(inputs_.Gather(plan, rows,
                                         {.data = reinterpret_cast<float*>(logits_->data()),
                                          .floats = logits_->size() / sizeof(float)},
                                         *context_, input_arenas_[arena_]));
  TakeOutputs(plan);
  const uint64_t gathered = Nanoseconds();
  const uint64_t gather_cpu = ThreadNanoseconds() - start_cpu;
  context_->Publish(input_arenas_[arena_]);
  RunTables();
  rotary_.Run(*context_, plan, inputs_.positions(), rows);
  kernel_ns_ += Nanoseconds() - gathered;
  const auto forward = [&] {
    for (const StepInputs::Stage& stage : inputs_.stages()) {
      RunStage(stage);
      RunHeads(stage, plan);
      RunPools(stage);
    }
  };
  records = records && inputs_.tiles() <= 1;
  if (records) {
    context_->RunRecorded(inputs_.key(), forward);
  } else {
    forward();
  }
  if (inputs_.tiles() > 0) Sample(plan, inputs_.tiles() - 1);
  context_->Fetch(output_arenas_[arena_]);
  plan.mark = context_->Mark();
  setup_ns_ = Nanoseconds() - gathered - kernel_ns_ + gather_cpu;
  return absl::OkStatus();
}

// Where the samples of the plan go.
void Executor::TakeOutputs(StepPlan& plan) {
  kernels::StepArena& outputs = output_arenas_[arena_];
  outputs.Reset();
  const size_t samples = plan.samples.size();
  results_ = outputs.Take<kernels::SampleResult>(samples);
  plan.results = std::span(results_.host, samples);
  const bool wants_top = std::any_of(plan.sample_rows.begin(), plan.sample_rows.end(),
                                     [](const kernels::SampleRow& row) {
                                       return row.top_logprobs > 0 || !row.logprob_ids.empty();
                                     });
  top_ = {};
  if (wants_top) top_ = outputs.Take<kernels::TokenLogprob>(samples * plan.top_stride);
  plan.top = std::span(top_.host, wants_top ? samples * plan.top_stride : 0);
}

Status Executor::Finish(StepPlan& plan) {
  const Status done = context_->Wait(plan.mark);
  idle_ns_ = done.ok() ? context_->IdleNanoseconds(plan.mark) : 0;
  return done;
}

void Executor::RunTables() {
  kernels::StepTablesOp::Params params = inputs_.step_tables();
  params.drawn = reinterpret_cast<const TokenId*>(drawn_->data());
  step_tables_(*context_, params);
}

void Executor::RunStage(const StepInputs::Stage& stage) {
  const std::span<const blockzoo::RotaryRows> rotary = rotary_.Of(*stage.chain);
  const auto& blocks = stage.members.front().segment->blocks;
  size_t stateful = 0;
  for (size_t block = 0; block < blocks.size(); ++block) {
    // RunHeads's.
    if (blocks[block]->is_head()) continue;
    members_.clear();
    for (const StepInputs::Member& member : stage.members) {
      members_.push_back({.block = member.segment->blocks[block].get(),
                          .row_begin = member.row_begin,
                          .row_count = member.row_count});
    }
    blockzoo::Launch launch{.context = context_.get(),
                            .scratch = &scratch_,
                            .members = members_,
                            .rows = stage.rows,
                            .step_rows = stage.step_rows,
                            .residual = reinterpret_cast<float*>(residual_->data()),
                            .tokens = inputs_.step_tables().resolved,
                            .positions = inputs_.positions(),
                            .rotary = rotary,
                            .arena = cache_.arena(),
                            .append_slot = stage.append_slot,
                            .attention_plan = {},
                            .attention_table = 0,
                            .logits = nullptr};
    if (!blocks[block]->state().empty()) {
      launch.append_page = stage.append_page + stateful++ * stage.stride;
      launch.attention_plan = stage.plans[static_cast<size_t>(stage.plan_of_block[block])];
      launch.attention_table = stage.tables[block];
    }
    const uint64_t start = Nanoseconds();
    blocks[block]->Run(launch);
    kernel_ns_ += Nanoseconds() - start;
  }
}

// The heads of a stage, over the rows whose logits are wanted. A full tile is sampled before the
// next is begun.
void Executor::RunHeads(const StepInputs::Stage& stage, StepPlan& plan) {
  for (size_t h = stage.head_begin; h < stage.head_end; ++h) {
    const StepInputs::Head& head = inputs_.heads()[h];
    if (h > 0 && inputs_.heads()[h - 1].tile != head.tile) Sample(plan, head.tile - 1);
    const uint64_t start = Nanoseconds();
    const blockzoo::LaunchMember member{
        .block = head.block, .row_begin = 0, .row_count = head.rows};
    head.block->Run({.context = context_.get(),
                     .scratch = &scratch_,
                     .members = {&member, 1},
                     .rows = head.rows,
                     .step_rows = head.step_rows,
                     .residual = reinterpret_cast<float*>(residual_->data()),
                     .attention_plan = {},
                     .logits = head.logits});
    kernel_ns_ += Nanoseconds() - start;
  }
}

// The final norm of the rows that are pooled, added to their sequences' sums.
void Executor::RunPools(const StepInputs::Stage& stage) {
  for (size_t p = stage.pool_begin; p < stage.pool_end; ++p) {
    const StepInputs::Pool& pool = inputs_.pools()[p];
    const uint64_t start = Nanoseconds();
    const blockzoo::LaunchMember member{
        .block = pool.block, .row_begin = 0, .row_count = pool.rows};
    pool.block->Run({.context = context_.get(),
                     .scratch = &scratch_,
                     .members = {&member, 1},
                     .rows = pool.rows,
                     .step_rows = pool.step_rows,
                     .residual = reinterpret_cast<float*>(residual_->data()),
                     .attention_plan = {},
                     .pool = pool.tasks});
    kernel_ns_ += Nanoseconds() - start;
  }
}

// Draws from the logits of a tile. Runs of samples that follow each other are one launch.
void Executor::Sample(StepPlan& plan, uint32_t tile) {
  const uint64_t start = Nanoseconds();
  const std::span<const uint32_t> order = inputs_.sample_order();
  for (const StepInputs::Head& head : inputs_.heads()) {
    if (head.tile != tile) continue;
    size_t at = head.sample_begin;
    while (at < head.sample_end) {
      size_t end = at + 1;
      while (end < head.sample_end && order[end] == order[end - 1] + 1) ++end;
      const uint32_t begin = order[at];
      sample_(
          *context_,
          {.rows = std::span(plan.sample_rows).subspan(begin, end - at),
           .vocab = static_cast<int32_t>(head.chain->vocab()),
           .results = results_.device + begin,
           .drawn = reinterpret_cast<TokenId*>(drawn_->data()),
           .top = top_.device == nullptr ? nullptr : top_.device + size_t{begin} * plan.top_stride,
           .top_stride = static_cast<int32_t>(plan.top_stride)});
      at = end;
    }
  }
  kernel_ns_ += Nanoseconds() - start;
}

void Executor::CopyPages(std::span<const kernels::PageCopy> copies) {
  if (!copies.empty()) copy_pages_(*context_, {.arena = cache_.arena(), .copies = copies});
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
