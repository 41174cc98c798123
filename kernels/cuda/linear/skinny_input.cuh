// How x gets into shared memory. An input slot is a run of x, 64 columns or 128 codes: rows of 128
// bytes with the 128-byte swizzle.
#pragma once

#include "kernels/cuda/linear/skinny_format.cuh"

namespace tessera::kernels::cuda {

// Runs work(run) for each input slot that this block consumes, in order.
template <typename Tile, typename Work>
__device__ __forceinline__ void ForInputSlots(const SkinnyPlan& plan, Work work) {
  const int units = plan.UnitBegin(blockIdx.x + 1) - plan.UnitBegin(blockIdx.x);
  int unit_k = plan.UnitBegin(blockIdx.x) % plan.tile_units;
  for (int i = 0; i < units; ++i) {
#pragma unroll
    for (int half = 0; half < Tile::Format::kHalves; ++half) {
      work(unit_k * Tile::Format::kHalves + half);
    }
    if (++unit_k == plan.tile_units) unit_k = 0;
  }
}

// One thread.
template <typename Tile>
__device__ __forceinline__ void CopyInput(const SkinnyPlan& plan, SkinnyShared<Tile>& shared) {
  PrefetchTensorMap(&plan.x_map);
  WaitForPrior();
  RingCursor<Tile::kInputSlots> cursor;
  ForInputSlots<Tile>(plan, [&](int run) {
    BarrierWait(&shared.input_empty[cursor.slot], cursor.parity ^ 1);
    BarrierExpect(&shared.input_full[cursor.slot], Tile::kInputBytes);
    TensorLoad(shared.input[cursor.slot], &plan.x_map, run * 128, 0,
               &shared.input_full[cursor.slot]);
    cursor.Advance();
  });
}

}  // namespace tessera::kernels::cuda
