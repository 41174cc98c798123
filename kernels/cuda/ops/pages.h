// What is done to KV pages and page tables between products: statistics, copies, zeros, table
// updates.
//
// All lists lie on the device and have a fixed capacity: entries that name no page are skipped, so
// that one CUDA graph serves any number of them. Pages are in the layout of kv_layout.h. Every
// launcher may be recorded in a CUDA graph; a count of 0 launches nothing.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "config/foundation/ids.h"
#include "kernels/ops/kv_page.h"

namespace tessera::kernels::cuda {

// Minimum and maximum of the keys of each logical page of 16 tokens, by column:
// float32 [kv_heads, 4, 2, head_dim] at kv.statistics_offset(). A not-a-number is passed over; a
// column of nothing else gives not-a-number.
struct PageStatsArgs {
  KvFormat kv;  // with key_statistics; kBF16, kF16, kF32 or kF8E4M3
  std::byte* arena = nullptr;
  const PageId* pages = nullptr;  // [count], full pages to seal; invalid ids are skipped
  int32_t count = 0;              // 0..65535
};
[[nodiscard]] std::string MissingPageStats(const KvFormat& kv);
cudaError_t LaunchPageStats(const PageStatsArgs& args, cudaStream_t stream);

// The first `bytes` of page `to` become those of page `from`.
struct PageCopy {
  PageId from;         // invalid: zeros
  PageId to;           // invalid: the entry is skipped
  uint32_t bytes = 0;  // a multiple of 16
};
static_assert(sizeof(PageCopy) == 12);
// No page that one entry writes may be read or written by another entry.
struct CopyPagesArgs {
  std::byte* arena = nullptr;
  const PageCopy* copies = nullptr;  // [count]
  int32_t count = 0;                 // 0..65535
  uint32_t max_bytes = 0;            // no entry has more; decides how many blocks an entry gets
};
cudaError_t LaunchCopyPages(const CopyPagesArgs& args, cudaStream_t stream);

// table[index] = page. Each index at most once in a launch.
struct TableUpdate {
  static constexpr uint32_t kSkip = 0xffffffffu;
  uint32_t index = kSkip;
  PageId page;
};
static_assert(sizeof(TableUpdate) == 8);
struct ApplyTableUpdatesArgs {
  const TableUpdate* updates = nullptr;  // [count]
  int32_t count = 0;
  PageId* table = nullptr;
};
cudaError_t LaunchApplyTableUpdates(const ApplyTableUpdatesArgs& args, cudaStream_t stream);

}  // namespace tessera::kernels::cuda
