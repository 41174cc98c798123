// The bytes of a prefill plan: a header, the runs, the items, the merges.
#pragma once

#include <cstddef>
#include <cstdint>

#include "config/foundation/ids.h"

namespace tessera::kernels::cuda {

// (query, query head) pairs of an item: pair i of a run is query i / group, head i % group of the
// KV head's group of query heads.
inline constexpr int kPrefillTileRows = 128;
// Parts of a context begin at multiples of so many tokens: of both kernels' tiles of keys.
inline constexpr int kPrefillPartKeys = 128;

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
