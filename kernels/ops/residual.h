// y[r] += scale * x[r], or y[r] = scale * x[r], for the rows r that are named: how what a block
// made joins the residual stream where its last product cannot add it itself. Product and sum are
// rounded apart.
#pragma once

#include <cstdint>
#include <string>

namespace tessera::kernels {

enum class ResidualMode : uint8_t { kAdd, kStore };

struct ResidualOp {
  static constexpr const char* kName = "residual";
  struct Desc {
    int64_t width = 0;
    ResidualMode mode = ResidualMode::kAdd;
  };
  struct Params {
    ResidualMode mode = ResidualMode::kAdd;
    const void* x = nullptr;          // [rows, width] activations
    const int32_t* y_rows = nullptr;  // row of y for each row; null: the same row
    float* y = nullptr;               // [*, width]
    int32_t rows = 0;
    int32_t width = 0;
    float scale = 1.0f;
  };
};
[[nodiscard]] std::string Describe(const ResidualOp::Desc& desc);

}  // namespace tessera::kernels
