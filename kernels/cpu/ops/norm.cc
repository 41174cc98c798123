#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/registry.h"

namespace tessera::kernels::cpu {
namespace {

template <CpuIsa isa>
void RunRow(const NormOp::Params& p, const NormTask& task, const float* x, float* y) {
  for (int64_t g = 0; g < p.groups; ++g, x += p.width, y += p.width) {
    const int64_t at = g * p.weight_stride;
    switch (p.kind) {
      case NormKind::kNone:
        if (x != y) std::memcpy(y, x, static_cast<size_t>(p.width) * sizeof(float));
        break;
      case NormKind::kRms:
        Micro<isa>::kRow.rms_norm(x, task.weight + at, y, p.width, p.epsilon);
        break;
      case NormKind::kLayer:
        Micro<isa>::kRow.layer_norm(x, task.weight + at,
                                    task.bias == nullptr ? nullptr : task.bias + at, y, p.width,
                                    p.epsilon);
        break;
    }
  }
}

template <CpuIsa isa>
void Run(ExecContext& context, const NormOp::Params& p) {
  const auto* x = static_cast<const float*>(p.x);
  auto* y = static_cast<float*>(p.y);
  const int64_t width = int64_t{p.groups} * p.width;
  for (const NormTask& task : p.tasks) {
    const double ns = 0.15 * static_cast<double>(width) * task.row_count;
    ForShares(context, task.row_count, ns, [&](int64_t begin, int64_t end, int) {
      for (int64_t row = task.row_begin + begin; row < task.row_begin + end; ++row) {
        const int64_t from = p.x_rows != nullptr ? p.x_rows[row] : row;
        RunRow<isa>(p, task, x + from * width, y + row * width);
      }
    });
  }
}

std::string Missing(const NormOp::Desc& desc) {
  if (desc.width <= 0 || desc.width > INT32_MAX) return absl::StrCat("width ", desc.width);
  return desc.groups > 0 && desc.groups <= INT32_MAX ? "" : absl::StrCat("groups ", desc.groups);
}

}  // namespace

void Register_norm(Registry& registry) {
  registry.Add<NormOp>("norm", Missing, Run<CpuIsa::kAvx512>, Run<CpuIsa::kAvx2>);
}

}  // namespace tessera::kernels::cpu
