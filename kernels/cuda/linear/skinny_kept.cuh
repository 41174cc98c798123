// What the kernels have in common whose rows of weights stay in one place (skinny_whole.cuh,
// skinny_i4_whole.cuh): a block's units, its rings of weights and of x, and what fills them.
#pragma once

#include <cstdint>

#include "kernels/cuda/linear/skinny_format.cuh"
#include "kernels/cuda/linear/skinny_pair.cuh"
#include "kernels/cuda/linear/skinny_plan.h"

namespace tessera::kernels::cuda {

// The task of this block's tile, the tile's number in it, and units of the tile: all, or each of a
// pair of blocks one half.
template <bool kPair>
struct KeptUnits {
  int task, tile, unit_begin, unit_end;

  __device__ __forceinline__ explicit KeptUnits(const SkinnyPlan& plan) {
    const int block = static_cast<int>(blockIdx.x);
    tile = kPair ? block >> 1 : block;
    tile -= plan.TaskOf(tile, &task).first_tile;
    unit_begin = 0;
    unit_end = plan.tile_units;
    if constexpr (kPair) {
      const int half = (plan.tile_units + 1) / 2;
      if ((block & 1) == 0) {
        unit_end = half;
      } else {
        unit_begin = half;
      }
    }
  }
};

// One thread, before the block's first barrier.
template <typename Shape, typename Shared>
__device__ __forceinline__ void InitRings(Shared& shared) {
  for (int i = 0; i < Shape::kSlots; ++i) {
    BarrierInit(&shared.weights_full[i], 1);
    BarrierInit(&shared.weights_empty[i], Shape::kWeightsArrivals);
  }
  for (int i = 0; i < Shape::kInputSlots; ++i) {
    BarrierInit(&shared.input_full[i], 1);
    BarrierInit(&shared.input_empty[i], Shape::kReaders);
  }
}

// One thread. `load(slot, full, unit)` asks for a unit of weights.
template <typename Shape, typename Shared, typename Load>
__device__ __forceinline__ void StreamWeights(Shared& shared, const KeptUnits<Shape::kPair>& units,
                                              Load load) {
  RingCursor<Shape::kSlots> cursor, arrived;
  for (int unit = units.unit_begin; unit < units.unit_end; ++unit) {
    BarrierWait(&shared.weights_empty[cursor.slot], cursor.parity ^ 1);
    const int asked = unit - units.unit_begin;
    if (asked >= Shape::kFirstSlots && asked < Shape::kSlots) {
      BarrierWait(&shared.weights_full[arrived.slot], arrived.parity);
      arrived.Advance();
    }
    load(shared.weights[cursor.slot], &shared.weights_full[cursor.slot], unit);
    cursor.Advance();
  }
}

// One thread. Rows of x, `rows` of them in a box, and where they are codes their scales.
template <typename Shape, typename Shared>
__device__ __forceinline__ void StreamInput(const SkinnyPlan& plan, Shared& shared, int rows) {
  PrefetchTensorMap(&plan.x_map);
  if constexpr (Shape::kCoded) PrefetchTensorMap(&plan.x_scale_map);
  const KeptUnits<Shape::kPair> units(plan);
  WaitForPrior();
  RingCursor<Shape::kInputSlots> cursor;
  for (int unit = units.unit_begin; unit < units.unit_end; ++unit) {
    BarrierWait(&shared.input_empty[cursor.slot], cursor.parity ^ 1);
    uint64_t* const full = &shared.input_full[cursor.slot];
    BarrierExpect(full, rows * (128 + (Shape::kCoded ? 4 : 0)));
    TensorLoad(shared.input[cursor.slot], &plan.x_map, unit * 128, 0, full);
    if constexpr (Shape::kCoded) {
      TensorLoad(shared.x_scales[cursor.slot], &plan.x_scale_map, 0, unit, full);
    }
    cursor.Advance();
  }
}

}  // namespace tessera::kernels::cuda
