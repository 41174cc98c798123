#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/registry.h"

namespace tessera::kernels::cpu {
namespace {

// Columns that a thread takes at once: their sums stay in the nearest cache.
constexpr int64_t kColumns = 256;

void Run(ExecContext& context, const PoolRowsOp::Params& p) {
  const auto* x = static_cast<const float*>(p.x);
  const int64_t width = p.width;
  const int64_t parts = (width + kColumns - 1) / kColumns;
  double rows = 0;
  for (const PoolRowsTask& task : p.tasks) rows += task.row_count;
  const auto units = static_cast<int64_t>(p.tasks.size()) * parts;
  ForShares(context, units, 0.3 * rows * static_cast<double>(width),
            [&](int64_t begin, int64_t end, int) {
              for (int64_t unit = begin; unit < end; ++unit) {
                const PoolRowsTask& task = p.tasks[static_cast<size_t>(unit / parts)];
                const int64_t from = unit % parts * kColumns;
                const int64_t to = std::min(width, from + kColumns);
                for (int64_t row = task.row_begin; row < task.row_begin + task.row_count; ++row) {
                  const float* values = x + row * width;
                  for (int64_t c = from; c < to; ++c) task.sum[c] += double{values[c]};
                }
              }
            });
}

std::string Missing(const PoolRowsOp::Desc& desc) {
  return desc.width > 0 ? "" : absl::StrCat("width ", desc.width);
}

}  // namespace

void Register_pool_rows(Registry& registry) {
  registry.Add<PoolRowsOp>("pool_rows", Missing, Run, Run);
}

}  // namespace tessera::kernels::cpu
