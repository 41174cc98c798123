#include "absl/strings/str_cat.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/registry.h"

namespace tessera::kernels::cpu {
namespace {

void Run(ExecContext& context, const ResidualOp::Params& p) {
  const auto* x = static_cast<const float*>(p.x);
  const double ns = 0.15 * p.width * p.rows;
  ForShares(context, p.rows, ns, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const float* from = x + row * p.width;
      float* to = p.y + int64_t{p.y_rows != nullptr ? p.y_rows[row] : row} * p.width;
      if (p.mode == ResidualMode::kAdd) {
        for (int32_t i = 0; i < p.width; ++i) to[i] += p.scale * from[i];
      } else {
        for (int32_t i = 0; i < p.width; ++i) to[i] = p.scale * from[i];
      }
    }
  });
}

std::string Missing(const ResidualOp::Desc& desc) {
  return desc.width > 0 ? "" : absl::StrCat("width ", desc.width);
}

}  // namespace

void Register_residual(Registry& registry) {
  registry.Add<ResidualOp>("residual", Missing, Run, Run);
}

}  // namespace tessera::kernels::cpu
