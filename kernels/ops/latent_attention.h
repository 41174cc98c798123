// Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434 §2.1): all heads read one latent a
// token, which is key and value at once. The products with the up-projections are absorbed into
// queries and outputs, so that only the latent is cached.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "kernels/ops/attention_plan.h"
#include "kernels/ops/kv_page.h"
#include "kernels/ops/rope_append.h"

namespace tessera::kernels {

struct LatentShape {
  KvFormat kv;  // latent, head_dim = rank + rope_dim
  int32_t q_heads = 0;
  int32_t nope_dim = 0;  // of a query head, not rotated
  int32_t rope_dim = 0;  // even
  int32_t rank = 0;      // of the latent
};

// The norm of the latent for the rows of one member.
struct LatentNorm {
  const float* weight = nullptr;  // [rank]
  int32_t row_begin = 0;
  int32_t row_count = 0;
};

// Normalises the latent (as kRms of norm.h), rotates its key part and that of the queries, writes
// [latent | rotated key] into the row's slot, and sorts the parts of the queries by head.
struct LatentAppendOp {
  static constexpr const char* kName = "latent_append";
  struct Desc {
    LatentShape shape;
    RopeStyle style = RopeStyle::kInterleaved;
  };
  struct Params {
    LatentShape shape;
    RopeStyle style = RopeStyle::kInterleaved;
    int32_t rows = 0;
    std::span<const LatentNorm> norms;  // gapless
    float epsilon = 0;
    const void* q = nullptr;        // [rows, q_heads, nope_dim + rope_dim] activations
    const void* latent = nullptr;   // [rows, rank + rope_dim] activations
    void* q_nope = nullptr;         // [q_heads, rows, nope_dim] activations
    void* q_latent = nullptr;       // [q_heads, rows, rank + rope_dim]; the last part is written
    int32_t* row_of = nullptr;      // [q_heads, rows]: the row of each
    const float* cosine = nullptr;  // [*, rope_dim / 2], of each row's position and chain
    const float* sine = nullptr;
    const int32_t* rotary_rows = nullptr;  // row of cosine and sine; null: the same row
    std::byte* arena = nullptr;
    const PageId* page = nullptr;   // [rows]; invalid: no write
    const uint8_t* slot = nullptr;  // [rows] 0..63
  };
};
[[nodiscard]] std::string Describe(const LatentAppendOp::Desc& desc);

// Attention over latents, page by page as attention.h, with score_i = (sum over d of q[d] * x_i[d]
// in 16 lanes, lane = d mod 16, fused, lanes added pairwise as in norm.h) times scale, and
// acc[d] = fma(p_i, x_i[d], acc[d]) for d < rank.
struct LatentAttentionOp {
  static constexpr const char* kName = "latent_attention";
  struct Desc {
    LatentShape shape;
  };
  struct Params {
    LatentShape shape;
    float scale = 0;
    int32_t rows = 0;
    const void* q = nullptr;  // [q_heads, rows, rank + rope_dim] activations
    void* out = nullptr;      // [q_heads, rows, rank] activations
    std::byte* arena = nullptr;
    AttentionPlan plan;  // dense rows
    uint32_t table = 0;  // which table they read
  };
};
[[nodiscard]] std::string Describe(const LatentAttentionOp::Desc& desc);

}  // namespace tessera::kernels
