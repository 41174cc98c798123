// y = epilogue(x W^T + bias + addend): every matrix product of every block.
//
// Arithmetic, per weight type, the same for any number of rows, kernel and (integer types)
// instruction set, so that a row's bits never depend on its neighbours:
//   block formats (block_format.h), x on the grid of Activation::q8: acc = 0; for each group g of
//   32
//               in order:
//                 acc = fma(float(isum), (d * scale) * d_x, acc)
//               and where the format has minima
//                 acc = fma(m, d_x * float(sum_x), acc)                  Q4_1, Q5_1
//                 acc = fma(-(m * minimum), d_x * float(sum_x), acc)     Q4_K, Q5_K
//               isum is the exact integer sum of value * q over the group; scale is 1 where the
//               format has no integer scales; d * scale and m * minimum are exact. Q2_K, Q3_K,
//               Q6_K, whose sub-blocks are the halves h of a group:
//                 acc = fma(float(sum of scale_h * isum_h), d * d_x, acc)
//                 acc = fma(-m, d_x * float(sum of minimum_h * sum_x_h), acc)      Q2_K
//               with exact integer sums again.
//   F32, F16, BF16  acc = 0; for k in order: acc = fma(float(w[k]), x[k], acc)
//   F8_*, I8_*, I4_*  the same with w[k] = s * float(c[k] - z), one float32 product (the difference
//               is exact; weight_planes.h): the bits that an F32 weight of those values gives.
//   then acc += bias, acc += addend, then the epilogue.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "kernels/dtype.h"
#include "kernels/ops/activation.h"

namespace tessera::kernels {

enum class Epilogue : uint8_t {
  kStore,      // y = acc, activations
  kLogits,     // y = acc, float32
  kResidual,   // y += acc, float32
  kGatedSilu,  // y = silu(acc) * (x U^T + up_bias + up_addend), activations
  kGatedGeluTanh,
};

// One weight applied to a run of rows. A shared block is one task over all rows; private blocks of
// several chains are one task each, in one launch; q, k and v of one block are three tasks.
struct LinearTask {
  const std::byte* weight = nullptr;  // packed [out, in] (Backend::LinearLayout)
  const float* bias = nullptr;        // [out] or null
  const void* addend = nullptr;       // activations [rows, addend_stride] or null; rows as in x
  void* y = nullptr;                  // first column of this task's output; type by the epilogue
  int64_t y_stride = 0;               // elements between rows of y
  int64_t addend_stride = 0;
  int32_t out = 0;
  int32_t row_begin = 0;  // rows of x [row_begin, row_begin + row_count)
  int32_t row_count = 0;
  const float* norm = nullptr;    // normed: [in]
  const std::byte* up = nullptr;  // gated: the second weight, packed [out, in]
  const float* up_bias = nullptr;
  const void* up_addend = nullptr;
};

// Weights that a block puts into one launch: what a backend measures before the first step.
struct LinearGroup {
  static constexpr int kMaxOuts = 4;
  DType weight = DType::kF32;
  int64_t in = 0;
  std::array<int64_t, kMaxOuts> outs{};  // 0: no further one
  Epilogue epilogue = Epilogue::kStore;

  bool operator==(const LinearGroup&) const = default;
};

struct LinearOp {
  static constexpr const char* kName = "linear";
  struct Desc {
    DType weight = DType::kF32;
    int64_t in = 0;
    int64_t out = 0;
    // Fusions that a backend may lack; the block then runs the ops one by one.
    bool normed = false;  // x = the rms norm of norm.h over the residual stream
    bool gated = false;   // the gated epilogues
  };
  struct Params {
    Activation x;  // [rows, in]; normed: scratch of that size
    int32_t in = 0;
    std::span<const LinearTask> tasks;  // all of Desc.weight's type
    Epilogue epilogue = Epilogue::kStore;
    const int32_t* y_rows = nullptr;  // row of y for each row of x; null: the same row
    const float* residual = nullptr;  // normed: [*, in]
    const int32_t* x_rows = nullptr;  // normed: row of it for each row of x; null: the same row
    float epsilon = 0;                // normed
    void* up_scratch = nullptr;       // gated: activations [rows, out]
  };
};
[[nodiscard]] std::string Describe(const LinearOp::Desc& desc);
// True for the weight types whose arithmetic on the CPU is that of Activation::q8.
[[nodiscard]] bool WantsQuantizedRows(DType weight);

}  // namespace tessera::kernels
