// Row-wise arithmetic of a step: norms, gated activations, the e4m3 activation grid, embedding,
// rotary angles.
//
// All pointers are device pointers, all matrices row-major. Every launcher may be recorded in a
// CUDA graph. A row's bits depend on the row and the width alone, never on the number of rows.
// `rows` is at least 1 unless said otherwise; no launcher checks what the caller promised to check
// with the Missing functions.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/cuda/row_codes.h"
#include "kernels/dtype.h"
#include "kernels/ops/gated_activation.h"

namespace tessera::kernels::cuda {

inline constexpr int32_t kMaxRowWidth = 32768;
// Of rows that become e4m3 without a norm.
inline constexpr int32_t kMaxCodedWidth = 65536;

// What row kernels lack for this width: "" where it is a multiple of 8 up to kMaxRowWidth.
[[nodiscard]] std::string MissingRowWidth(int64_t width);

// Where a row kernel writes: bf16 rows, or codes with scales (row_codes.h; by groups of up to
// kCodeRows rows); a gated activation may write both. Where an amax is below 1e-35 codes and scale
// are 0. One infinity or not-a-number makes the scale not finite.
struct RowOutput {
  __nv_bfloat16* y = nullptr;  // [rows, stride]
  RowCodes codes;              // [rows, stride]
  int64_t stride = 0;          // elements, a multiple of 8 (int8 codes: of 64); at 16 bytes
};

// out[row] = x[x_rows[row]] / sqrt(mean(x^2) + epsilon) * weight, in float32.
struct RmsNormArgs {
  const float* x = nullptr;         // [*, width]
  const int32_t* x_rows = nullptr;  // [rows] or null: the same row
  const float* weight = nullptr;    // [width], constant
  float epsilon = 1e-5f;
  int32_t rows = 0;  // 1..16384
  int32_t width = 0;
  RowOutput out;
};
cudaError_t LaunchRmsNorm(const RmsNormArgs& args, cudaStream_t stream);

// out = activation(gate) * up, in float32 and rounded to bf16. `out.y` may be `gate` or `up`. Codes
// and scales, where they are asked for, are those that LaunchCodeRows makes of the bf16 rows.
struct GatedActivationArgs {
  const __nv_bfloat16* gate = nullptr;  // [rows, gate_stride]
  const __nv_bfloat16* up = nullptr;    // [rows, up_stride]
  int64_t gate_stride = 0;              // elements, multiples of 8
  int64_t up_stride = 0;
  ActivationKind kind = ActivationKind::kSilu;
  int32_t rows = 0;   // 1..65535
  int32_t width = 0;  // with codes: up to kMaxCodedWidth; int8: a multiple of 64
  RowOutput out;
};
cudaError_t LaunchGatedActivation(const GatedActivationArgs& args, cudaStream_t stream);

// bf16 rows to codes.
struct CodeRowsArgs {
  const __nv_bfloat16* x = nullptr;  // [rows, x_stride]
  int64_t x_stride = 0;              // elements, a multiple of 8
  int32_t rows = 0;                  // 1..65535
  int32_t width = 0;                 // a multiple of 8 (int8: of 64) up to kMaxCodedWidth
  RowOutput out;                     // codes
};
cudaError_t LaunchCodeRows(const CodeRowsArgs& args, cudaStream_t stream);

// y[i] = bf16(x[i]), to nearest even. Both begin at 16 bytes.
struct FloatToBf16Args {
  const float* x = nullptr;
  __nv_bfloat16* y = nullptr;
  int64_t count = 0;  // a multiple of 8
};
cudaError_t LaunchFloatToBf16(const FloatToBf16Args& args, cudaStream_t stream);

// y[r] = table[tokens[r]] * scale for the rows r that are named; the table in canonical bytes.
struct EmbedArgs {
  DType dtype = DType::kBF16;        // every weight type
  const std::byte* table = nullptr;  // [vocab, width], constant
  const int32_t* tokens = nullptr;   // [*], each in [0, vocab)
  const int32_t* row_of = nullptr;   // [rows] row of tokens and of y for each; null: the same row
  float* y = nullptr;                // [*, width]
  float scale = 1.0f;                // applied after the conversion
  int32_t rows = 0;
  int32_t width = 0;
  int32_t vocab = 0;
};
[[nodiscard]] std::string MissingEmbed(DType dtype, int64_t width);
cudaError_t LaunchEmbed(const EmbedArgs& args, cudaStream_t stream);

// cosine and sine of float32(position) * frequency (the product rounded to float32), each the
// nearest float32 but for rare last-bit differences, times scale.
struct RotaryAnglesArgs {
  const int32_t* positions = nullptr;  // [rows], >= 0
  const float* frequencies = nullptr;  // [pairs], constant
  float* cosine = nullptr;             // [rows, pairs]
  float* sine = nullptr;
  int32_t rows = 0;
  int32_t pairs = 0;
  float scale = 1.0f;
};
cudaError_t LaunchRotaryAngles(const RotaryAnglesArgs& args, cudaStream_t stream);

}  // namespace tessera::kernels::cuda
