#include "blockzoo/ffn_part.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "blockzoo/layer_block.h"

namespace tessera::blockzoo {
namespace {

using kernels::ActivationKind;
using kernels::NormKind;

// The gated epilogue of a product; none where the activation has no such epilogue.
std::optional<kernels::Epilogue> GatedEpilogue(ActivationKind kind) {
  if (kind == ActivationKind::kSilu) return kernels::Epilogue::kGatedSilu;
  if (kind == ActivationKind::kGeluTanh) return kernels::Epilogue::kGatedGeluTanh;
  return std::nullopt;
}

}  // namespace

const FfnPart& FfnPart::Of(const LaunchMember& member) {
  return static_cast<const LayerBlock&>(*member.block).ffn();
}

Status FfnPart::Bind(const BindContext& context, const std::string& prefix, KnownNames& known) {
  known.attributes.insert(
      {"width", "hidden", "activation", "norm", "norm_epsilon", "residual_scale"});
  for (const char* role : {"norm", "norm_bias", "gate", "up", "down", "gate_bias", "up_bias",
                           "down_bias", "post_norm", "post_norm_bias"}) {
    known.roles.insert(prefix + role);
  }
  TESSERA_RETURN_IF_ERROR(BindAttributes(context.manifest.attributes));
  TESSERA_RETURN_IF_ERROR(BindWeights(context, prefix));
  return BindKernels(context);
}

Status FfnPart::BindAttributes(const Attributes& attributes) {
  TESSERA_ASSIGN_OR_RETURN(width_, attributes.Integer("width", 1, 1 << 20));
  TESSERA_ASSIGN_OR_RETURN(hidden_, attributes.Integer("hidden", 1, 1 << 22));
  TESSERA_ASSIGN_OR_RETURN(settings_, NormSettingsOf(attributes));
  TESSERA_ASSIGN_OR_RETURN(const std::string name, attributes.Text("activation"));
  std::string known;
  for (int i = 0; i < kernels::kActivationKinds; ++i) {
    const auto kind = static_cast<ActivationKind>(i);
    if (name == kernels::NameOf(kind)) {
      activation_ = kind;
      return absl::OkStatus();
    }
    absl::StrAppend(&known, known.empty() ? "" : ", ", kernels::NameOf(kind));
  }
  return Error(absl::StatusCode::kUnimplemented,
               {.what = absl::StrCat("an ffn block has activation \"", name, "\""),
                .why = absl::StrCat("the known ones are ", known)});
}

Status FfnPart::BindWeights(const BindContext& context, const std::string& prefix) {
  gated_ = context.manifest.Find(prefix + "gate") != nullptr;
  // A feed-forward part beside attention may share its norm.
  const bool own_norm = context.manifest.Find(prefix + "norm") != nullptr;
  TESSERA_ASSIGN_OR_RETURN(
      norm_, BindNorm(context, own_norm ? prefix + "norm" : "norm", settings_.kind, width_));
  const bool post_norm = context.manifest.Find(prefix + "post_norm") != nullptr;
  TESSERA_ASSIGN_OR_RETURN(
      post_norm_, BindNorm(context, prefix + "post_norm",
                           post_norm ? PostNormKind(settings_.kind) : NormKind::kNone, width_));
  TESSERA_RETURN_IF_ERROR(output_.Bind(context, width_, settings_, post_norm));
  const auto bind = [&](Part& part, const std::string& role, int32_t out, int32_t in) -> Status {
    TESSERA_ASSIGN_OR_RETURN(part.weight, BindWeight(context, role, out, in));
    TESSERA_ASSIGN_OR_RETURN(part.bias,
                             BindVector(context, role + "_bias", out, Presence::kOptional));
    return absl::OkStatus();
  };
  if (gated_) TESSERA_RETURN_IF_ERROR(bind(gate_, prefix + "gate", hidden_, width_));
  TESSERA_RETURN_IF_ERROR(bind(up_, prefix + "up", hidden_, width_));
  return bind(down_, prefix + "down", width_, hidden_);
}

Status FfnPart::BindKernels(const BindContext& context) {
  const kernels::Catalog& catalog = context.backend.catalog();
  BoundWeight* const both[] = {&gate_.weight, &up_.weight};
  const std::span<BoundWeight* const> readers = std::span(both).subspan(gated_ ? 0 : 1);
  const bool fuses =
      gated_ && gate_.weight.dtype == up_.weight.dtype && GatedEpilogue(activation_).has_value();
  TESSERA_RETURN_IF_ERROR(norm_input_.Bind(context, width_, settings_, fuses, readers));
  BoundWeight* const down[] = {&down_.weight};
  element_bytes_ = context.backend.activation_bytes();
  TESSERA_RETURN_IF_ERROR(hidden_input_.Bind(context, hidden_, down));
  TESSERA_ASSIGN_OR_RETURN(
      activation_kernel_, catalog.Find<kernels::GatedActivationOp>(
                              {.kind = activation_,
                               .gating = gated_ ? kernels::Gating::kGated : kernels::Gating::kPlain,
                               .quantized = hidden_input_.quantizes() && !norm_input_.gates()}));
  return absl::OkStatus();
}

uint64_t FfnPart::max_width() const { return static_cast<uint64_t>(std::max(width_, hidden_)); }

uint64_t FfnPart::workspace_bytes_per_row() const {
  const uint64_t up = gated_ ? RowBytes(element_bytes_, static_cast<uint64_t>(hidden_)) : 0;
  return norm_input_.workspace_bytes_per_row() + hidden_input_.workspace_bytes_per_row() + up +
         output_.workspace_bytes_per_row();
}

std::vector<kernels::LinearGroup> FfnPart::products() const {
  const kernels::Epilogue first =
      gated_ ? GatedEpilogue(activation_).value_or(kernels::Epilogue::kStore)
             : kernels::Epilogue::kStore;
  return {{.weight = up_.weight.dtype, .in = width_, .outs = {hidden_}, .epilogue = first},
          {.weight = down_.weight.dtype,
           .in = hidden_,
           .outs = {width_},
           .epilogue = output_.epilogue()}};
}

FfnPart::Computed FfnPart::Compute(const Launch& launch, Carver& carver) const {
  const LinearInput::Rows normed = norm_input_.Take(carver, launch.rows);
  const Computed computed{.hidden = hidden_input_.Take(carver, launch.rows),
                          .output = output_.Take(launch, carver)};
  void* hidden = computed.hidden.x;
  void* up = nullptr;
  if (gated_) {
    up = carver.TakeActivations(static_cast<uint64_t>(launch.rows) * static_cast<uint64_t>(hidden_),
                                element_bytes_);
  }
  const kernels::LinearOp::Params params = norm_input_.Begin(
      launch, normed,
      [](const LaunchMember& member) -> const BoundNorm& { return Of(member).norm_; });
  if (norm_input_.gates()) {
    RunGated(launch, params, hidden, up);
    (void)hidden_input_.Ready(launch, computed.hidden);
    return computed;
  }
  RunGateAndUp(launch, params, hidden, up);
  activation_kernel_(*launch.context, {.gate = hidden,
                                       .up = up,
                                       .y = hidden,
                                       .rows = launch.rows,
                                       .width = hidden_,
                                       .kind = activation_,
                                       .q8 = computed.hidden.q8});
  return computed;
}

void FfnPart::Join(const Launch& launch, const Computed& computed) const {
  std::vector<kernels::LinearTask>& tasks = launch.scratch->linear;
  tasks.clear();
  for (const LaunchMember& member : launch.members) {
    tasks.push_back(Task(member, Of(member).down_, computed.output));
  }
  output_.Run(launch, down_.weight.kernel,
              {.x = LinearInput::Of(computed.hidden), .in = hidden_, .tasks = tasks},
              computed.output,
              [](const LaunchMember& member) -> const BoundNorm& { return Of(member).post_norm_; });
}

kernels::LinearTask FfnPart::Task(const LaunchMember& member, const Part& part, void* y) {
  return {.weight = part.weight.packed.data(),
          .bias = part.bias.data(),
          .y = y,
          .y_stride = part.weight.out,
          .out = part.weight.out,
          .row_begin = member.row_begin,
          .row_count = member.row_count,
          .norm = Of(member).norm_.weight.data()};
}

// Gate, up and activation in one launch.
void FfnPart::RunGated(const Launch& launch, kernels::LinearOp::Params params, void* hidden,
                       void* up) const {
  std::vector<kernels::LinearTask>& tasks = launch.scratch->linear;
  tasks.clear();
  for (const LaunchMember& member : launch.members) {
    const FfnPart& ffn = Of(member);
    tasks.push_back(Task(member, ffn.gate_, hidden));
    tasks.back().up = ffn.up_.weight.packed.data();
    tasks.back().up_bias = ffn.up_.bias.data();
  }
  params.tasks = tasks;
  params.epilogue = *GatedEpilogue(activation_);
  params.up_scratch = up;
  gate_.weight.kernel(*launch.context, params);
}

// Without a gate `hidden` takes the up product. One launch when gate and up have one type, else one
// each.
void FfnPart::RunGateAndUp(const Launch& launch, kernels::LinearOp::Params params, void* hidden,
                           void* up) const {
  std::vector<kernels::LinearTask>& tasks = launch.scratch->linear;
  const auto run = [&](const BoundWeight& weight) {
    params.tasks = tasks;
    weight.kernel(*launch.context, params);
    tasks.clear();
  };
  tasks.clear();
  for (const LaunchMember& member : launch.members) {
    if (gated_) tasks.push_back(Task(member, Of(member).gate_, hidden));
  }
  if (gated_ && gate_.weight.dtype != up_.weight.dtype) run(gate_.weight);
  for (const LaunchMember& member : launch.members) {
    tasks.push_back(Task(member, Of(member).up_, gated_ ? up : hidden));
  }
  run(up_.weight);
}

}  // namespace tessera::blockzoo
