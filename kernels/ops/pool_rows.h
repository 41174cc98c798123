// sum[c] += x[row][c] over a task's rows in their order, in float64: what pooling adds up of a
// sequence. Sums do not depend on how its rows are cut into launches.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace tessera::kernels {

struct PoolRowsTask {
  double* sum = nullptr;  // [width]; of one task alone
  int32_t row_begin = 0;
  int32_t row_count = 0;
};

struct PoolRowsOp {
  static constexpr const char* kName = "pool_rows";
  struct Desc {
    int64_t width = 0;
  };
  struct Params {
    std::span<const PoolRowsTask> tasks;
    const void* x = nullptr;  // [rows, width] activations
    int32_t width = 0;
  };
};
[[nodiscard]] std::string Describe(const PoolRowsOp::Desc& desc);

}  // namespace tessera::kernels
