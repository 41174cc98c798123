#include "kernels/cpu/parallel.h"
#include "kernels/cpu/registry.h"

namespace tessera::kernels::cpu {
namespace {

template <CpuIsa isa>
void Run(ExecContext& context, const PageStatsOp::Params& p) {
  const int64_t element = p.kv.dtype == DType::kF32 ? 4 : 2;
  const int64_t head_dim = p.kv.head_dim;
  const int64_t units = static_cast<int64_t>(p.pages.size()) * p.kv.kv_heads;
  const double ns = 20.0 * static_cast<double>(units * head_dim);
  ForShares(context, units, ns, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      std::byte* page = PageAddress(p.arena, p.pages[static_cast<size_t>(i / p.kv.kv_heads)]);
      const int64_t head = i % p.kv.kv_heads;
      float* statistics = reinterpret_cast<float*>(page + p.kv.statistics_offset()) +
                          head * (kPageTokens / kLogicalPageTokens) * 2 * head_dim;
      Micro<isa>::kAttention.page_stats[static_cast<int>(p.kv.dtype)](
          page + head * head_dim * kPageTokens * element, statistics, p.kv.head_dim);
    }
  });
}

std::string Missing(const PageStatsOp::Desc& desc) {
  const std::string kv = MissingKv(desc.kv);
  if (!kv.empty()) return kv;
  return desc.kv.key_statistics ? "" : "pages without statistics";
}

}  // namespace

void Register_page_stats(Registry& registry) {
  registry.Add<PageStatsOp>("page_stats", Missing, Run<CpuIsa::kAvx512>, Run<CpuIsa::kAvx2>);
}

}  // namespace tessera::kernels::cpu
