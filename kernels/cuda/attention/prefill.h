// Causal attention of runs of queries over the pages of their sequences, chunked or whole.
//
// A step has one plan, which serves every block of one shape: BuildPrefillPlan writes it on the
// host, the caller copies it to the device. A launch reads it there, so that a captured launch
// serves any plan that fits the plan's memory and merges no more than the launch says.
//
// Where a plan has too few tiles of queries for the device, contexts are cut: the parts' sums
// (float32) meet in a workspace, and a second kernel adds them in the context's order.
//
// Arithmetic: scores and sums in float32; softmax weights are rounded before they meet the values,
// to bf16, or to f16 where wgmma reads e4m3 pages. There queries are rounded to f16 as well,
// saturating beyond its range, as decode attention does.
//
// What a row's bits depend on: its query and the keys and values that it sees, in tiles that begin
// at multiples of 128 tokens (64 for heads of 256 and with mma.sync) from the sequence's start, and
// how its context is cut. Without partials (PrefillPlanOptions) nothing is: then bits do not depend
// on the batch, on the run that the query came in, or on the order of work.
// Exception: a value that is not finite, written for a later query of the same run, may reach an
// earlier query of that run.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/cuda/attention/prefill_plan.h"
#include "kernels/dtype.h"

namespace tessera::kernels::cuda {

// Thread blocks of a launch that the current device runs at a time.
[[nodiscard]] uint32_t PrefillBlocks(uint32_t head_dim);

struct PrefillArgs {
  std::byte* plan = nullptr;  // device; counters in it are used by a launch and zero after it, so
                              // launches that share a plan must follow one another
  const void* q = nullptr;    // bf16 [rows, q_heads, head_dim], rows q_stride elements apart
  void* out = nullptr;        // bf16 [rows, q_heads, head_dim]; rows of no run stay as they are
  const std::byte* arena = nullptr;
  uint32_t table = 0;  // which of a run's page tables
  uint32_t q_heads = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  int64_t q_stride = 0;  // a multiple of 8
  DType kv_dtype = DType::kBF16;
  float scale = 0;            // of scores; positive and finite
  int32_t window = 0;         // a query at p sees p - window + 1 .. p; 0: everything up to p
  uint32_t merges = 0;        // as the plan's, or more; 0: no second kernel
  void* workspace = nullptr;  // of one stream's launches; with merges
  uint32_t partials = 0;      // slots of the workspace: the plan's, or more
};

// What this device lacks for such a launch ("head_dim 48"), or "". Supported: heads of 64, 80, 96,
// 128 or 256; bf16 and e4m3 pages; q_heads a multiple of kv_heads, at most 128 query heads a KV
// head; compute capability 8.0 or newer.
[[nodiscard]] std::string MissingPrefill(const PrefillArgs& args);

// Asks for nothing but what MissingPrefill accepts. Capturable.
cudaError_t LaunchPrefill(const PrefillArgs& args, cudaStream_t stream);

// The two kernels that LaunchPrefill chooses from, for its use and for checks: wgmma (compute
// capability 9.0) and mma.sync. Parts stay unmerged.
cudaError_t LaunchPrefillWgmma(const PrefillArgs& args, cudaStream_t stream);
cudaError_t LaunchPrefillMma(const PrefillArgs& args, cudaStream_t stream);
// Adds the parts that either left.
cudaError_t LaunchPrefillMerge(const PrefillArgs& args, cudaStream_t stream);

}  // namespace tessera::kernels::cuda
