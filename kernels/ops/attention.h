// Attention over pages, as the attention plan says: one op for dense, streaming and selected pages,
// for decode rows and prefill chunks (sparse_attention.md §3.1).
//
// Arithmetic, per (query row, query head), the same for decode and prefill, any chunking and batch:
// the row's pages are visited in plan order. In a page, for its t visible tokens: score_i =
// (sum over d in order, fused) q[d]*k[d][i], times scale, then softcap * tanh(score / softcap)
// where there is a soft cap; m' = max(m, max score); all accumulators are multiplied by exp(m - m')
// (not when m' == m); p_i = exp(score_i - m'); l is 16 lanes (lane = i mod 16), added per page;
// acc[d] = fma(p_i, v[i][d], acc[d]) for i in order. The result is acc / (l lanes added pairwise as
// in norm.h). exp is one polynomial for every instruction set. A query head that reads no token
// gives zeros. A sink is one more score of its head, without a value: m begins with it and lane 0
// of l with 1. With a window a query sees itself and the window - 1 tokens before it. Tokens after
// the query or before its window, slots never written and pages not listed influence nothing,
// whatever bytes they hold; pages before the window are not visited.
//
// Tiles. Pages of bf16 on a processor with AMX (CpuIsa::kAmx) have an arithmetic of their own,
// again one for decode and prefill, any chunking and batch: q is rounded to bf16 (ties to even);
// score_i is what TDPBF16PS sums over d, 32 at a time, elements 0, 16, 1, 17, ... of each 32; m is
// the smallest whole number that is no less than any scaled score times log2(e), so that
// accumulators are multiplied by powers of two; p_i = 2^(score_i * scale * log2(e) - m) by a cubic
// (relative error below 7.5e-5), 0 below 2^-126; l sums it in float32 (lane = i / 2 mod 16), and
// acc takes it rounded to bf16 (ties up) through TDPBF16PS, 32 tokens at a time. With q so rounded,
// the result is within 4.1e-3 of sum(p |v|) / l of float64's: 2^-8 for the probabilities in bf16,
// and the cubic twice. The order of TDPBF16PS's own sums is the processor's. Every other KV type
// has the same bits on every instruction set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "kernels/ops/attention_plan.h"
#include "kernels/ops/kv_page.h"
#include "kernels/ops/rope_append.h"

namespace tessera::kernels {

// Sinks of the query heads, for the launch's rows [row_begin, row_begin + row_count).
struct AttentionSinks {
  const float* sinks = nullptr;  // [q_heads]
  int32_t row_begin = 0;
  int32_t row_count = 0;
};

struct AttentionOp {
  static constexpr const char* kName = "attention";
  struct Desc {
    KvFormat kv;
    int64_t q_heads =
        0;               // multiple of kv.kv_heads; at most 8 query heads a KV head for listed rows
    int32_t window = 0;  // tokens a query sees, itself included; 0: all before it
    bool softcap = false;
    bool sinks = false;
    // A fusion that a backend may lack; the block then runs the ops one by one.
    std::optional<RopeAppendOp::Desc> append;
  };
  struct Params {
    KvFormat kv;
    int32_t q_heads = 0;
    float scale = 0;    // > 0: 1 / sqrt(head_dim) unless the block says otherwise
    float softcap = 0;  // > 0; 0: none
    int32_t window = 0;
    std::span<const AttentionSinks> sinks;  // every row's, or none
    // With Desc::append: what that op would do before this one, but that `q` may stay unrotated.
    const RopeAppendOp::Params* append = nullptr;
    const void* q = nullptr;  // [rows, q_heads, head_dim] activations, rows q_stride elements apart
    int64_t q_stride = 0;
    void* out = nullptr;  // [rows, q_heads, head_dim] activations
    std::byte* arena = nullptr;
    AttentionPlan plan;
    uint32_t table = 0;  // which table dense rows read
  };
};
[[nodiscard]] std::string Describe(const AttentionOp::Desc& desc);

}  // namespace tessera::kernels
