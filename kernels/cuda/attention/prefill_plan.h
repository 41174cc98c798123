// The bytes of a prefill plan: a header, the runs, the items.
#pragma once

#include <cstddef>
#include <cstdint>

#include "config/foundation/ids.h"

namespace tessera::kernels::cuda {

// (query, query head) pairs of an item: pair i of a run is query i / group, head i % group of the
// KV head's group of query heads.
inline constexpr int kPrefillTileRows = 128;

struct alignas(16) PrefillPlanHeader {
  uint32_t items;
  uint32_t items_offset;  // bytes from the header
  uint32_t next;          // items taken by the launch that runs, past the first of each block
  uint32_t done;          // blocks of it that have ended
};

struct alignas(16) PrefillPlanRun {
  const PageId* page_table;
  uint32_t table_stride;
  int32_t q_begin;
  int32_t q_rows;
  int32_t position;
};

struct alignas(16) PrefillPlanItem {
  uint32_t run;
  uint32_t tile;  // pairs from tile * kPrefillTileRows on
  uint32_t kv_head;
  uint32_t keys;  // that its last pair sees
};

}  // namespace tessera::kernels::cuda
