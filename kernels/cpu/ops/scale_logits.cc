#include "absl/strings/str_cat.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/registry.h"

namespace tessera::kernels::cpu {
namespace {

// Elements of a row that a thread takes: few rows have many logits.
constexpr int64_t kPart = 4096;

template <CpuIsa isa>
void Run(ExecContext& context, const ScaleLogitsOp::Params& p) {
  const int64_t parts = (p.vocab + kPart - 1) / kPart;
  const double ns = (p.softcap > 0 ? 1.0 : 0.1) * p.vocab * p.rows;
  ForShares(context, parts * p.rows, ns, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t at = i % parts * kPart;
      Micro<isa>::kRow.scale_and_cap(p.logits + i / parts * p.stride + at,
                                     std::min<int64_t>(kPart, p.vocab - at), p.scale, p.softcap);
    }
  });
}

std::string Missing(const ScaleLogitsOp::Desc& desc) {
  return desc.vocab > 0 ? "" : absl::StrCat("vocab ", desc.vocab);
}

}  // namespace

void Register_scale_logits(Registry& registry) {
  registry.Add<ScaleLogitsOp>("scale_logits", Missing, Run<CpuIsa::kAvx512>, Run<CpuIsa::kAvx2>);
}

}  // namespace tessera::kernels::cpu
