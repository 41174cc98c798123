// Rows of few queries and rows of many: a kernel for each, over one plan.
#include "absl/strings/str_cat.h"
#include "kernels/cuda/catalog/linear.h"
#include "kernels/cuda/catalog/rope_append.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/registry.h"

namespace tessera::kernels::cuda {
namespace {

// So few sequences are read before their queries are there.
constexpr uint32_t kFewRows = 4;
// With more, each multiprocessor has so many rows that what it does for each costs more than the
// kernel that appends them all.
constexpr uint32_t kAppendRows = 64;

DecodeArgs DecodeOf(const AttentionOp::Params& p) {
  const auto head_dim = static_cast<int32_t>(p.kv.head_dim);
  return {.q = static_cast<const __nv_bfloat16*>(p.q),
          .q_stride = p.q_stride,
          .out = static_cast<__nv_bfloat16*>(p.out),
          .arena = p.arena,
          .table = p.table,
          .q_heads = p.q_heads,
          .kv_heads = static_cast<int32_t>(p.kv.kv_heads),
          .head_dim = head_dim,
          .kv_type = p.kv.dtype,
          .scale = p.scale,
          .window = p.window};
}

PrefillArgs PrefillOf(const AttentionOp::Params& p) {
  return {.q = p.q,
          .out = p.out,
          .arena = p.arena,
          .table = p.table,
          .q_heads = static_cast<uint32_t>(p.q_heads),
          .kv_heads = p.kv.kv_heads,
          .head_dim = p.kv.head_dim,
          .q_stride = p.q_stride,
          .kv_dtype = p.kv.dtype,
          .scale = p.scale,
          .window = p.window};
}

// Rotates and appends before `decode` unless that can do it itself.
void Append(CudaContext& cuda, const AttentionOp::Params& p, const PreparedAttention& prepared,
            DecodeArgs& decode) {
  decode.append = RopeAppendArgsOf(*p.append);
  if (prepared.one_query_each && prepared.most_decode_rows <= kAppendRows &&
      MissingDecodeAppend(decode).empty()) {
    return;
  }
  cuda.Check(LaunchRopeAppend(decode.append, cuda.stream()), "rope_append");
  decode.append = {};
}

// Has `decode`, of all rows, leave codes of them where the product that reads them wants such.
void LeaveCodes(CudaContext& cuda, const AttentionOp::Params& p, DecodeArgs& decode) {
  if (p.reader == nullptr || p.append == nullptr || !DecodeLeavesCodes(decode)) return;
  const int32_t rows = p.append->rows;
  const ProductGroup reader = GroupOf(*p.reader);
  if (rows > kCodeRows) return;
  const std::optional<CodeKind> kind = CodesWanted(cuda, reader, rows);
  if (!kind.has_value() || *kind == CodeKind::kE4m3Rows) return;
  decode.out_codes = cuda.left_codes(*kind);
  cuda.LeaveCodesOf({{p.out, rows, reader.in}, *kind});
}

void Run(ExecContext& context, const AttentionOp::Params& p) {
  CudaContext& cuda = CudaContext::Of(context);
  const auto& prepared = *static_cast<const PreparedAttention*>(p.plan.prepared);
  DecodeArgs args = DecodeOf(p);
  args.max_q_rows = prepared.max_q_rows;
  if (p.append != nullptr) Append(cuda, p, prepared, args);
  if (prepared.decode_plan != nullptr) {
    args.plan = prepared.decode_plan;
    args.grid = static_cast<uint32_t>(cuda.device().multiprocessors);
    args.ring = prepared.most_decode_rows <= kFewRows ? DecodeRing::kHalf : DecodeRing::kWhole;
    // Earlier steps wrote those pages, and each step begins with a full dependency.
    args.history = KvHistory::kSettled;
    args.workspace = cuda.decode_workspace();
    args.partials = cuda.decode_partials();
    if (prepared.one_query_each && prepared.prefill_plan == nullptr) LeaveCodes(cuda, p, args);
    cuda.Check(LaunchDecode(args, cuda.stream()), "decode attention");
  }
  if (prepared.prefill_plan != nullptr) {
    PrefillArgs prefill = PrefillOf(p);
    prefill.plan = prepared.prefill_plan;
    prefill.merges = prepared.prefill.merges;
    prefill.workspace = cuda.prefill_workspace();
    prefill.partials = prepared.prefill.partials;
    cuda.Check(LaunchPrefill(prefill, cuda.stream()), "prefill attention");
  }
}

std::string Missing(const AttentionOp::Desc& desc) {
  const AttentionOp::Params params{.kv = desc.kv,
                                   .q_heads = static_cast<int32_t>(desc.q_heads),
                                   .scale = 1,
                                   .window = desc.window};
  if (desc.softcap) return "a soft cap of scores";
  if (desc.sinks) return "sinks";
  if (desc.kv.latent) return "a latent plane";
  if (desc.kv.dtype != DType::kBF16 && desc.kv.dtype != DType::kF8E4M3) {
    return absl::StrCat("kv dtype ", InfoOf(desc.kv.dtype).name, " (BF16 or F8_E4M3)");
  }
  if (desc.append.has_value()) {
    const std::string append = MissingRopeAppendOp(*desc.append);
    if (!append.empty()) return append;
  }
  const std::string decode = MissingDecode(DecodeOf(params));
  return decode.empty() ? MissingPrefill(PrefillOf(params)) : decode;
}

}  // namespace

void Register_attention(Registry& registry) {
  registry.Add<AttentionOp>("attention", Missing, Run);
}

}  // namespace tessera::kernels::cuda
