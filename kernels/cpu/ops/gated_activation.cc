#include "kernels/cpu/ops/quantize_row.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/registry.h"

namespace tessera::kernels::cpu {
namespace {

template <CpuIsa isa>
void Run(ExecContext& context, const GatedActivationOp::Params& p) {
  const auto* gate = static_cast<const float*>(p.gate);
  const auto* up = static_cast<const float*>(p.up);
  auto* y = static_cast<float*>(p.y);
  const auto some = [&](int64_t from, int64_t to) {
    Micro<isa>::kRow.activation[static_cast<int>(p.kind)](
        gate + from, up == nullptr ? nullptr : up + from, y + from, to - from);
  };
  const int64_t count = int64_t{p.rows} * p.width;
  if (p.q8.q != nullptr) {
    ForShares(context, p.rows, 0.8 * static_cast<double>(count),
              [&](int64_t begin, int64_t end, int) {
                for (int64_t row = begin; row < end; ++row) {
                  some(row * p.width, (row + 1) * p.width);
                  QuantizeRow<isa>(y + row * p.width, p.q8, row, p.width);
                }
              });
    return;
  }
  // Shares in whole vectors: a row is no unit of this arithmetic.
  const int64_t vectors = (count + 15) / 16;
  ForShares(context, vectors, 0.5 * static_cast<double>(count),
            [&](int64_t begin, int64_t end, int) { some(begin * 16, std::min(count, end * 16)); });
}

// The grid's groups of 32 are asked for by who gives the width.
std::string Missing(const GatedActivationOp::Desc& /*desc*/) { return ""; }

}  // namespace

void Register_gated_activation(Registry& registry) {
  registry.Add<GatedActivationOp>("gated_activation", Missing, Run<CpuIsa::kAvx512>,
                                  Run<CpuIsa::kAvx2>);
}

}  // namespace tessera::kernels::cpu
