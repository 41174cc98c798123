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
                      kv.key_statistics ? " with statistics" : "");
}

}  // namespace

std::string Describe(const EmbedOp::Desc& desc) {
  return absl::StrCat("table ", InfoOf(desc.table).name, ", width ", desc.width);
}
std::string Describe(const RmsNormOp::Desc& desc) { return absl::StrCat("width ", desc.width); }
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
  return absl::StrCat(DescribeKv(desc.kv), ", q_heads ", desc.q_heads);
}
std::string Describe(const GatedActivationOp::Desc& desc) {
  return absl::StrCat("kind ", desc.kind == ActivationKind::kSilu ? "silu" : "gelu_tanh");
}
std::string Describe(const PageStatsOp::Desc& desc) { return DescribeKv(desc.kv); }
std::string Describe(const RotaryAnglesOp::Desc& desc) {
  return absl::StrCat("pairs ", desc.pairs);
}
std::string Describe(const StepTablesOp::Desc& /*desc*/) { return "any step"; }
std::string Describe(const PoolRowsOp::Desc& desc) { return absl::StrCat("width ", desc.width); }
std::string Describe(const CopyPagesOp::Desc& /*desc*/) { return "any pages"; }
std::string Describe(const SampleOp::Desc& desc) { return absl::StrCat("vocab ", desc.vocab); }

bool WantsQuantizedRows(DType weight) { return IsBlockFormat(weight); }

}  // namespace tessera::kernels
