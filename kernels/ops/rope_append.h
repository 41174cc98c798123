// Rotates queries and keys, and writes keys and values into their pages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "config/foundation/ids.h"
#include "kernels/ops/kv_page.h"

namespace tessera::kernels {

enum class RopeStyle : uint8_t {
  kHalf,         // pairs (i, i + rot/2): Hugging Face checkpoints
  kInterleaved,  // pairs (2i, 2i + 1): GGUF's permuted rows
};

struct RopeAppendOp {
  static constexpr const char* kName = "rope_append";
  struct Desc {
    KvFormat kv;
    RopeStyle style = RopeStyle::kHalf;
    int64_t q_heads = 0;
    int64_t rotary_dim = 0;  // even, <= head_dim
  };
  struct Params {
    KvFormat kv;
    RopeStyle style = RopeStyle::kHalf;
    int32_t rows = 0;
    int32_t q_heads = 0;
    int32_t rotary_dim = 0;
    // Activations; they may be columns of one buffer.
    void* q = nullptr;              // [rows, q_heads, head_dim], rotated in place
    const void* k = nullptr;        // [rows, kv_heads, head_dim]
    const void* v = nullptr;        // [rows, kv_heads, head_dim]
    int64_t q_stride = 0;           // elements between rows of q
    int64_t kv_stride = 0;          // and of k and v
    const float* cosine = nullptr;  // [*, rotary_dim / 2], of each row's position and chain
    const float* sine = nullptr;
    const int32_t* rotary_rows =
        nullptr;  // row of cosine and sine for each row; null: the same row
    std::byte* arena = nullptr;
    const PageId* page =
        nullptr;  // [rows] page that takes the row's key and value; invalid: no write
    const uint8_t* slot = nullptr;  // [rows] token slot in that page, 0..63
  };
};
[[nodiscard]] std::string Describe(const RopeAppendOp::Desc& desc);

}  // namespace tessera::kernels
