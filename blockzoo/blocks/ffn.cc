// The gated feed-forward block: x += down(activation(gate(norm(x))) * up(norm(x))).
#include <memory>

#include "absl/strings/str_cat.h"
#include "blockzoo/block_parts.h"
#include "blockzoo/block_type.h"

namespace tessera::blockzoo {
namespace {

class FfnBlock final : public BoundBlock {
 public:
  static StatusOr<std::unique_ptr<BoundBlock>> Bind(const BindContext& context) {
    auto block = std::make_unique<FfnBlock>();
    TESSERA_RETURN_IF_ERROR(block->BindWeights(context));
    TESSERA_RETURN_IF_ERROR(block->BindKernels(context));
    return std::unique_ptr<BoundBlock>(std::move(block));
  }

  void Run(const Launch& launch) const override {
    LaunchScratch& scratch = *launch.scratch;
    const int64_t rows = launch.rows;
    Carver carver(scratch.workspace);
    const LinearInput::Rows normed = norm_input_.Take(carver, rows);
    const LinearInput::Rows gate = hidden_input_.Take(carver, rows);
    void* up = carver.TakeActivations(rows * hidden_, element_bytes_);

    const kernels::LinearOp::Params params = norm_input_.Begin(launch, normed, NormOf);
    if (norm_input_.gates()) {
      RunGated(launch, params, gate.x, up);
    } else {
      RunGateAndUp(launch, params, gate.x, up);
      gate_kernel_(*launch.context, {.gate = gate.x,
                                     .up = up,
                                     .y = gate.x,
                                     .rows = launch.rows,
                                     .width = hidden_,
                                     .kind = activation_});
    }
    scratch.linear.clear();
    for (const LaunchMember& member : launch.members) {
      scratch.linear.push_back(
          Task(member, Of(member).down_, Of(member).down_bias_, launch.residual));
    }
    down_.kernel(*launch.context, {.x = hidden_input_.Ready(launch, gate),
                                   .in = hidden_,
                                   .tasks = scratch.linear,
                                   .epilogue = kernels::Epilogue::kResidual,
                                   .y_rows = launch.step_rows});
  }

 private:
  static const FfnBlock& Of(const LaunchMember& member) {
    return static_cast<const FfnBlock&>(*member.block);
  }

  static const float* NormOf(const LaunchMember& member) { return Of(member).norm_.data(); }

  static kernels::LinearTask Task(const LaunchMember& member, const BoundWeight& weight,
                                  const BoundVector& bias, void* y) {
    return {.weight = weight.packed.data(),
            .bias = bias.data(),
            .y = y,
            .y_stride = weight.out,
            .out = weight.out,
            .row_begin = member.row_begin,
            .row_count = member.row_count,
            .norm = NormOf(member)};
  }

  // Gate, up and activation in one launch.
  void RunGated(const Launch& launch, kernels::LinearOp::Params params, void* hidden,
                void* up) const {
    std::vector<kernels::LinearTask>& tasks = launch.scratch->linear;
    tasks.clear();
    for (const LaunchMember& member : launch.members) {
      const FfnBlock& block = Of(member);
      tasks.push_back(Task(member, block.gate_, block.gate_bias_, hidden));
      tasks.back().up = block.up_.packed.data();
      tasks.back().up_bias = block.up_bias_.data();
    }
    params.tasks = tasks;
    params.epilogue = activation_ == kernels::ActivationKind::kSilu
                          ? kernels::Epilogue::kGatedSilu
                          : kernels::Epilogue::kGatedGeluTanh;
    params.up_scratch = up;
    gate_.kernel(*launch.context, params);
  }

  // One launch when gate and up have one type, else one each.
  void RunGateAndUp(const Launch& launch, kernels::LinearOp::Params params, void* gate,
                    void* up) const {
    std::vector<kernels::LinearTask>& tasks = launch.scratch->linear;
    const auto run = [&](const BoundWeight& weight) {
      params.tasks = tasks;
      weight.kernel(*launch.context, params);
      tasks.clear();
    };
    tasks.clear();
    for (const LaunchMember& member : launch.members) {
      tasks.push_back(Task(member, Of(member).gate_, Of(member).gate_bias_, gate));
    }
    if (gate_.dtype != up_.dtype) run(gate_);
    for (const LaunchMember& member : launch.members) {
      tasks.push_back(Task(member, Of(member).up_, Of(member).up_bias_, up));
    }
    run(up_);
  }

