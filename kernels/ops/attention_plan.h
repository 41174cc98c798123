// What each row of a step reads: the attention plan (sparse_attention.md §3.1).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

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
  uint32_t table_stride = 0;  // pages
  const PageId* page_table =
      nullptr;  // table 0, [position / 64 + ...]; dense rows; kernels' memory
  std::span<const PageEntry> entries;  // listed rows
};

// Launches of one shape share what a backend prepares for a plan.
struct AttentionShape {
  KvFormat kv;
  int32_t q_heads = 0;
  int32_t window = 0;  // tokens a query sees, itself included; 0: all before it

  bool operator==(const AttentionShape&) const = default;
};

struct AttentionPlan {
  std::span<const AttentionRow> rows;
  uint32_t capacity = 0;  // rows that a recorded step of this size may have
  // What the backend made of the rows (ExecContext::PrepareAttention): its own; lives until the
  // next step is prepared.
  const void* prepared = nullptr;
};

}  // namespace tessera::kernels
