// Attention over pages, as the attention plan says: one op for dense, streaming and selected pages,
// for decode rows and prefill chunks (sparse_attention.md §3.1).
//
// Arithmetic, per (query row, query head), the same for decode and prefill, any chunking and batch:
// the row's pages are visited in plan order. In a page, for its t visible tokens: score_i =
// (sum over d in order, fused) q[d]*k[d][i], times scale; m' = max(m, max score); all accumulators
// are multiplied by exp(m - m') (not when m' == m); p_i = exp(score_i - m'); l is 16 lanes (lane =
// i mod 16), added per page; acc[d] = fma(p_i, v[i][d], acc[d]) for i in order. The result is acc /
// (l lanes added pairwise as in rms_norm). exp is one polynomial for every instruction set. A query
// head that reads no token gives zeros. Tokens after the query, slots never written and pages not
// listed influence nothing, whatever bytes they hold.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "kernels/ops/attention_plan.h"
#include "kernels/ops/kv_page.h"

namespace tessera::kernels {

struct AttentionOp {
  static constexpr const char* kName = "attention";
  struct Desc {
    KvFormat kv;
    int64_t q_heads =
        0;  // multiple of kv.kv_heads; at most 8 query heads a KV head for listed rows
  };
  struct Params {
    KvFormat kv;
    int32_t q_heads = 0;
    float scale = 0;          // 1 / sqrt(head_dim) unless the block says otherwise
    const void* q = nullptr;  // [rows, q_heads, head_dim] activations
    void* out = nullptr;      // [rows, q_heads, head_dim] activations
    std::byte* arena = nullptr;
    AttentionPlan plan;
    uint32_t table = 0;  // which table dense rows read
  };
};
[[nodiscard]] std::string Describe(const AttentionOp::Desc& desc);

}  // namespace tessera::kernels