  Status BindWeights(const BindContext& context) {
    const Attributes& attributes = context.manifest.attributes;
    TESSERA_ASSIGN_OR_RETURN(const int64_t width, attributes.Integer("width", 1, 1 << 20));
    TESSERA_ASSIGN_OR_RETURN(const int64_t hidden, attributes.Integer("hidden", 1, 1 << 22));
    TESSERA_ASSIGN_OR_RETURN(const double epsilon, attributes.Number("norm_epsilon", 0, 1));
    TESSERA_ASSIGN_OR_RETURN(const std::string activation, attributes.Text("activation"));
    if (activation == "silu") {
      activation_ = kernels::ActivationKind::kSilu;
    } else if (activation == "gelu_tanh") {
      activation_ = kernels::ActivationKind::kGeluTanh;
    } else {
      return Error(absl::StatusCode::kUnimplemented,
                   {.what = absl::StrCat("an ffn block has activation \"", activation, "\""),
                    .why = "the known ones are silu and gelu_tanh"});
    }
    width_ = static_cast<int32_t>(width);
    hidden_ = static_cast<int32_t>(hidden);
    epsilon_ = static_cast<float>(epsilon);
    TESSERA_ASSIGN_OR_RETURN(norm_, BindVector(context, "norm", width, Presence::kRequired));
    TESSERA_ASSIGN_OR_RETURN(gate_, BindWeight(context, "gate", hidden, width));
    TESSERA_ASSIGN_OR_RETURN(up_, BindWeight(context, "up", hidden, width));
    TESSERA_ASSIGN_OR_RETURN(down_, BindWeight(context, "down", width, hidden));
    const Presence optional = Presence::kOptional;
    TESSERA_ASSIGN_OR_RETURN(gate_bias_, BindVector(context, "gate_bias", hidden, optional));
    TESSERA_ASSIGN_OR_RETURN(up_bias_, BindVector(context, "up_bias", hidden, optional));
    TESSERA_ASSIGN_OR_RETURN(down_bias_, BindVector(context, "down_bias", width, optional));
    return absl::OkStatus();
  }

  Status BindKernels(const BindContext& context) {
    const kernels::Catalog& catalog = context.backend.catalog();
    TESSERA_ASSIGN_OR_RETURN(gate_kernel_,
                             catalog.Find<kernels::GatedActivationOp>({.kind = activation_}));
    BoundWeight* const readers[] = {&gate_, &up_};
    const bool gated = gate_.dtype == up_.dtype;
    TESSERA_RETURN_IF_ERROR(norm_input_.Bind(context, width_, epsilon_, gated, readers));
    BoundWeight* const down[] = {&down_};
    TESSERA_RETURN_IF_ERROR(hidden_input_.Bind(context, hidden_, down));
    products_ = {{.weight = gate_.dtype,
                  .in = width_,
                  .outs = {hidden_},
                  .epilogue = kernels::Epilogue::kGatedSilu},
                 {.weight = down_.dtype,
                  .in = hidden_,
                  .outs = {width_},
                  .epilogue = kernels::Epilogue::kResidual}};
    element_bytes_ = context.backend.activation_bytes();
    max_width_ = std::max(width_, hidden_);
    workspace_bytes_per_row_ = norm_input_.workspace_bytes_per_row() +
                               hidden_input_.workspace_bytes_per_row() +
                               RowBytes(element_bytes_, hidden_);
    return absl::OkStatus();
  }

  int32_t width_ = 0;
  int32_t hidden_ = 0;
  float epsilon_ = 0;
  kernels::ActivationKind activation_ = kernels::ActivationKind::kSilu;
  BoundVector norm_, gate_bias_, up_bias_, down_bias_;
  BoundWeight gate_, up_, down_;
  uint64_t element_bytes_ = 0;
  NormedInput norm_input_;    // gate and up read it
  LinearInput hidden_input_;  // down reads it
  kernels::Kernel<kernels::GatedActivationOp> gate_kernel_;
};

}  // namespace

void Register_ffn(BlockTypeRegistry& registry) {
  registry.Add({.name = "ffn", .bind = FfnBlock::Bind});
}

}  // namespace tessera::blockzoo
