// The lm_head block: final norm and the product with the output table, for the rows that want
// logits; or the final norm alone and the sum over rows, for those that are pooled.
#include <memory>

#include "blockzoo/block_parts.h"
#include "blockzoo/block_type.h"
#include "kernels/ops/sample.h"

namespace tessera::blockzoo {
namespace {

class LmHeadBlock final : public BoundBlock {
 public:
  static StatusOr<std::unique_ptr<BoundBlock>> Bind(const BindContext& context) {
    const Attributes& attributes = context.manifest.attributes;
    auto block = std::make_unique<LmHeadBlock>();
    TESSERA_ASSIGN_OR_RETURN(const int64_t width, attributes.Integer("width", 1, 1 << 20));
    TESSERA_ASSIGN_OR_RETURN(const int64_t vocab, attributes.Integer("vocab", 1, 1 << 24));
    TESSERA_ASSIGN_OR_RETURN(const double epsilon, attributes.Number("norm_epsilon", 0, 1));
    TESSERA_ASSIGN_OR_RETURN(block->norm_, BindVector(context, "norm", width, Presence::kRequired));
    TESSERA_ASSIGN_OR_RETURN(block->head_, BindWeight(context, "head", vocab, width));
    BoundWeight* const readers[] = {&block->head_};
    TESSERA_RETURN_IF_ERROR(block->input_.Bind(context, static_cast<int32_t>(width),
                                               static_cast<float>(epsilon), false, readers));
    block->products_ = {{.weight = block->head_.dtype,
                         .in = width,
                         .outs = {vocab},
                         .epilogue = kernels::Epilogue::kLogits}};
    block->is_head_ = true;
    block->BindPooling(context);
    block->max_width_ = std::max(width, vocab);
    block->workspace_bytes_per_row_ = block->input_.workspace_bytes_per_row();
    return std::unique_ptr<BoundBlock>(std::move(block));
  }

  void Run(const Launch& launch) const override {
    Carver carver(launch.scratch->workspace);
    const LinearInput::Rows rows = input_.Take(carver, launch.rows);
    if (!launch.pool.empty()) return Pool(launch, rows);
    kernels::LinearOp::Params params = input_.Begin(launch, rows, NormOf);
    std::vector<kernels::LinearTask>& tasks = launch.scratch->linear;
    tasks.clear();
    for (const LaunchMember& member : launch.members) {
      tasks.push_back({.weight = Of(member).head_.packed.data(),
                       .y = launch.logits,
                       .y_stride = kernels::LogitsStride(head_.out),
                       .out = head_.out,
                       .row_begin = member.row_begin,
                       .row_count = member.row_count,
                       .norm = NormOf(member)});
    }
    params.tasks = tasks;
    params.epilogue = kernels::Epilogue::kLogits;
    head_.kernel(*launch.context, params);
  }

 private:
  // A backend without it serves all the same.
  void BindPooling(const BindContext& context) {
    const auto pool = context.backend.catalog().Find<kernels::PoolRowsOp>({.width = head_.in});
    pooling_ = pool.status();
    if (!pool.ok()) return;
    if (input_.fused()) {
      pooling_ = absl::UnimplementedError("the backend makes normed rows only inside of products");
      return;
    }
    pool_ = *pool;
  }

  void Pool(const Launch& launch, const LinearInput::Rows& rows) const {
    (void)input_.Begin(launch, rows, NormOf);
    pool_(*launch.context, {.tasks = launch.pool, .x = rows.x, .width = head_.in});
  }

  static const LmHeadBlock& Of(const LaunchMember& member) {
    return static_cast<const LmHeadBlock&>(*member.block);
  }
  static const float* NormOf(const LaunchMember& member) { return Of(member).norm_.data(); }

  BoundVector norm_;
  BoundWeight head_;
  NormedInput input_;
  kernels::Kernel<kernels::PoolRowsOp> pool_;
};

}  // namespace

void Register_lm_head(BlockTypeRegistry& registry) {
  registry.Add({.name = "lm_head", .bind = LmHeadBlock::Bind});
}

}  // namespace tessera::blockzoo
