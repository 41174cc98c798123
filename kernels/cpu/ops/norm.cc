#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/ops/quantize_row.h"
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

// The rows [begin, end) of those of all tasks.
template <CpuIsa isa>
void RunRows(const NormOp::Params& p, int64_t begin, int64_t end) {
  const auto* x = static_cast<const float*>(p.x);
  auto* y = static_cast<float*>(p.y);
  const int64_t width = int64_t{p.groups} * p.width;
  for (const NormTask& task : p.tasks) {
    const int64_t from = std::max<int64_t>(begin, 0);
    const int64_t to = std::min<int64_t>(end, task.row_count);
    for (int64_t row = task.row_begin + from; row < task.row_begin + to; ++row) {
      const int64_t x_row = p.x_rows != nullptr ? p.x_rows[row] : row;
      RunRow<isa>(p, task, x + x_row * width, y + row * width);
      if (p.q8.q != nullptr) QuantizeRow<isa>(y + row * width, p.q8, row, width);
    }
    begin -= task.row_count;
    end -= task.row_count;
  }
}

template <CpuIsa isa>
void Run(ExecContext& context, const NormOp::Params& p) {
  int64_t rows = 0;
  for (const NormTask& task : p.tasks) rows += task.row_count;
  const double each = p.q8.q != nullptr ? 0.4 : 0.15;
  ForShares(context, rows, each * p.groups * p.width * static_cast<double>(rows),
            [&](int64_t begin, int64_t end, int) { RunRows<isa>(p, begin, end); });
}

std::string Missing(const NormOp::Desc& desc) {
  if (desc.width <= 0 || desc.width > INT32_MAX) return absl::StrCat("width ", desc.width);
  if (desc.groups <= 0 || desc.groups > INT32_MAX) return absl::StrCat("groups ", desc.groups);
  return desc.quantized ? MissingGrid(desc.groups * desc.width) : "";
}

}  // namespace

void Register_norm(Registry& registry) {
  registry.Add<NormOp>("norm", Missing, Run<CpuIsa::kAvx512>, Run<CpuIsa::kAvx2>);
}

}  // namespace tessera::kernels::cpu
