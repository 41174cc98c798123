// What the kernels of skinny_whole.cuh are made of: their shapes, shared memory and shares.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/linear/skinny_format.cuh"
#include "kernels/cuda/linear/skinny_plan.h"

namespace tessera::kernels::cuda {

// What is fixed when a kernel is compiled.
template <typename Format_, int kN_, bool kPair_>
struct WholeShape {
  using Format = Format_;
  static constexpr int kN = kN_;  // channels of a warpgroup's products
  static constexpr bool kPair = kPair_;
  static constexpr int kGroups = 2;
  static constexpr int kThreads = 128 * (1 + kGroups);
  static constexpr int kParts = kPair ? 1 : 2;                 // gate and up
  static constexpr int kChannels = kPair ? kN : kGroups * kN;  // of a tile
  static constexpr int kRegisters = kN / 2;                    // accumulators of a thread and part
  static constexpr uint32_t kBoxBytes = kN * 128;
  // [warpgroup][part], or what one warpgroup of a pair takes.
  static constexpr int kBoxes = kPair ? 1 : kGroups * kParts;
  static constexpr uint32_t kSlotBytes = kBoxes * kBoxBytes;
  // Warps that read a slot, of weights or of x.
  static constexpr int kReaders = kPair ? 4 : 4 * kGroups;
  // Slots that a warpgroup goes on by.
  static constexpr int kTurn = kPair ? kGroups : 1;
  static constexpr uint32_t kInputBytes = kSkinnyMaxRows * 128;
  static constexpr int kInputSlots = kPair ? 8 : 4;
  // Sums that come to a warpgroup of a pair: [sender][8 channels][128 threads], 16 bytes each.
  static constexpr int kOwners = 2 * kGroups;
  static constexpr int kTiles = kN / 8;                               // of 8 channels
  static constexpr int kOwnTiles = (kTiles + kOwners - 1) / kOwners;  // the last ones may have less
  static constexpr int kSenders = kPair ? kOwners - 1 : 0;
  static constexpr uint32_t kArrivedBytes = kGroups * kSenders * kOwnTiles * 128 * 16;
  static constexpr uint32_t kLimit = 222 * 1024;
  static constexpr int kSlots =
      (kLimit - kInputSlots * kInputBytes - kArrivedBytes) / kSlotBytes / kTurn * kTurn;
  static_assert(kN % 8 == 0 && kSlots >= 4);
  static_assert(kInputSlots % kTurn == 0);
  // Tiles of an owner.
  static __host__ __device__ constexpr int TilesOf(int owner) {
    const int left = kTiles - owner * kOwnTiles;
    return left < 0 ? 0 : left < kOwnTiles ? left : kOwnTiles;
  }
  // That are on their way at a time while the ring fills for the first time.
  static constexpr int kFirstSlots = std::max<int>(2, 2 * kSkinnyFirstBytes / kSlotBytes);
};

// The block's shared memory.
template <typename Whole>
struct WholeShared {
  alignas(1024) uint8_t input[Whole::kInputSlots][Whole::kInputBytes];
  alignas(1024) uint8_t weights[Whole::kSlots][Whole::kSlotBytes];
  // Of a pair: what other warpgroups send to each of this block's.
  float4 arrived[Whole::kPair ? Whole::kGroups : 1][Whole::kPair ? Whole::kSenders : 1]
                [Whole::kPair ? Whole::kOwnTiles : 1][Whole::kPair ? 128 : 1];
  // Of gate and up.
  float scales[2][Whole::kPair ? 1 : Whole::kChannels];
  float x_scales[Whole::kPair ? 1 : kSkinnyMaxRows];
  // Of rows that are rounded here.
  float unit_scales[Whole::kInputSlots][kSkinnyRoundedRows];
  uint64_t weights_full[Whole::kSlots];
  uint64_t weights_empty[Whole::kSlots];
  uint64_t input_full[Whole::kInputSlots];
  uint64_t input_empty[Whole::kInputSlots];
  uint64_t arrived_full[Whole::kGroups];
};

// What this block has: channels of a task from `first` on, and units.
template <typename Whole>
struct WholeShare {
  int task, first, unit_begin, unit_end;

  __device__ __forceinline__ explicit WholeShare(const SkinnyPlan& plan) {
    const int block = static_cast<int>(blockIdx.x);
    const int tile = Whole::kPair ? block >> 1 : block;
    first = (tile - plan.TaskOf(tile, &task).first_tile) * Whole::kChannels;
    unit_begin = 0;
    unit_end = plan.tile_units;
    if constexpr (Whole::kPair) {
      const int half = (plan.tile_units + 1) / 2;
      if ((block & 1) == 0) {
        unit_end = half;
      } else {
        unit_begin = half;
      }
    }
  }
};

}  // namespace tessera::kernels::cuda
