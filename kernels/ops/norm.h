// Norms of rows, or of each of the `groups` equal parts of a row (the heads of a query), w being
// the number of elements of a part:
//   kNone   y = x
//   kRms    y = (x * (1 / sqrt(sum(x^2) / w + epsilon))) * weight
//   kLayer  c = x - sum(x) / w; y = (c * (1 / sqrt(sum(c^2) / w + epsilon))) * weight + bias
// A sum is taken in 16 lanes (lane = column mod 16, columns in order; squares by fused
// multiply-add), then lanes 0..15 are added pairwise (i + i+8, i + i+4, i + i+2, i + i+1): the same
// bits on every instruction set.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "kernels/ops/activation.h"

namespace tessera::kernels {

enum class NormKind : uint8_t { kNone, kRms, kLayer };
// What is normed: rows of the residual stream (float32), or activations.
enum class NormInput : uint8_t { kResidual, kActivations };

struct NormTask {
  const float* weight = nullptr;  // [width], or [groups, width]; null with kNone
  int32_t row_begin = 0;
  int32_t row_count = 0;
  const float* bias = nullptr;  // like weight; null: none
};

struct NormOp {
  static constexpr const char* kName = "norm";
  struct Desc {
    NormKind kind = NormKind::kRms;
    int64_t width = 0;
    int64_t groups = 1;
    NormInput input = NormInput::kResidual;
    bool quantized = false;  // also onto the int8 grid, in the same pass; a backend may lack it
  };
  struct Params {
    NormKind kind = NormKind::kRms;
    std::span<const NormTask> tasks;
    const void* x = nullptr;          // [*, groups, width]
    const int32_t* x_rows = nullptr;  // row of x for each row; null: the same row
    void* y = nullptr;                // [rows, groups, width] activations; may be x
    int32_t width = 0;
    int32_t groups = 1;
    int32_t weight_stride = 0;  // elements from a group's weight to the next one's: 0 or width
    float epsilon = 1e-5f;
    QuantizedRows q8;  // with Desc::quantized: of y, whose rows are then multiples of 32
  };
};
[[nodiscard]] std::string Describe(const NormOp::Desc& desc);

}  // namespace tessera::kernels
