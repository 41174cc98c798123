// Plans of decode attention: which thread block reads which pages. Host code that needs no device.
//
// kBalanced deals pages evenly. Where a row and head is cut, its blocks meet at the end of the
// launch, which then lasts until the last of them has come, so heads stay whole where thread blocks
// can have several whole ones each and about as much to read as one another.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "config/foundation/ids.h"
#include "kernels/ops/attention_plan.h"

namespace tessera::kernels::cuda {

// A run of queries of one sequence at consecutive positions. Dense (`entries` null): reads every
// page from the first query's window to the last query from a page table. Listed: reads `entries`,
// sorted and unique by logical page; an entry with an invalid page is skipped. All pointers are
// device addresses of table 0; table t lies `t * table_stride` elements further.
struct DecodeRow {
  static constexpr int32_t kAllKvHeads = -1;
  int32_t q_begin = 0;            // first row in q and out
  int32_t q_rows = 0;             // 0: the row does nothing
  int32_t position = 0;           // of the first query, below 2^30
  int32_t kv_head = kAllKvHeads;  // or the one KV head that the row is for
  uint32_t table_stride = 0;
  const PageId* page_table = nullptr;  // [position / 64 + ...]
  const PageEntry* entries = nullptr;
  uint32_t entry_count = 0;
};

enum class DecodeSplits : uint8_t {
  kBalanced,    // every thread block reads about the same number of pages
  kBySequence,  // splits depend on the row's own length alone: at most 16 a row
};

struct DecodePlanOptions {
  int32_t q_heads = 0;   // a multiple of kv_heads
  int32_t kv_heads = 0;  // 1 .. 65535
  int32_t head_dim = 0;
  int32_t window = 0;  // tokens a query sees, itself included; 0: all before it
  uint32_t grid = 0;   // thread blocks: the device's multiprocessors, or fewer
  DecodeSplits splits = DecodeSplits::kBalanced;
};

// What BuildDecodePlan wrote.
struct DecodePlan {
  size_t bytes = 0;  // to copy to the device
  uint32_t items = 0;
  uint32_t partials = 0;  // slots of the workspace in use
};

// Query heads of a KV head times queries of a run that one item holds; longer runs are cut.
constexpr int32_t MaxDecodeColumns(int32_t head_dim) { return head_dim > 128 ? 16 : 32; }
inline constexpr uint32_t kMaxSequenceSplits = 16;

// Upper bounds for plans of at most `max_rows` rows of at most `max_q_rows` queries.
[[nodiscard]] size_t DecodePlanBytes(uint32_t max_rows, int32_t max_q_rows,
                                     const DecodePlanOptions& options);
[[nodiscard]] size_t DecodePartials(uint32_t max_rows, int32_t max_q_rows,
                                    const DecodePlanOptions& options);

// Writes the plan of `rows` to `host_out` (16-byte aligned, DecodePlanBytes). Reads no device
// memory.
DecodePlan BuildDecodePlan(std::span<const DecodeRow> rows, const DecodePlanOptions& options,
                           void* host_out);

}  // namespace tessera::kernels::cuda
