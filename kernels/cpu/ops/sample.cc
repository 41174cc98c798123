#include "absl/strings/str_cat.h"
#include "kernels/cpu/ops/sample_row.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/registry.h"

namespace tessera::kernels::cpu {
namespace {

template <CpuIsa isa>
void Run(ExecContext& context, const SampleOp::Params& p) {
  const int64_t rows = static_cast<int64_t>(p.rows.size());
  const double ns = 0.3 * static_cast<double>(rows) * p.vocab;
  ForEachTaken(context, rows, ns, [&](auto next, int thread) {
    for (int64_t i = next(); i < rows; i = next()) {
      SampleRowToToken(Micro<isa>::kSample, p.rows[static_cast<size_t>(i)], p.vocab,
                       context.scratch(thread), p.results + i,
                       p.top != nullptr ? p.top + i * p.top_stride : nullptr);
      const int32_t slot = p.rows[static_cast<size_t>(i)].slot;
      if (p.drawn != nullptr && slot >= 0) p.drawn[slot] = p.results[i].token;
    }
  });
}

std::string Missing(const SampleOp::Desc& desc) {
  return desc.vocab > 0 && desc.vocab <= INT32_MAX / 4 ? "" : absl::StrCat("vocab ", desc.vocab);
}

}  // namespace

void Register_sample(Registry& registry) {
  registry.Add<SampleOp>("sample", Missing, Run<CpuIsa::kAvx512>, Run<CpuIsa::kAvx2>);
}

}  // namespace tessera::kernels::cpu
