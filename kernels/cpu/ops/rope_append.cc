#include "absl/strings/str_cat.h"
#include "config/foundation/fetching.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/registry.h"

namespace tessera::kernels::cpu {
namespace {

// A token's keys lie a line apart each, in a page that was last read long ago: all lines are asked
// for before the first is waited for. Neighbours in one page find them.
TESSERA_FETCHING void AskForKeys(const RopeAppendOp::Params& p, int64_t row, int64_t before) {
  if (!p.page[row].valid() || (before >= 0 && p.page[row] == p.page[before])) return;
  const int64_t element = p.kv.dtype == DType::kF32 ? 4 : 2;
  const std::byte* key = PageAddress(p.arena, p.page[row]) + p.slot[row] * element;
  const int64_t dims = int64_t{p.kv.kv_heads} * p.kv.head_dim;
  for (int64_t d = 0; d < dims; ++d, key += kPageTokens * element) __builtin_prefetch(key, 1);
}

template <CpuIsa isa>
void RunRow(const RopeAppendOp::Params& p, int64_t row, float* buffer) {
  const AttentionKernels& micro = Micro<isa>::kAttention;
  const int32_t head_dim = static_cast<int32_t>(p.kv.head_dim);
  const int64_t rotary = (p.rotary_rows != nullptr ? p.rotary_rows[row] : row) * (p.rotary_dim / 2);
  RopeCall call = {.cosine = p.cosine + rotary,
                   .sine = p.sine + rotary,
                   .heads = p.q_heads,
                   .head_dim = head_dim,
                   .rotary_dim = p.rotary_dim,
                   .interleaved = p.style == RopeStyle::kInterleaved ? 1 : 0};
  float* q = static_cast<float*>(p.q) + row * p.q_stride;
  micro.rotate(call, q, q);
  if (!p.page[row].valid()) return;
  const float* k = static_cast<const float*>(p.k) + row * p.kv_stride;
  const float* v = static_cast<const float*>(p.v) + row * p.kv_stride;
  const int64_t element = p.kv.dtype == DType::kF32 ? 4 : 2;
  std::byte* page = PageAddress(p.arena, p.page[row]);
  // Head by head: the buffer holds one rotated key.
  call.heads = 1;
  for (int64_t h = 0; h < p.kv.kv_heads; ++h) {
    const int64_t plane = h * head_dim * kPageTokens * element;
    micro.rotate(call, k + h * head_dim, buffer);
    micro.store_kv[static_cast<int>(p.kv.dtype)](
        buffer, v + h * head_dim, page + plane,
        page + static_cast<int64_t>(p.kv.v_offset()) + plane, 1, head_dim, p.slot[row]);
  }
}

template <CpuIsa isa>
void Run(ExecContext& context, const RopeAppendOp::Params& p) {
  const double ns = 0.5 * p.rows * p.kv.head_dim * (p.q_heads + 2.0 * p.kv.kv_heads);
  ForShares(context, p.rows, ns, [&](int64_t begin, int64_t end, int thread) {
    float* buffer = reinterpret_cast<float*>(context.scratch(thread));
    AskForKeys(p, begin, -1);
    for (int64_t row = begin; row < end; ++row) {
      if (row + 1 < end) AskForKeys(p, row + 1, row);
      RunRow<isa>(p, row, buffer);
    }
  });
}

std::string Missing(const RopeAppendOp::Desc& desc) {
  const std::string kv = MissingKv(desc.kv);
  if (!kv.empty()) return kv;
  if (desc.rotary_dim < 0 || desc.rotary_dim % 2 != 0 || desc.rotary_dim > desc.kv.head_dim) {
    return absl::StrCat("rotary_dim ", desc.rotary_dim, " (even, at most head_dim)");
  }
  return "";
}

}  // namespace

void Register_rope_append(Registry& registry) {
  registry.Add<RopeAppendOp>("rope_append", Missing, Run<CpuIsa::kAvx512>, Run<CpuIsa::kAvx2>);
}

}  // namespace tessera::kernels::cpu
