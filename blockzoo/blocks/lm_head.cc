// The lm_head block: final norm and the product with the output table, for the rows that want
// logits.
#include <memory>

#include "blockzoo/block_parts.h"
#include "blockzoo/block_type.h"

namespace tessera::blockzoo {
namespace {

class LmHeadBlock final : public BoundBlock {
 public:
  static StatusOr<std::unique_ptr<BoundBlock>> Bind(const BindContext& context) {
    const Attributes& attributes = context.manifest.attributes;
    const kernels::Catalog& catalog = context.backend.catalog();
    auto block = std::make_unique<LmHeadBlock>();
    TESSERA_ASSIGN_OR_RETURN(const int64_t width, attributes.Integer("width", 1, 1 << 20));
    TESSERA_ASSIGN_OR_RETURN(const int64_t vocab, attributes.Integer("vocab", 1, 1 << 24));
    TESSERA_ASSIGN_OR_RETURN(const double epsilon, attributes.Number("norm_epsilon", 0, 1));
    block->epsilon_ = static_cast<float>(epsilon);
    TESSERA_ASSIGN_OR_RETURN(block->norm_, BindVector(context, "norm", width, Presence::kRequired));
    TESSERA_ASSIGN_OR_RETURN(block->head_, BindWeight(context, "head", vocab, width));
    TESSERA_ASSIGN_OR_RETURN(block->norm_kernel_,
                             catalog.Find<kernels::RmsNormOp>({.width = width}));
    if (kernels::WantsQuantizedRows(block->head_.dtype)) {
      TESSERA_ASSIGN_OR_RETURN(block->quantize_,
                               catalog.Find<kernels::QuantizeRowsOp>({.width = width}));
    }
    block->is_head_ = true;
    block->max_width_ = std::max(width, vocab);
    block->workspace_bytes_per_row_ = FloatBytes(width) + QuantizedBytes(width);
    return std::unique_ptr<BoundBlock>(std::move(block));
  }

  void Run(const Launch& launch) const override {
    LaunchScratch& scratch = *launch.scratch;
    scratch.norm.clear();
    scratch.linear.clear();
    for (const LaunchMember& member : launch.members) {
      const auto& block = static_cast<const LmHeadBlock&>(*member.block);
      scratch.norm.push_back({.weight = block.norm_.data(),
                              .row_begin = member.row_begin,
                              .row_count = member.row_count});
      scratch.linear.push_back({.weight = block.head_.packed.data(),
                                .y = launch.logits,
                                .y_stride = head_.out,
                                .out = head_.out,
                                .row_begin = member.row_begin,
                                .row_count = member.row_count});
    }
    Carver carver(scratch.workspace);
    float* normed = carver.Take<float>(uint64_t{1} * launch.rows * head_.in);
    const kernels::QuantizedRows q8 = carver.TakeQuantized(launch.rows, head_.in);
    norm_kernel_(*launch.context, {.tasks = scratch.norm,
                                   .x = launch.residual,
                                   .x_rows = launch.step_rows,
                                   .y = normed,
                                   .width = head_.in,
                                   .epsilon = epsilon_});
    head_.kernel(*launch.context, {.x = MakeActivation(launch, quantize_, normed, head_.in, q8),
                                   .in = head_.in,
                                   .tasks = scratch.linear,
                                   .epilogue = kernels::Epilogue::kStore});
  }

 private:
  BoundVector norm_;
  BoundWeight head_;
  float epsilon_ = 0;
  kernels::Kernel<kernels::RmsNormOp> norm_kernel_;
  kernels::Kernel<kernels::QuantizeRowsOp> quantize_;
};

}  // namespace

void Register_lm_head(BlockTypeRegistry& registry) {
  registry.Add({.name = "lm_head", .bind = LmHeadBlock::Bind});
}

}  // namespace tessera::blockzoo
