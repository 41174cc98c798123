// The embedding block: a row of the table for each token, the row of its position added, normed.
#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "blockzoo/block_parts.h"
#include "blockzoo/block_type.h"

namespace tessera::blockzoo {
namespace {

using kernels::NormKind;

class EmbeddingBlock final : public BoundBlock {
 public:
  static StatusOr<std::unique_ptr<BoundBlock>> Bind(const BindContext& context) {
    auto block = std::make_unique<EmbeddingBlock>();
    TESSERA_RETURN_IF_ERROR(block->BindTable(context));
    TESSERA_RETURN_IF_ERROR(block->BindPositions(context));
    TESSERA_RETURN_IF_ERROR(block->BindOwnNorm(context));
    TESSERA_RETURN_IF_ERROR(CheckKnown(
        context, {.attributes = {"width", "vocab", "scale", "positions_offset", "norm_epsilon"},
                  .roles = {"table", "positions", "norm", "norm_bias"}}));
    return std::unique_ptr<BoundBlock>(std::move(block));
  }

  void Run(const Launch& launch) const override {
    RunTable(launch);
    if (position_kernel_.run != nullptr) RunPositions(launch);
    if (norm_kernel_.run != nullptr) RunNorm(launch);
  }

 private:
  static const EmbeddingBlock& Of(const LaunchMember& member) {
    return static_cast<const EmbeddingBlock&>(*member.block);
  }

  static std::span<const kernels::EmbedTask> Tasks(const Launch& launch,
                                                   BoundWeight EmbeddingBlock::*table) {
    std::vector<kernels::EmbedTask>& tasks = launch.scratch->embed;
    tasks.clear();
    for (const LaunchMember& member : launch.members) {
      tasks.push_back({.table = (Of(member).*table).packed.data(),
                       .row_begin = member.row_begin,
                       .row_count = member.row_count});
    }
    return tasks;
  }

  void RunTable(const Launch& launch) const {
    kernel_(*launch.context, {.tasks = Tasks(launch, &EmbeddingBlock::table_),
                              .tokens = launch.tokens,
                              .rows = launch.step_rows,
                              .y = launch.residual,
                              .width = table_.in,
                              .vocab = table_.out,
                              .scale = scale_});
  }

  void RunPositions(const Launch& launch) const {
    position_kernel_(*launch.context, {.tasks = Tasks(launch, &EmbeddingBlock::positions_),
                                       .tokens = reinterpret_cast<const TokenId*>(launch.positions),
                                       .rows = launch.step_rows,
                                       .y = launch.residual,
                                       .width = positions_.in,
                                       .vocab = positions_.out,
                                       .mode = kernels::EmbedMode::kAdd,
                                       .offset = positions_offset_});
  }

  void RunNorm(const Launch& launch) const {
    Carver carver(launch.scratch->workspace);
    void* normed = carver.TakeActivations(
        static_cast<uint64_t>(launch.rows) * static_cast<uint64_t>(table_.in), element_bytes_);
    const NormOf norm_of = [](const LaunchMember& member) -> const BoundNorm& {
      return Of(member).norm_;
    };
    norm_kernel_(*launch.context, {.kind = NormKind::kLayer,
                                   .tasks = NormTasks(launch, norm_of),
                                   .x = launch.residual,
                                   .x_rows = launch.step_rows,
                                   .y = normed,
                                   .width = table_.in,
                                   .epsilon = epsilon_});
    store_kernel_(*launch.context, {.mode = kernels::ResidualMode::kStore,
                                    .x = normed,
                                    .y_rows = launch.step_rows,
                                    .y = launch.residual,
                                    .rows = launch.rows,
                                    .width = table_.in});
  }

