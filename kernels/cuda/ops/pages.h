// What is done to sealed KV pages: key statistics.
//
// The list of pages lies on the device; an id that names no page is skipped. Pages are in the
// layout of kv_layout.h. The launcher may be recorded in a CUDA graph; a count of 0 launches
// nothing.
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

}  // namespace tessera::kernels::cuda
