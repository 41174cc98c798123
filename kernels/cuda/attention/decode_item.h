// The plan of paged decode attention as it lies in device memory: DecodeItem items[]. Thread block
// b starts with items[b], which has no queries if the block has nothing to do, and follows `next`.
#pragma once

#include <cstdint>

namespace tessera::kernels::cuda {

inline constexpr uint32_t kNoItem = 0xffffffffu;

// One run of pages of one row and one KV head.
struct alignas(16) DecodeItem {
  const void* pages;      // first PageId, or PageEntry of a listed row, in table 0
  uint32_t table_stride;  // elements
  int32_t q_begin;
  int32_t position;  // of the first query
  uint32_t first_page;
  uint32_t page_count;
  uint16_t kv_head;
  uint8_t q_rows;
  uint8_t listed;
  uint16_t split;
  uint16_t split_count;
  uint32_t partial;  // slot of split 0, if there are several
  uint32_t next;     // item of the same thread block, or kNoItem
  uint32_t reserved;
};
static_assert(sizeof(DecodeItem) == 48);

}  // namespace tessera::kernels::cuda
