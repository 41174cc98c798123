// Row-wise ops: norms, gates, embedding, rotary angles.
#include "kernels/cuda/ops/rows.h"

#include "absl/strings/str_cat.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/registry.h"

namespace tessera::kernels::cuda {
namespace {

void Normalize(ExecContext& context, const NormOp::Params& p) {
  CudaContext& cuda = CudaContext::Of(context);
  const auto* x = static_cast<const float*>(p.x);
  for (const NormTask& task : p.tasks) {
    if (task.row_count == 0) continue;
    const int64_t shift = p.x_rows == nullptr ? int64_t{task.row_begin} * p.width : 0;
    const RmsNormArgs args{
        .x = x + shift,
        .x_rows = p.x_rows == nullptr ? nullptr : p.x_rows + task.row_begin,
        .weight = task.weight,
        .epsilon = p.epsilon,
        .rows = task.row_count,
        .width = p.width,
        .out = {.y = static_cast<__nv_bfloat16*>(p.y) + int64_t{task.row_begin} * p.width,
                .stride = p.width}};
    cuda.Check(LaunchRmsNorm(args, cuda.stream()), "norm");
  }
}

void Gate(ExecContext& context, const GatedActivationOp::Params& p) {
  CudaContext& cuda = CudaContext::Of(context);
  cuda.Check(
      LaunchGatedActivation({.gate = static_cast<const __nv_bfloat16*>(p.gate),
                             .up = static_cast<const __nv_bfloat16*>(p.up),
                             .gate_stride = p.width,
                             .up_stride = p.width,
                             .kind = p.kind,
                             .rows = p.rows,
                             .width = p.width,
                             .out = {.y = static_cast<__nv_bfloat16*>(p.y), .stride = p.width}},
                            cuda.stream()),
      "gated_activation");
}

void Embed(ExecContext& context, const EmbedOp::Params& p, DType dtype) {
  CudaContext& cuda = CudaContext::Of(context);
  for (const EmbedTask& task : p.tasks) {
    if (task.row_count == 0) continue;
    const int64_t shift = p.rows == nullptr ? task.row_begin : 0;
    cuda.Check(LaunchEmbed({.dtype = dtype,
                            .table = task.table,
                            .tokens = reinterpret_cast<const int32_t*>(p.tokens) + shift,
                            .row_of = p.rows == nullptr ? nullptr : p.rows + task.row_begin,
                            .y = p.y + shift * p.width,
                            .scale = p.scale,
                            .rows = task.row_count,
                            .width = p.width,
                            .vocab = p.vocab},
                           cuda.stream()),
               "embed");
  }
}

template <DType dtype>
void EmbedAs(ExecContext& context, const EmbedOp::Params& p) {
  Embed(context, p, dtype);
}

template <DType dtype>
std::string MissingEmbedAs(const EmbedOp::Desc& desc) {
  if (desc.table != dtype) return absl::StrCat("table ", InfoOf(desc.table).name);
  if (desc.mode != EmbedMode::kStore) return "adding rows of a table";
  return MissingEmbed(dtype, desc.width);
}

template <DType... dtypes>
void AddEmbed(Registry& registry) {
  (registry.Add<EmbedOp>("embed", MissingEmbedAs<dtypes>, EmbedAs<dtypes>), ...);
}

void Rotate(ExecContext& context, const RotaryAnglesOp::Params& p) {
  CudaContext& cuda = CudaContext::Of(context);
  cuda.Check(LaunchRotaryAngles({.positions = p.positions,
                                 .frequencies = p.frequencies,
                                 .cosine = p.cosine,
                                 .sine = p.sine,
                                 .rows = p.rows,
                                 .pairs = p.pairs,
                                 .scale = p.scale},
                                cuda.stream()),
             "rotary_angles");
}

std::string MissingNorm(const NormOp::Desc& desc) {
  if (desc.quantized) return "quantized rows";
  if (desc.kind != NormKind::kRms) return "norms but rms";
  if (desc.input != NormInput::kResidual) return "norms of activations";
  if (desc.groups != 1) return absl::StrCat("groups ", desc.groups);
  return MissingRowWidth(desc.width);
}
std::string MissingGate(const GatedActivationOp::Desc& desc) {
  if (desc.quantized) return "quantized rows";
  if (desc.gating != Gating::kGated) return "activations without a gate";
  return desc.kind == ActivationKind::kSilu || desc.kind == ActivationKind::kGeluTanh
             ? ""
             : absl::StrCat("kind ", NameOf(desc.kind));
}
std::string MissingAngles(const RotaryAnglesOp::Desc& desc) {
  return desc.pairs > 0 ? "" : absl::StrCat("pairs ", desc.pairs);
}

}  // namespace

void Register_rows(Registry& registry) {
  registry.Add<NormOp>("norm", MissingNorm, Normalize);
  registry.Add<GatedActivationOp>("gated_activation", MissingGate, Gate);
  registry.Add<RotaryAnglesOp>("rotary_angles", MissingAngles, Rotate);
  // Int4 weights are kept as products want them, not as a table.
  AddEmbed<DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_1,
           DType::kF8Channel, DType::kF8Block128, DType::kI8Channel>(registry);
}

}  // namespace tessera::kernels::cuda
