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

#include "config/foundation/ids.h"
#include "kernels/ops/kv_page.h"

namespace tessera::kernels {

struct PageEntry {
  PageId page;
  uint32_t logical_page : 24;  // position / 64, for causality
  uint32_t query_heads : 8;    // mask of the query heads of the group that read it
};
static_assert(sizeof(PageEntry) == 8);

// One run of queries of one sequence. A dense row reads every page up to its position from a page
// table; a listed row reads `entries`, sorted and unique by logical page. Dense rows serve every
// block of a step: their tables lie `table_stride` apart, and a launch names its own by number.
struct AttentionRow {
  static constexpr int32_t kAllKvHeads = -1;
  int32_t q_begin = 0;   // first row in q and out
  int32_t q_rows = 0;    // queries at consecutive positions
  int32_t position = 0;  // of the first query
  int32_t kv_head = kAllKvHeads;
  uint32_t table_stride = 0;           // pages
  const PageId* page_table = nullptr;  // table 0, [position / 64 + ...]; dense rows
  std::span<const PageEntry> entries;  // listed rows
};

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
    float scale = 0;           // 1 / sqrt(head_dim) unless the block says otherwise
    const float* q = nullptr;  // [rows, q_heads, head_dim]
    float* out = nullptr;      // [rows, q_heads, head_dim]
    std::byte* arena = nullptr;
    std::span<const AttentionRow> plan;
    uint32_t table = 0;  // which table dense rows read
  };
};
[[nodiscard]] std::string Describe(const AttentionOp::Desc& desc);

}  // namespace tessera::kernels