  Status BindTable(const BindContext& context) {
    const Attributes& attributes = context.manifest.attributes;
    TESSERA_ASSIGN_OR_RETURN(const int64_t width, attributes.Integer("width", 1, 1 << 20));
    TESSERA_ASSIGN_OR_RETURN(const int64_t vocab, attributes.Integer("vocab", 1, 1 << 24));
    TESSERA_ASSIGN_OR_RETURN(const double scale, NumberOr(attributes, "scale", 0, 1e6, 1.0));
    scale_ = static_cast<float>(scale);
    TESSERA_ASSIGN_OR_RETURN(table_, BindWeight(context, "table", vocab, width));
    TESSERA_ASSIGN_OR_RETURN(kernel_, context.backend.catalog().Find<kernels::EmbedOp>(
                                          {.table = table_.dtype, .width = width}));
    max_width_ = width;
    return absl::OkStatus();
  }

  // Learned positions: the tensor has as many rows as there are positions, `positions_offset` of
  // them before the first.
  Status BindPositions(const BindContext& context) {
    const Attributes& attributes = context.manifest.attributes;
    const TensorRef* ref = context.manifest.Find("positions");
    int64_t offset = 0;
    if (attributes.Has("positions_offset")) {
      TESSERA_ASSIGN_OR_RETURN(offset, attributes.Integer("positions_offset", 0, 1 << 20));
    }
    if (ref == nullptr) return absl::OkStatus();
    const uint64_t rows = ref->shape.front();
    if (rows <= static_cast<uint64_t>(offset) || rows > (uint64_t{1} << 24)) {
      return Error(
          absl::StatusCode::kInvalidArgument,
          {.what = absl::StrCat("tensor \"positions\" of an embedding block has ", rows, " rows"),
           .why = absl::StrCat("allowed are ", offset + 1, " to ", 1 << 24,
                               ": positions_offset is ", offset),
           .fix = "import the checkpoint again"});
    }
    TESSERA_ASSIGN_OR_RETURN(
        positions_, BindWeight(context, "positions", rows, static_cast<uint64_t>(table_.in)));
    TESSERA_ASSIGN_OR_RETURN(
        position_kernel_,
        context.backend.catalog().Find<kernels::EmbedOp>(
            {.table = positions_.dtype, .width = table_.in, .mode = kernels::EmbedMode::kAdd}));
    positions_offset_ = static_cast<uint32_t>(offset);
    max_positions_ = rows - static_cast<uint64_t>(offset);
    return absl::OkStatus();
  }

  Status BindOwnNorm(const BindContext& context) {
    const bool normed = context.manifest.Find("norm") != nullptr;
    TESSERA_ASSIGN_OR_RETURN(norm_,
                             BindNorm(context, "norm", normed ? NormKind::kLayer : NormKind::kNone,
                                      static_cast<uint64_t>(table_.in)));
    if (!normed) return absl::OkStatus();
    TESSERA_ASSIGN_OR_RETURN(const double epsilon,
                             context.manifest.attributes.Number("norm_epsilon", 0, 1));
    epsilon_ = static_cast<float>(epsilon);
    const kernels::Catalog& catalog = context.backend.catalog();
    TESSERA_ASSIGN_OR_RETURN(norm_kernel_, catalog.Find<kernels::NormOp>(
                                               {.kind = NormKind::kLayer, .width = table_.in}));
    TESSERA_ASSIGN_OR_RETURN(store_kernel_,
                             catalog.Find<kernels::ResidualOp>(
                                 {.width = table_.in, .mode = kernels::ResidualMode::kStore}));
    element_bytes_ = context.backend.activation_bytes();
    workspace_bytes_per_row_ = RowBytes(element_bytes_, static_cast<uint64_t>(table_.in));
    return absl::OkStatus();
  }

  BoundWeight table_, positions_;
  BoundNorm norm_;
  float scale_ = 1.0f;
  float epsilon_ = 0;
  uint32_t positions_offset_ = 0;
  uint64_t element_bytes_ = 0;
  kernels::Kernel<kernels::EmbedOp> kernel_, position_kernel_;
  kernels::Kernel<kernels::NormOp> norm_kernel_;
  kernels::Kernel<kernels::ResidualOp> store_kernel_;
};

}  // namespace

void Register_embedding(BlockTypeRegistry& registry) {
  registry.Add({.name = "embedding", .bind = EmbeddingBlock::Bind});
}

}  // namespace tessera::blockzoo
