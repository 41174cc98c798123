// The small kernels around a cuBLASLt product: weights to bf16, rows to e4m3, and what a product's
// own epilogue cannot do. Internal to linear/gemm*; every launch can be captured in a graph.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "kernels/dtype.h"

namespace tessera::kernels::cuda {

enum class Int4Layout : uint8_t;

// Output channels [out_begin, out_begin + out_count) of a weight with planes, as bf16
// [out_count, in]: each element is s * (c - z) in float32, rounded once. kI8Channel and the e4m3
// types want `in` in multiples of 8, int4 types in multiples of their group.
struct DequantizeArgs {
  DType dtype = DType::kI8Channel;
  Int4Layout layout{};  // of an int4 type; the others are canonical
  const std::byte* weight = nullptr;
  int32_t out = 0;  // of the whole weight
  int32_t in = 0;
  int32_t out_begin = 0;
  int32_t out_count = 0;
  __nv_bfloat16* w = nullptr;
};
cudaError_t LaunchDequantize(const DequantizeArgs& args, cudaStream_t stream);

// Rows of bf16 on the e4m3 grid: scale = amax / 448, code = x * (448 / amax) rounded to nearest
// even; both 0 where amax < 1e-36. A not-a-number stays one; an infinity makes its row (or group)
// not a number. Rows [rows, padded_rows) become zeros. `in` is a multiple of 16.
struct QuantizeE4m3Args {
  const __nv_bfloat16* x = nullptr;  // [rows, in]
  int32_t rows = 0;
  int32_t padded_rows = 0;
  int32_t in = 0;
  uint8_t* codes = nullptr;  // [padded_rows, in]
  float* scales = nullptr;   // of rows: [padded_rows]; of groups: [ceil(in / 128), padded_rows]
};
// A scale for each row.
cudaError_t LaunchQuantizeE4m3Rows(const QuantizeE4m3Args& args, cudaStream_t stream);
// A scale for each 128 elements of a row.
cudaError_t LaunchQuantizeE4m3Groups(const QuantizeE4m3Args& args, cudaStream_t stream);

// y[y_rows[r]] (+)= product[r] + bias + addend[r], in float32, rounded once.
struct FinishArgs {
  const float* product = nullptr;  // [rows, product_stride], or null: zeros
  int64_t product_stride = 0;
  const float* bias = nullptr;            // [out] or null
  const __nv_bfloat16* addend = nullptr;  // [rows, addend_stride] or null
  int64_t addend_stride = 0;
  const int32_t* y_rows = nullptr;  // [rows] or null: the same row
  int64_t y_stride = 0;
  int32_t rows = 0;
  int32_t out = 0;
};
cudaError_t LaunchFinishStore(const FinishArgs& args, __nv_bfloat16* y, cudaStream_t stream);
cudaError_t LaunchFinishStore(const FinishArgs& args, float* y, cudaStream_t stream);
cudaError_t LaunchFinishAdd(const FinishArgs& args, float* y, cudaStream_t stream);

cudaError_t LaunchFloatToBf16(const float* from, __nv_bfloat16* to, int32_t count,
                              cudaStream_t stream);
// [rows, columns] floats to [rows, stride], zeros behind.
cudaError_t LaunchPadColumns(const float* from, float* to, int32_t rows, int32_t columns,
                             int32_t stride, cudaStream_t stream);

// Operands for a trial run: random values of the format, the same in each period of
// `period_bytes` (a multiple of 4).
enum class TrialFormat : uint8_t { kBf16, kE4m3, kFloat };
cudaError_t LaunchFillTrial(void* to, size_t bytes, size_t period_bytes, TrialFormat format,
                            cudaStream_t stream);
// Keeps the stream busy for a while, so that what is launched meanwhile runs without gaps.
cudaError_t LaunchDelay(int32_t nanoseconds, cudaStream_t stream);
// Adds to *count the 16-bit words of `d` [rows, words] that differ from `reference`
// [period, words] at row % period.
cudaError_t LaunchCountDifferences(const uint16_t* d, const uint16_t* reference, int32_t rows,
                                   int32_t period, int32_t words, uint32_t* count,
                                   cudaStream_t stream);

}  // namespace tessera::kernels::cuda
