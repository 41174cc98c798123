// What surrounds the products of experts (route_experts.h): rows gathered by slot, the clamped gate
// of gpt-oss, and the weighted sum that goes back to the residual stream.
#pragma once

#include <cstdint>
#include <string>

namespace tessera::kernels {

// y[i] = x[rows[i]].
struct GatherRowsOp {
  static constexpr const char* kName = "gather_rows";
  struct Desc {
    int64_t width = 0;
  };
  struct Params {
    const void* x = nullptr;        // [*, width] activations
    const int32_t* rows = nullptr;  // [count]
    void* y = nullptr;              // [count, width] activations
    int32_t count = 0;
    int32_t width = 0;
  };
};
[[nodiscard]] std::string Describe(const GatherRowsOp::Desc& desc);

// y = (u + 1) * (g / (1 + exp(-alpha * g))), g = min(gate, limit), u = up within [-limit, limit].
struct ClampedSwigluOp {
  static constexpr const char* kName = "clamped_swiglu";
  struct Desc {
    float limit = 0;  // above 0
  };
  struct Params {
    const void* gate = nullptr;  // [count] activations
    const void* up = nullptr;    // [count] activations
    void* y = nullptr;           // [count] activations; may be `gate` or `up`
    int64_t count = 0;
    float limit = 0;
    float alpha = 0;
  };
};
[[nodiscard]] std::string Describe(const ClampedSwigluOp::Desc& desc);

// residual[r] += scale * (sum over the row's experts in order of choice of weight * output, from 0,
// then the shared experts' output, which 1 / (1 + exp(-shared_logit)) multiplies where there is
// one). Every product and sum is rounded to float32.
struct CombineExpertsOp {
  static constexpr const char* kName = "combine_experts";
  struct Desc {
    int64_t width = 0;
  };
  struct Params {
    const void* outputs = nullptr;        // [slots, width] activations
    const int32_t* slot_of = nullptr;     // [rows, used]
    const float* weights = nullptr;       // [rows, used]
    const void* shared = nullptr;         // [rows, width] activations or null
    const float* shared_logit = nullptr;  // [rows] or null
    float* residual = nullptr;            // [*, width]
    const int32_t* y_rows = nullptr;      // row of it for each row; null: the same row
    int32_t rows = 0;
    int32_t used = 0;
    int32_t width = 0;
    float scale = 1.0f;
  };
};
[[nodiscard]] std::string Describe(const CombineExpertsOp::Desc& desc);

}  // namespace tessera::kernels
