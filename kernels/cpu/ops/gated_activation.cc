#include "kernels/cpu/parallel.h"
#include "kernels/cpu/registry.h"

namespace tessera::kernels::cpu {
namespace {

template <CpuIsa isa>
void Run(ExecContext& context, const GatedActivationOp::Params& p) {
  const auto* gate = static_cast<const float*>(p.gate);
  const auto* up = static_cast<const float*>(p.up);
  auto* y = static_cast<float*>(p.y);
  // Shares in whole vectors: a row is no unit of this arithmetic.
  const int64_t count = int64_t{p.rows} * p.width;
  const int64_t vectors = (count + 15) / 16;
  ForShares(context, vectors, 0.5 * static_cast<double>(count),
            [&](int64_t begin, int64_t end, int) {
              const int64_t from = begin * 16;
              const int64_t to = std::min(count, end * 16);
              Micro<isa>::kRow.activation[static_cast<int>(p.kind)](
                  gate + from, up == nullptr ? nullptr : up + from, y + from, to - from);
            });
}

std::string Missing(const GatedActivationOp::Desc& /*desc*/) { return ""; }

}  // namespace

void Register_gated_activation(Registry& registry) {
  registry.Add<GatedActivationOp>("gated_activation", Missing, Run<CpuIsa::kAvx512>,
                                  Run<CpuIsa::kAvx2>);
}

}  // namespace tessera::kernels::cpu
