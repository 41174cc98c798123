// y = (x * (1 / sqrt(mean(x^2) + eps))) * weight, row by row. The sum of squares is taken in 16
// lanes (lane = column mod 16, columns in order, fused multiply-add), then lanes 0..15 are added
// pairwise (i + i+8, i + i+4, i + i+2, i + i+1): the same bits on every instruction set.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace tessera::kernels {

struct RmsNormTask {
  const float* weight = nullptr;  // [width]
  int32_t row_begin = 0;
  int32_t row_count = 0;
};

struct RmsNormOp {
  static constexpr const char* kName = "rms_norm";
  struct Desc {
    int64_t width = 0;
  };
  struct Params {
    std::span<const RmsNormTask> tasks;
    const float* x = nullptr;         // [*, width]
    const int32_t* x_rows = nullptr;  // row of x for each row; null: the same row
    void* y = nullptr;                // [rows, width] activations
    int32_t width = 0;
    float epsilon = 1e-5f;
  };
};
[[nodiscard]] std::string Describe(const RmsNormOp::Desc& desc);

}  // namespace tessera::kernels
