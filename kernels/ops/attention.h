// Attention over pages, as the attention plan says: one op for dense, streaming and selected pages,
// for decode rows and prefill chunks (sparse_attention.md §3.1).
//
// Arithmetic of the CPU backend, per (query row, query head), the same for decode and prefill, any
// chunking and batch: the row's pages are visited in plan order. In a page, for its t visible
// tokens: score_i = (sum over d in order, fused) q[d]*k[d][i], times scale, then softcap *
// tanh(score / softcap) where there is a soft cap; m' = max(m, max score); all accumulators are
// multiplied by exp(m - m') (not when m' == m); p_i = exp(score_i - m'); l is 16 lanes (lane = i
// mod 16), added per page; acc[d] = fma(p_i, v[i][d], acc[d]) for i in order. exp is one polynomial
// for every instruction set.
//
// Runs. Pages visited one after another whose logical page / 4 is the same are a run: it begins
// with sums of zero, m of minus infinity. When it ends it is added to the row's total: the larger m
// of the two stays, each side is multiplied by exp(its m - that one), and the products are added.
// So runs may be computed apart, by any thread. The result is acc / (l lanes added pairwise as in
// norm.h) of the total. A query head that reads no token gives zeros. A sink is one more score of
// its head, without a value: the total begins with its m, and with 1 in lane 0 of l. With a window
// a query sees itself and the window - 1 tokens before it. Tokens after the query or before its
// window, slots never written and pages not listed influence nothing, whatever bytes they hold;
// pages before the window are not visited.
//
// Pages of bf16 have an arithmetic of their own, that of AMX's products, which every instruction
// set computes with the same bits: q is rounded to bf16 (ties to even), and subnormal numbers are
// zeros. A product of terms t, 32 at a time, adds s_even + s_odd to its sum, where s_even is the
// fused sum of t_0, t_2, ... in order, and s_odd that of the others (as TDPBF16PS does). Scores sum
// over d so, elements 0, 16, 1, 17, ... of each 32; m is the smallest whole number that is no less
// than any scaled score times log2(e), so that accumulators are multiplied by powers of two; p_i =
// 2^(score_i * scale * log2(e) - m) by a cubic (relative error below 7.5e-5), 0 below 2^-126; l
// sums it in float32 (lane = i / 2 mod 16), and acc takes the products of v with it rounded to bf16
// (ties up), over tokens in order. With q so rounded, the result is within 4.1e-3 of sum(p |v|) / l
// of float64's: 2^-8 for the probabilities in bf16, and the cubic twice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "kernels/ops/attention_plan.h"
#include "kernels/ops/kv_page.h"
#include "kernels/ops/linear.h"
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
    // With Desc::append: what that op would do before this one, but that `q` may stay unrotated. A
    // page that takes a row is read by the one plan row alone that the row belongs to.
    const RopeAppendOp::Params* append = nullptr;
    const void* q = nullptr;  // [rows, q_heads, head_dim] activations, rows q_stride elements apart
    int64_t q_stride = 0;
    void* out = nullptr;  // [rows, q_heads, head_dim] activations
    std::byte* arena = nullptr;
    AttentionPlan plan;
    uint32_t table = 0;  // which table dense rows read
    // The product that is to read `out` next, if that is known: a backend may leave `out` in that
    // one's form, too.
    const LinearGroup* reader = nullptr;
  };
};
[[nodiscard]] std::string Describe(const AttentionOp::Desc& desc);

}  // namespace tessera::kernels
