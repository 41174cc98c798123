#include "absl/strings/str_cat.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/registry.h"

namespace tessera::kernels::cpu {
namespace {

template <CpuIsa isa>
void Run(ExecContext& context, const RmsNormOp::Params& p) {
  auto* y = static_cast<float*>(p.y);
  for (const RmsNormTask& task : p.tasks) {
    const double ns = 0.15 * p.width * task.row_count;
    ForShares(context, task.row_count, ns, [&](int64_t begin, int64_t end, int) {
      for (int64_t row = task.row_begin + begin; row < task.row_begin + end; ++row) {
        const int64_t from = p.x_rows != nullptr ? p.x_rows[row] : row;
        Micro<isa>::kRow.rms_norm(p.x + from * p.width, task.weight, y + row * p.width, p.width,
                                  p.epsilon);
      }
    });
  }
}

std::string Missing(const RmsNormOp::Desc& desc) {
  return desc.width > 0 ? "" : absl::StrCat("width ", desc.width);
}

}  // namespace

void Register_rms_norm(Registry& registry) {
  registry.Add<RmsNormOp>("rms_norm", Missing, Run<CpuIsa::kAvx512>, Run<CpuIsa::kAvx2>);
}

}  // namespace tessera::kernels::cpu
