// How the checks and benches of prefill attention launch it.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "kernels/cuda/attention/prefill.h"
#include "kernels/cuda/attention/prefill_plan.h"
#include "kernels/cuda/kv_layout.h"
#include "tests/kernels/cuda/check_util.cuh"

namespace tessera::check {

using kernels::DType;
using kernels::kPageTokens;
using kernels::cuda::PrefillArgs;
using kernels::cuda::PrefillPlan;
using kernels::cuda::PrefillPlanOptions;
using kernels::cuda::PrefillRow;

using Launcher = cudaError_t (*)(const PrefillArgs&, cudaStream_t);

inline cudaError_t Merged(cudaError_t error, const PrefillArgs& args, cudaStream_t stream) {
  return error != cudaSuccess || args.merges == 0 ? error
                                                  : kernels::cuda::LaunchPrefillMerge(args, stream);
}
inline cudaError_t Wgmma(const PrefillArgs& args, cudaStream_t stream) {
  return Merged(kernels::cuda::LaunchPrefillWgmma(args, stream), args, stream);
}
inline cudaError_t Mma(const PrefillArgs& args, cudaStream_t stream) {
  return Merged(kernels::cuda::LaunchPrefillMma(args, stream), args, stream);
}

// For `blocks` that run at a time, 0: nothing is cut.
inline PrefillPlanOptions OptionsOf(const PrefillArgs& args, uint32_t blocks) {
  const bool cut = blocks > 0;
  if (!cut) blocks = kernels::cuda::PrefillBlocks(args.head_dim);
  return {.q_heads = args.q_heads,
          .kv_heads = args.kv_heads,
          .window = args.window,
          .blocks = blocks,
          .partials = cut ? kernels::cuda::PrefillPartials(blocks) : 0};
}

// A plan on the device, and the workspace that it wants; `args` get to know of them.
struct Prepared {
  Prepared(std::span<const PrefillRow> rows, const PrefillPlanOptions& options, PrefillArgs& args) {
    size_t queries = 0;
    for (const PrefillRow& row : rows) queries += row.q_rows;
    std::vector<uint8_t> bytes(kernels::cuda::PrefillPlanBytes(rows.size(), queries, options));
    plan =
        kernels::cuda::BuildPrefillPlan(rows, options, reinterpret_cast<std::byte*>(bytes.data()));
    if (plan.bytes > bytes.size()) std::exit(3);
    device = std::make_unique<DeviceBuffer<uint8_t>>(bytes);
    workspace = std::make_unique<DeviceBuffer<uint8_t>>(
        kernels::cuda::PrefillWorkspaceBytes(plan.partials, args.head_dim));
    CHECK_CUDA(cudaDeviceSynchronize());  // a copy from pageable memory may still be under way
    args.plan = reinterpret_cast<std::byte*>(device->get());
    args.merges = plan.merges;
    args.workspace = workspace->get();
    args.partials = plan.partials;
  }

  PrefillPlan plan;
  std::unique_ptr<DeviceBuffer<uint8_t>> device, workspace;
};

}  // namespace tessera::check
