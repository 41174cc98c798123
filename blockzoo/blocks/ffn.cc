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
    float* normed = carver.Take<float>(rows * width_);
    const kernels::QuantizedRows normed_q8 = carver.TakeQuantized(rows, width_);
    float* gate = carver.Take<float>(rows * hidden_);
    float* up = carver.Take<float>(rows * hidden_);
    const kernels::QuantizedRows hidden_q8 = carver.TakeQuantized(rows, hidden_);

    scratch.norm.clear();
    for (const LaunchMember& member : launch.members) {
      scratch.norm.push_back({.weight = Of(member).norm_.data(),
                              .row_begin = member.row_begin,
                              .row_count = member.row_count});
    }
    norm_kernel_(*launch.context, {.tasks = scratch.norm,
                                   .x = launch.residual,
                                   .x_rows = launch.step_rows,
                                   .y = normed,
                                   .width = width_,
                                   .epsilon = epsilon_});
    const kernels::Activation input =
        MakeActivation(launch, quantize_input_, normed, width_, normed_q8);
    RunGateAndUp(launch, input, gate, up);
    gate_kernel_(*launch.context, {.gate = gate,
                                   .up = up,
                                   .y = gate,
                                   .rows = launch.rows,
                                   .width = hidden_,
                                   .kind = activation_});
    scratch.linear.clear();
    for (const LaunchMember& member : launch.members) {
      scratch.linear.push_back(
          Task(member, Of(member).down_, Of(member).down_bias_, launch.residual));
    }
    down_.kernel(*launch.context,
                 {.x = MakeActivation(launch, quantize_hidden_, gate, hidden_, hidden_q8),
                  .in = hidden_,
                  .tasks = scratch.linear,
                  .epilogue = kernels::Epilogue::kResidual,
                  .y_rows = launch.step_rows});
  }

 private:
  static const FfnBlock& Of(const LaunchMember& member) {
    return static_cast<const FfnBlock&>(*member.block);
  }

  static kernels::LinearTask Task(const LaunchMember& member, const BoundWeight& weight,
                                  const BoundVector& bias, float* y) {
    return {.weight = weight.packed.data(),
            .bias = bias.empty() ? nullptr : bias.data(),
            .y = y,
            .y_stride = weight.out,
            .out = weight.out,
            .row_begin = member.row_begin,
            .row_count = member.row_count};
  }

  // One launch when gate and up have one type, else one each.
  void RunGateAndUp(const Launch& launch, const kernels::Activation& input, float* gate,
                    float* up) const {
    std::vector<kernels::LinearTask>& tasks = launch.scratch->linear;
    const auto run = [&](const BoundWeight& weight) {
      weight.kernel(*launch.context, {.x = input, .in = width_, .tasks = tasks});
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
    TESSERA_ASSIGN_OR_RETURN(norm_kernel_, catalog.Find<kernels::RmsNormOp>({.width = width_}));
    TESSERA_ASSIGN_OR_RETURN(gate_kernel_,
                             catalog.Find<kernels::GatedActivationOp>({.kind = activation_}));
    if (kernels::WantsQuantizedRows(gate_.dtype) || kernels::WantsQuantizedRows(up_.dtype)) {
      TESSERA_ASSIGN_OR_RETURN(quantize_input_,
                               catalog.Find<kernels::QuantizeRowsOp>({.width = width_}));
    }
    if (kernels::WantsQuantizedRows(down_.dtype)) {
      TESSERA_ASSIGN_OR_RETURN(quantize_hidden_,
                               catalog.Find<kernels::QuantizeRowsOp>({.width = hidden_}));
    }
    max_width_ = std::max(width_, hidden_);
    workspace_bytes_per_row_ = FloatBytes(width_) + QuantizedBytes(width_) +
                               2 * FloatBytes(hidden_) + QuantizedBytes(hidden_);
    return absl::OkStatus();
  }

  int32_t width_ = 0;
  int32_t hidden_ = 0;
  float epsilon_ = 0;
  kernels::ActivationKind activation_ = kernels::ActivationKind::kSilu;
  BoundVector norm_, gate_bias_, up_bias_, down_bias_;
  BoundWeight gate_, up_, down_;
  kernels::Kernel<kernels::RmsNormOp> norm_kernel_;
  kernels::Kernel<kernels::QuantizeRowsOp> quantize_input_, quantize_hidden_;
  kernels::Kernel<kernels::GatedActivationOp> gate_kernel_;
};

}  // namespace

void Register_ffn(BlockTypeRegistry& registry) {
  registry.Add({.name = "ffn", .bind = FfnBlock::Bind});
}

}  // namespace tessera::blockzoo
