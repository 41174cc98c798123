// Rotates queries and keys of new tokens, and writes keys and values into their pages
// (kv_layout.h).
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "config/foundation/ids.h"
#include "kernels/dtype.h"
#include "kernels/ops/rope_append.h"

namespace tessera::kernels::cuda {

// Rotation in float32, one rounding: to bf16 for queries, to the page's type for keys and values
// (e4m3 saturates at 448). Pointers are 16-byte aligned; strides count elements and are multiples
// of 8; q, k and v may be parts of one buffer. Page ids and slots are read after earlier kernels
// have ended.
struct RopeAppendArgs {
  int32_t rows = 0;
  int32_t q_heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;    // a multiple of 16, at most 256
  int32_t rotary_dim = 0;  // a multiple of 4, at most head_dim; 0: nothing turns
  RopeStyle style = RopeStyle::kHalf;
  DType kv_type = DType::kBF16;      // or kF8E4M3
  __nv_bfloat16* q = nullptr;        // [rows, q_heads, head_dim], rotated in place
  const __nv_bfloat16* k = nullptr;  // [rows, kv_heads, head_dim]
  const __nv_bfloat16* v = nullptr;  // [rows, kv_heads, head_dim]
  int64_t q_stride = 0;
  int64_t k_stride = 0;
  int64_t v_stride = 0;
  const float* cosine = nullptr;         // [*, rotary_dim / 2]
  const float* sine = nullptr;           // [*, rotary_dim / 2]
  const int32_t* rotary_rows = nullptr;  // [rows] row of cosine and sine; null: the same row
  std::byte* arena = nullptr;
  const PageId* page = nullptr;   // [rows]; invalid: keys and values are not written
  const uint8_t* slot = nullptr;  // [rows] 0 .. 63
};

// "" or what the kernel does not support.
[[nodiscard]] std::string MissingRopeAppend(const RopeAppendArgs& args);
cudaError_t LaunchRopeAppend(const RopeAppendArgs& args, cudaStream_t stream);

}  // namespace tessera::kernels::cuda
