// The lm_head block: final norm and the product with the output table, scaled and capped, for the
// rows that want logits; or the final norm alone and the sum over rows, for those that are pooled.
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
    TESSERA_ASSIGN_OR_RETURN(const NormSettings norm, NormSettingsOf(attributes));
    TESSERA_ASSIGN_OR_RETURN(block->norm_, BindNorm(context, "norm", norm.kind, width));
    TESSERA_ASSIGN_OR_RETURN(block->head_, BindWeight(context, "head", vocab, width));
    TESSERA_ASSIGN_OR_RETURN(block->bias_, BindVector(context, "bias", vocab, Presence::kOptional));
    TESSERA_RETURN_IF_ERROR(block->BindScale(context));
    TESSERA_RETURN_IF_ERROR(CheckKnown(
        context, {.attributes = {"width", "vocab", "norm", "norm_epsilon", "scale", "softcap"},
                  .roles = {"norm", "norm_bias", "head", "bias"}}));
    BoundWeight* const readers[] = {&block->head_};
    TESSERA_RETURN_IF_ERROR(
        block->input_.Bind(context, static_cast<int32_t>(width), norm, false, readers));
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
                       .bias = Of(member).bias_.data(),
                       .y = launch.logits,
                       .y_stride = kernels::LogitsStride(head_.out),
                       .out = head_.out,
                       .row_begin = member.row_begin,
                       .row_count = member.row_count,
                       .norm = Of(member).norm_.weight.data()});
    }
    params.tasks = tasks;
    params.epilogue = kernels::Epilogue::kLogits;
    head_.kernel(*launch.context, params);
    if (scale_kernel_.run == nullptr) return;
    scale_kernel_(*launch.context, {.logits = launch.logits,
                                    .stride = kernels::LogitsStride(head_.out),
                                    .rows = launch.rows,
                                    .vocab = head_.out,
                                    .scale = scale_,
                                    .softcap = softcap_});
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
  static const BoundNorm& NormOf(const LaunchMember& member) { return Of(member).norm_; }

  Status BindScale(const BindContext& context) {
    const Attributes& attributes = context.manifest.attributes;
    TESSERA_ASSIGN_OR_RETURN(const double scale, NumberOr(attributes, "scale", -1e6, 1e6, 1.0));
    scale_ = static_cast<float>(scale);
    if (attributes.Has("softcap")) {
      TESSERA_ASSIGN_OR_RETURN(const double softcap, attributes.Number("softcap", 1e-6, 1e6));
      softcap_ = static_cast<float>(softcap);
    }
    if (scale_ == 1.0f && softcap_ == 0) return absl::OkStatus();
    TESSERA_ASSIGN_OR_RETURN(scale_kernel_, context.backend.catalog().Find<kernels::ScaleLogitsOp>(
                                                {.vocab = head_.out}));
    return absl::OkStatus();
  }

  BoundNorm norm_;
  BoundVector bias_;
  float scale_ = 1.0f;
  float softcap_ = 0;
  BoundWeight head_;
  NormedInput input_;
  kernels::Kernel<kernels::PoolRowsOp> pool_;
  kernels::Kernel<kernels::ScaleLogitsOp> scale_kernel_;
};

}  // namespace

void Register_lm_head(BlockTypeRegistry& registry) {
  registry.Add({.name = "lm_head", .bind = LmHeadBlock::Bind});
}

}  // namespace tessera::blockzoo
