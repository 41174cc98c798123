#include "blockzoo/layer_block.h"

#include <algorithm>

namespace tessera::blockzoo {

StatusOr<std::unique_ptr<BoundBlock>> LayerBlock::Bind(const BindContext& context, Parts parts) {
  auto block = std::make_unique<LayerBlock>();
  KnownNames known;
  if (parts != Parts::kFfn) {
    AttentionPart& attention = block->attention_.emplace();
    TESSERA_RETURN_IF_ERROR(attention.Bind(context, known));
    block->state_ = {attention.state()};
    block->attention_shape_ = attention.shape();
    block->rotary_index_ = attention.rotary_index();
    block->rotary_dim_ = attention.rotary_dim();
    block->max_width_ = attention.max_width();
    block->workspace_bytes_per_row_ = attention.workspace_bytes_per_row();
    block->products_ = attention.products();
  }
  if (parts != Parts::kAttention) {
    FfnPart& ffn = block->ffn_.emplace();
    TESSERA_RETURN_IF_ERROR(ffn.Bind(context, parts == Parts::kParallel ? "ffn_" : "", known));
    block->max_width_ = std::max(block->max_width_, ffn.max_width());
    block->workspace_bytes_per_row_ += ffn.workspace_bytes_per_row();
    const auto products = ffn.products();
    block->products_.insert(block->products_.end(), products.begin(), products.end());
  }
  TESSERA_RETURN_IF_ERROR(CheckKnown(context, known));
  return std::unique_ptr<BoundBlock>(std::move(block));
}

// Both read the residual stream before either adds to it.
void LayerBlock::Run(const Launch& launch) const {
  Carver carver(launch.scratch->workspace);
  FfnPart::Computed hidden{};
  AttentionPart::Computed attended{};
  if (ffn_) hidden = ffn_->Compute(launch, carver);
  if (attention_) attended = attention_->Compute(launch, carver);
  if (attention_) attention_->Join(launch, attended);
  if (ffn_) ffn_->Join(launch, hidden);
}

}  // namespace tessera::blockzoo
