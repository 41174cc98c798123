// y = epilogue(x W^T + bias + addend) for 1..64 rows: the matrix products of decoding, which read
// every weight once and take as long as device memory needs for that.
//
// Arithmetic. x is bfloat16 and a weight enters the product exactly: the integer or e4m3 code as it
// is (bfloat16 holds all of them), times its scale in float32 behind the sum over its row (channel
// scales) or behind the sum over 64 or 128 neighbours (group and block scales). Up to 8 rows with
// e4m3 codes are multiplied in float16, x less a power of two; with integer codes as two 8-bit
// digits of x in exact integer sums of 128 columns, where x loses at most 2^-15 of the largest of
// the columns (skinny_few_input.cuh). Where x is given as codes (row_codes.h) these are multiplied
// with the weights' codes: x has then lost what codes lose of it. Sums are float32, in the tensor
// cores' order; a row of weights is cut along `in` among multiprocessors or warps, whose sums are
// added in a fixed order. Codes 0x7f and 0xff of e4m3 are not a number or, by the kernels of more
// rows, +-480. A row's bits depend neither on the other rows nor, between calls with the same tasks
// on the same device, on the number of rows within a class: 1..8
// (int4: 1..4, 5..8), 9..16, 17..32, 33..64; kFixed: 1..64.
//
// Layouts. kBF16, kF8Channel, kF8Block128 and kI8Channel are read in canonical bytes
// (weight_planes.h), the int4 types packed as skinny_int4.h says.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "kernels/cuda/row_codes.h"
#include "kernels/dtype.h"

namespace tessera::kernels::cuda {

inline constexpr int kSkinnyMaxRows = 64;
inline constexpr int kSkinnyMaxTasks = 4;

enum class SkinnyEpilogue : uint8_t {
  kStore,          // bfloat16 y = acc
  kStoreFloat,     // float32 y = acc
  kResidual,       // float32 y += acc
  kGatedSilu,      // bfloat16 y = silu(acc) * acc of `up`
  kGatedGeluTanh,  // bfloat16 y = gelu_tanh(acc) * acc of `up`
};

// Which kernel runs.
enum class SkinnyMethod : uint8_t {
  kByRows,  // that of the rows' class
  kFixed,   // that of 64 rows, for any number of them
};

// What of a multiprocessor's shared memory a block takes.
enum class SkinnyPlace : uint8_t {
  kAlone,   // more than half: no two blocks of the launch crowd where there is room first
  kBeside,  // what is left: only right behind a launch that has one of those everywhere
};

// One weight. All pointers are device pointers; weights are aligned to 16 bytes.
struct SkinnyTask {
  const std::byte* weight = nullptr;         // [out, in]
  const std::byte* up = nullptr;             // [out, in] of the gated epilogues, else null
  const float* bias = nullptr;               // [out] or null
  const float* up_bias = nullptr;            // [out] or null
  const __nv_bfloat16* addend = nullptr;     // [rows, addend_stride] or null
  const __nv_bfloat16* up_addend = nullptr;  // [rows, addend_stride] or null
  int64_t addend_stride = 0;                 // elements
  void* y = nullptr;                         // first column of this task's output
  int64_t y_stride = 0;                      // elements between rows of y
  int32_t out = 0;
};

struct SkinnyArgs {
  DType dtype = DType::kBF16;  // of every task
  int32_t in = 0;
  int32_t rows = 0;
  const __nv_bfloat16* x = nullptr;  // [rows, in], aligned to 16 bytes
  // Where codes are given instead: products are of codes, kByRows alone. kE4m3Rows: of kF8Channel
  // where SkinnyKeepsCodes does not say otherwise; else the kind that this says, scales at 16
  // bytes. Sums of e4m3 are added in float for each 128 of `in`; those of int8 are exact in a
  // group.
  RowCodes x_codes;  // [rows, in]
  // Where both are null, the input is rmsnorm(residual), which SkinnyFusesNorm must allow (kFixed
  // never does it: few rows would have other arithmetic than many): elements times norm_weight are
  // rounded to bfloat16, 1 / sqrt(mean of squares + epsilon) scales the sums.
  const float* residual = nullptr;     // [*, in], aligned to 16 bytes; must not be written (no y)
  const float* norm_weight = nullptr;  // [in], aligned to 16 bytes
  float epsilon = 1e-5f;
  const int32_t* x_rows = nullptr;  // row of residual for each row; null: the same row
  SkinnyTask tasks[kSkinnyMaxTasks];
  int32_t task_count = 0;
  SkinnyEpilogue epilogue = SkinnyEpilogue::kStore;
  SkinnyMethod method = SkinnyMethod::kByRows;
  SkinnyPlace place = SkinnyPlace::kAlone;
  const int32_t* y_rows = nullptr;  // row of y for each row, all different; null: the same row
  // SkinnyWorkspaceBytes of device memory, aligned to 256 bytes, zeroed once before the first
  // launch. One launch at a time may use it: launches of one stream share one, whatever their
  // order.
  std::byte* workspace = nullptr;
};

// For the current device and any arguments.
[[nodiscard]] size_t SkinnyWorkspaceBytes();

// "" if a task of this shape can be launched, else what is missing ("in 100: want a multiple of
// 64"). `in` 64..65536 in multiples of 64 (128 with groups of 128), `out` 1..524288, rows 1..64.
[[nodiscard]] std::string MissingSkinny(DType dtype, int64_t in, int64_t out, int64_t rows);

// Whether a launch of `rows` may normalise its input by itself.
[[nodiscard]] bool SkinnyFusesNorm(int64_t rows, int64_t in);

// Whether rows of the weights of such a launch, but for its x, stay in one place: then
// SkinnyPlace::kBeside has no room behind it.
[[nodiscard]] bool SkinnyKeepsRows(const SkinnyArgs& args);
// The codes that x has to be, or may be where the weights are bf16, for that; none: as bf16.
[[nodiscard]] std::optional<CodeKind> SkinnyKeepsCodes(const SkinnyArgs& args);
// Whether such a launch is faster where its x is not rmsnorm(residual), or cannot have that.
[[nodiscard]] bool SkinnyWantsRows(const SkinnyArgs& args);

// Starts with programmatic dependent launch where the device has it: it reads weights, scales and
// norm_weight before earlier kernels of the stream have ended, so these must be older than the
// kernel before the last. May be captured in a graph. cudaErrorInvalidValue for arguments outside
// the limits above, cudaErrorNotSupported on devices that are not of compute capability 9.0.
cudaError_t LaunchSkinny(const SkinnyArgs& args, cudaStream_t stream);

}  // namespace tessera::kernels::cuda
