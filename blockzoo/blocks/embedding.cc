// The embedding block: a row of the table for each token.
#include <memory>

#include "blockzoo/block_parts.h"
#include "blockzoo/block_type.h"

namespace tessera::blockzoo {
namespace {

class EmbeddingBlock final : public BoundBlock {
 public:
  static StatusOr<std::unique_ptr<BoundBlock>> Bind(const BindContext& context) {
    const Attributes& attributes = context.manifest.attributes;
    auto block = std::make_unique<EmbeddingBlock>();
    TESSERA_ASSIGN_OR_RETURN(const int64_t width, attributes.Integer("width", 1, 1 << 20));
    TESSERA_ASSIGN_OR_RETURN(const int64_t vocab, attributes.Integer("vocab", 1, 1 << 24));
    if (attributes.Has("scale")) {
      TESSERA_ASSIGN_OR_RETURN(const double scale, attributes.Number("scale", 0, 1e6));
      block->scale_ = static_cast<float>(scale);
    }
    TESSERA_ASSIGN_OR_RETURN(block->table_, BindWeight(context, "table", vocab, width));
    TESSERA_ASSIGN_OR_RETURN(block->kernel_, context.backend.catalog().Find<kernels::EmbedOp>(
                                                 {.table = block->table_.dtype, .width = width}));
    block->max_width_ = width;
    return std::unique_ptr<BoundBlock>(std::move(block));
  }

  void Run(const Launch& launch) const override {
    std::vector<kernels::EmbedTask>& tasks = launch.scratch->embed;
    tasks.clear();
    for (const LaunchMember& member : launch.members) {
      const auto& block = static_cast<const EmbeddingBlock&>(*member.block);
      tasks.push_back({.table = block.table_.packed.data(),
                       .row_begin = member.row_begin,
                       .row_count = member.row_count});
    }
    kernel_(*launch.context, {.tasks = tasks,
                              .tokens = launch.tokens,
                              .rows = launch.step_rows,
                              .y = launch.residual,
                              .width = table_.in,
                              .vocab = table_.out,
                              .scale = scale_});
  }

 private:
  BoundWeight table_;
  float scale_ = 1.0f;
  kernels::Kernel<kernels::EmbedOp> kernel_;
};

}  // namespace

void Register_embedding(BlockTypeRegistry& registry) {
  registry.Add({.name = "embedding", .bind = EmbeddingBlock::Bind});
}

}  // namespace tessera::blockzoo
