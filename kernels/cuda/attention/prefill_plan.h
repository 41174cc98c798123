// Plans of prefill attention: which thread block works on which queries and keys. Host code that
// needs no device, and the bytes of a plan: a header, the runs, the items, the merges.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "config/foundation/ids.h"

namespace tessera::kernels::cuda {

// (query, query head) pairs of an item: pair i of a run is query i / group, head i % group of the
// KV head's group of query heads.
inline constexpr int kPrefillTileRows = 128;
// Parts of a context begin at multiples of so many tokens: of both kernels' tiles of keys.
inline constexpr int kPrefillPartKeys = 128;

// Queries at consecutive positions of one sequence. Their keys and values are in the pages already.
struct PrefillRow {
  const PageId* page_table = nullptr;  // device; table 0, [position / 64 + ...]
  uint32_t table_stride = 0;           // pages from a table to the next
  int32_t q_begin = 0;                 // first row in q and out
  int32_t q_rows = 0;                  // 0 is allowed
  int32_t position = 0;                // of the first query; position + q_rows < 2^31 - 128
};

struct PrefillPlanOptions {
  uint32_t q_heads = 0;  // a multiple of kv_heads
  uint32_t kv_heads = 0;
  int32_t window = 0;     // as the launches'
  uint32_t blocks = 0;    // that run at a time: PrefillBlocks
  uint32_t partials = 0;  // slots that contexts may be cut for; 0: none is cut
};

struct PrefillPlan {
  uint32_t items = 0;
  uint32_t merges = 0;    // tiles whose context is cut
  uint32_t partials = 0;  // slots of the workspace in use
  size_t bytes = 0;       // to copy to the device
};

// Slots that a plan for so many blocks makes good use of, and bytes of a workspace of `partials`.
// The workspace's contents mean nothing between launches.
[[nodiscard]] uint32_t PrefillPartials(uint32_t blocks);
[[nodiscard]] size_t PrefillWorkspaceBytes(uint32_t partials, uint32_t head_dim);

// Bytes that a plan of at most `runs` rows with `queries` queries together may take.
[[nodiscard]] size_t PrefillPlanBytes(size_t runs, size_t queries,
                                      const PrefillPlanOptions& options);

// Writes the plan to `host_out` (16-byte aligned): tiles of 128 (query, query head) pairs that
// share a KV head, those with the longest history first, grouped so that the keys in use at one
// time stay in the L2 cache. Contexts are cut only where that makes the launch an eighth shorter.
PrefillPlan BuildPrefillPlan(std::span<const PrefillRow> rows, const PrefillPlanOptions& options,
                             std::byte* host_out);

struct alignas(16) PrefillPlanHeader {
  uint32_t items;
  uint32_t items_offset;  // bytes from the header
  uint32_t next;          // items taken by the launch that runs, past the first of each block
  uint32_t done;          // blocks of it that have ended
  uint32_t merges;
  uint32_t merges_offset;  // bytes from the header
};

struct alignas(16) PrefillPlanRun {
  const PageId* page_table;
  uint32_t table_stride;
  int32_t q_begin;
  int32_t q_rows;
  int32_t position;
};

struct alignas(16) PrefillPlanItem {
  static constexpr int32_t kWhole = -1;
  uint32_t run;
  uint32_t tile;  // pairs from tile * kPrefillTileRows on
  uint32_t kv_head;
  uint32_t first_key;
  uint32_t past_key;  // behind the item's last key
  int32_t partial;    // slot of the workspace that takes the sums, or kWhole: the result is stored
};

// A tile of pairs whose context is in several parts: their sums lie in slots that follow one
// another, in the context's order.
struct alignas(16) PrefillPlanMerge {
  uint32_t run;
  uint32_t tile;
  uint32_t kv_head;
  uint32_t partial;  // slot of the first part
  uint32_t parts;
};

// Blocks of the mma kernel that a multiprocessor has at a time.
constexpr int PrefillMmaBlocks(uint32_t head_dim) { return head_dim <= 64 ? 2 : 1; }

}  // namespace tessera::kernels::cuda
