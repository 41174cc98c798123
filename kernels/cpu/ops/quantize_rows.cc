#include "absl/strings/str_cat.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/registry.h"

namespace tessera::kernels::cpu {
namespace {

template <CpuIsa isa>
void Run(ExecContext& context, const QuantizeRowsOp::Params& p) {
  const int64_t groups = p.width / kQuantGroup;
  ForShares(context, p.rows, 0.3 * p.width * p.rows, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      Micro<isa>::kRow.quantize(p.x + row * p.width, p.out.q + row * p.width,
                                p.out.scale + row * groups, p.out.sum + row * groups * 2, p.width);
    }
  });
}

std::string Missing(const QuantizeRowsOp::Desc& desc) {
  if (desc.width > 0 && desc.width % kQuantGroup == 0) return "";
  return absl::StrCat("width ", desc.width, " (a multiple of ", kQuantGroup, ")");
}

}  // namespace

void Register_quantize_rows(Registry& registry) {
  registry.Add<QuantizeRowsOp>("quantize_rows", Missing, Run<CpuIsa::kAvx512>, Run<CpuIsa::kAvx2>);
}

}  // namespace tessera::kernels::cpu
