#include "kernels/catalog.h"

#include "absl/strings/str_cat.h"

namespace tessera::kernels {

Status Catalog::NoKernel(const char* op, const std::string& required, const std::string& missing) {
  return Error(absl::StatusCode::kUnimplemented,
               {.what = absl::StrCat("no kernel for ", op),
                .where = absl::StrCat("required ", required),
                .why = missing.empty() ? "this backend has no kernel of this op" : missing,
                .fix = "use a type and shape that a listed kernel supports"});
}

namespace {

std::string DescribeKv(const KvFormat& kv) {
  return absl::StrCat("kv ", InfoOf(kv.dtype).name, " x ", kv.kv_heads, " heads x ", kv.head_dim,
                      kv.latent ? ", latent" : "", kv.key_statistics ? " with statistics" : "");
}

std::string DescribeLatent(const LatentShape& shape) {
  return absl::StrCat(DescribeKv(shape.kv), ", q_heads ", shape.q_heads, " of ", shape.nope_dim,
                      " + ", shape.rope_dim, ", rank ", shape.rank);
}

}  // namespace

std::string Describe(const EmbedOp::Desc& desc) {
  return absl::StrCat("table ", InfoOf(desc.table).name, ", width ", desc.width,
                      desc.mode == EmbedMode::kAdd ? ", added" : "");
}
std::string Describe(const NormOp::Desc& desc) {
  static constexpr const char* kKinds[] = {"none", "rms", "layer"};
  return absl::StrCat("kind ", kKinds[static_cast<int>(desc.kind)], ", width ", desc.width,
                      desc.groups > 1 ? absl::StrCat(" x ", desc.groups) : "", " of ",
                      desc.input == NormInput::kResidual ? "the residual stream" : "activations",
                      desc.quantized ? ", quantized" : "");
}
std::string Describe(const ResidualOp::Desc& desc) {
  return absl::StrCat("width ", desc.width,
                      desc.mode == ResidualMode::kAdd ? ", added" : ", stored");
}
std::string Describe(const ScaleLogitsOp::Desc& desc) { return absl::StrCat("vocab ", desc.vocab); }
std::string Describe(const QuantizeRowsOp::Desc& desc) {
  return absl::StrCat("width ", desc.width);
}
std::string Describe(const LinearOp::Desc& desc) {
  return absl::StrCat("weight ", InfoOf(desc.weight).name, " [", desc.out, ", ", desc.in, "]",
                      desc.normed ? ", normed" : "", desc.gated ? ", gated" : "");
}
std::string Describe(const RopeAppendOp::Desc& desc) {
  return absl::StrCat(DescribeKv(desc.kv), ", q_heads ", desc.q_heads, ", rotary_dim ",
                      desc.rotary_dim,
                      desc.style == RopeStyle::kInterleaved ? ", interleaved" : ", half");
}
std::string Describe(const AttentionOp::Desc& desc) {
  return absl::StrCat(DescribeKv(desc.kv), ", q_heads ", desc.q_heads,
                      desc.window > 0 ? absl::StrCat(", window ", desc.window) : "",
                      desc.softcap ? ", soft cap" : "", desc.sinks ? ", sinks" : "",
                      desc.append.has_value() ? ", appending" : "");
}
std::string Describe(const GatedActivationOp::Desc& desc) {
  return absl::StrCat("kind ", NameOf(desc.kind),
                      desc.gating == Gating::kPlain ? ", not gated" : "",
                      desc.quantized ? ", quantized" : "");
}
const char* NameOf(ActivationKind kind) {
  static constexpr const char* kNames[kActivationKinds] = {"silu", "gelu_tanh", "gelu", "relu",
                                                           "relu2"};
  return kNames[static_cast<int>(kind)];
}
std::string Describe(const PageStatsOp::Desc& desc) { return DescribeKv(desc.kv); }
std::string Describe(const RotaryAnglesOp::Desc& desc) {
  return absl::StrCat("pairs ", desc.pairs);
}
std::string Describe(const StepTablesOp::Desc& /*desc*/) { return "any step"; }
std::string Describe(const PoolRowsOp::Desc& desc) { return absl::StrCat("width ", desc.width); }
std::string Describe(const CopyPagesOp::Desc& /*desc*/) { return "any pages"; }
std::string Describe(const RouteExpertsOp::Desc& desc) {
  const ExpertRouter& router = desc.router;
  return absl::StrCat(router.used, " of ", router.experts, " experts, ", router.groups_used, " of ",
                      router.groups, " groups");
}
std::string Describe(const GatherRowsOp::Desc& desc) { return absl::StrCat("width ", desc.width); }
std::string Describe(const ClampedSwigluOp::Desc& desc) {
  return absl::StrCat("limit ", desc.limit);
}
std::string Describe(const CombineExpertsOp::Desc& desc) {
  return absl::StrCat("width ", desc.width);
}
std::string Describe(const LatentAppendOp::Desc& desc) {
  return absl::StrCat(DescribeLatent(desc.shape),
                      desc.style == RopeStyle::kInterleaved ? ", interleaved" : ", half");
}
std::string Describe(const LatentAttentionOp::Desc& desc) { return DescribeLatent(desc.shape); }
std::string Describe(const SampleOp::Desc& desc) { return absl::StrCat("vocab ", desc.vocab); }

bool WantsQuantizedRows(DType weight) { return IsBlockFormat(weight); }

}  // namespace tessera::kernels
