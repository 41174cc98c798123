#include "absl/strings/str_cat.h"
#include "kernels/cpu/ops/append_row.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/registry.h"

namespace tessera::kernels::cpu {

void AppendRows(ExecContext& context, const RopeAppendOp::Params& p,
                const AttentionKernels& micro) {
  const int64_t kv_heads = p.kv.kv_heads;
  const double ns =
      0.5 * p.rows * p.kv.head_dim * (p.q_heads + 2.0 * static_cast<double>(kv_heads));
  ForShares(context, p.rows, ns, [&](int64_t begin, int64_t end, int thread) {
    float* rotated = reinterpret_cast<float*>(context.scratch(thread));
    AppendRow(micro, p, begin).AskForKeys(0, kv_heads);
    for (int64_t row = begin; row < end; ++row) {
      // Neighbours in one page find its lines.
      if (row + 1 < end && p.page[row + 1] != p.page[row]) {
        AppendRow(micro, p, row + 1).AskForKeys(0, kv_heads);
      }
      AppendRow append(micro, p, row);
      append.RotateQueries(0, p.q_heads);
      for (int64_t head = 0; head < kv_heads; ++head) append.Store(head, rotated);
    }
  });
}

std::string MissingAppend(const RopeAppendOp::Desc& desc) {
  const std::string kv = MissingKv(desc.kv);
  if (!kv.empty()) return kv;
  if (desc.rotary_dim < 0 || desc.rotary_dim % 2 != 0 || desc.rotary_dim > desc.kv.head_dim) {
    return absl::StrCat("rotary_dim ", desc.rotary_dim, " (even, at most head_dim)");
  }
  return "";
}

namespace {

template <CpuIsa isa>
void Run(ExecContext& context, const RopeAppendOp::Params& p) {
  AppendRows(context, p, Micro<isa>::kAttention);
}

}  // namespace

void Register_rope_append(Registry& registry) {
  registry.Add<RopeAppendOp>("rope_append", MissingAppend, Run<CpuIsa::kAvx512>,
                             Run<CpuIsa::kAvx2>);
}

}  // namespace tessera::kernels::cpu
