// y = epilogue(x W^T + bias + addend) for every weight type in its canonical bytes and any number
// of rows: the product that serves what the specialised kernels refuse, and their reference.
//
// Arithmetic: weights are decoded to float32 (weight_decode.cuh). Up to eight rows are multiplied
// in float32; more rows on the tensor cores, the weight as the sum of two bf16 numbers (relative
// error of a weight at most 2^-17; none for bf16, f16 and the codes of 8 bits or fewer whose scale
// lets them fit), accumulated in float32. A row's bits depend on which of the two serves it, not on
// the other rows.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/dtype.h"

namespace tessera::kernels::cuda {

enum class GenericEpilogue : uint8_t {
  kStore,       // bf16 y = acc
  kStoreFloat,  // float32 y = acc
  kResidual,    // float32 y += acc
};

inline constexpr int32_t kGenericFewRows = 8;

// Which of the two kernels runs.
enum class GenericMethod : uint8_t {
  kByRows,  // up to eight rows that for few, else that for many
  kFew,     // at most eight rows
  kMany,    // any number
};

// All pointers are device pointers; x begins at 16 bytes.
struct GenericLinearArgs {
  DType dtype = DType::kBF16;
  const std::byte* weight = nullptr;      // [out, in] canonical bytes, constant
  const __nv_bfloat16* x = nullptr;       // [rows, x_stride]
  int64_t x_stride = 0;                   // elements, a multiple of 8
  const float* bias = nullptr;            // [out] or null
  const __nv_bfloat16* addend = nullptr;  // [rows, addend_stride] or null
  int64_t addend_stride = 0;              // elements
  void* y = nullptr;                      // bf16 or float32, [*, y_stride]
  int64_t y_stride = 0;                   // elements
  const int32_t* y_rows = nullptr;        // row of y for each row of x, distinct; null: the same
  GenericEpilogue epilogue = GenericEpilogue::kStore;
  GenericMethod method = GenericMethod::kByRows;
  int32_t rows = 0;  // >= 1
  int32_t in = 0;
  int32_t out = 0;  // >= 1
};

// "" or what is lacking: `in` is a multiple of the type's group, of 32 for GGUF's blocks, of 8 for
// the others.
[[nodiscard]] std::string MissingGenericLinear(DType dtype, int64_t in, int64_t out);
// cudaErrorInvalidValue for more than eight rows by kFew.
cudaError_t LaunchGenericLinear(const GenericLinearArgs& args, cudaStream_t stream);

}  // namespace tessera::kernels::cuda
