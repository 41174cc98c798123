#include "kernels/cpu/ops/quantize_row.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/registry.h"

namespace tessera::kernels::cpu {
namespace {

template <CpuIsa isa>
void Run(ExecContext& context, const QuantizeRowsOp::Params& p) {
  ForShares(context, p.rows, 0.3 * p.width * p.rows, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      QuantizeRow<isa>(p.x + row * p.width, p.out, row, p.width);
    }
  });
}

std::string Missing(const QuantizeRowsOp::Desc& desc) { return MissingGrid(desc.width); }

}  // namespace

void Register_quantize_rows(Registry& registry) {
  registry.Add<QuantizeRowsOp>("quantize_rows", Missing, Run<CpuIsa::kAvx512>, Run<CpuIsa::kAvx2>);
}

}  // namespace tessera::kernels::cpu
