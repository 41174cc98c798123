// Adds the parts of contexts that a prefill kernel left in the workspace, and stores the rows.
#include "kernels/cuda/attention/part_sum.cuh"
#include "kernels/cuda/attention/prefill_tile.cuh"
#include "kernels/cuda/launch.cuh"

namespace tessera::kernels::cuda {
namespace {

using prefill::Item;
using prefill::KernelArgs;
using prefill::Partials;

constexpr int kThreads = 256;
constexpr int kRows = 8;   // of a tile that a block adds up
constexpr int kParts = 8;  // that a thread reads together

// A thread takes every second part of four dimensions of a row, its neighbour the others.
__global__ void __launch_bounds__(kThreads)
    PrefillMergeKernel(const __grid_constant__ KernelArgs args) {
  LetNextStart();
  WaitForPrior();
  const auto* header = reinterpret_cast<const PrefillPlanHeader*>(args.call.plan);
  const uint32_t index = blockIdx.x;
  if (index >= header->merges) return;
  const PrefillPlanMerge merge =
      reinterpret_cast<const PrefillPlanMerge*>(args.call.plan + header->merges_offset)[index];
  Item item = {};
  FindTile(args, merge.run, merge.tile, merge.kv_head, item);
  const int first_row = static_cast<int>(blockIdx.y) * kRows;
  const int quads = static_cast<int>(args.call.head_dim) / 4;
  const int units = min(kRows, item.pairs - first_row) * quads;
  const Partials partials(args.call);
  const int parity = LaneId() % 2;
  const int mine = (static_cast<int>(merge.parts) + 1 - parity) / 2;
  constexpr int64_t kStride = 2 * kPrefillTileRows;  // rows from a thread's part to its next
  auto* out = static_cast<__nv_bfloat16*>(args.call.out);
  // Whole warps: lanes past the end add what the last unit adds, and store nothing.
  for (int first = 0; first < units; first += kThreads / 2) {
    const int wanted = first + static_cast<int>(threadIdx.x) / 2;
    const int unit = min(wanted, units - 1);
    const int row = first_row + unit / quads;
    const int dim = unit % quads * 4;
    const int64_t place = Partials::At(merge.partial + parity, row);
    const float2* statistics = partials.statistics + place;
    const float* values = partials.values + place * args.call.head_dim + dim;
    PartSum sum;
    for (int done = 0; done < mine; done += kParts) {
      SplitParts<kParts> parts;
#pragma unroll
      for (int s = 0; s < kParts; ++s) {
        parts.statistics[s] = make_float2(-INFINITY, 0);
        parts.values[s] = make_float4(0, 0, 0, 0);
        if (done + s >= mine) continue;
        const int64_t further = (done + s) * kStride;
        parts.statistics[s] = statistics[further];
        parts.values[s] = *reinterpret_cast<const float4*>(values + further * args.call.head_dim);
      }
      sum.Add(parts);
    }
    __syncwarp();
    sum.AddNeighbour();
    if (wanted >= units || parity != 0) continue;
    const float scale = sum.sum == 0 ? 0.0f : 1.0f / sum.sum;
    uint2 bits;
    bits.x = PackBf16(sum.total.x * scale, sum.total.y * scale);
    bits.y = PackBf16(sum.total.z * scale, sum.total.w * scale);
    const int64_t at = RowOffset(args, item, row, int64_t{args.call.q_heads} * args.call.head_dim);
    *reinterpret_cast<uint2*>(out + at + dim) = bits;
  }
}

}  // namespace

cudaError_t LaunchPrefillMerge(const PrefillArgs& args, cudaStream_t stream) {
  return LaunchDependent(PrefillMergeKernel, dim3(args.merges, kPrefillTileRows / kRows),
                         dim3(kThreads), 0, 1, stream, prefill::MakeKernelArgs(args));
}

}  // namespace tessera::kernels::cuda
