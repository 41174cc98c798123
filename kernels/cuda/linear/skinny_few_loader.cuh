// Which tiles a block, a pass and a warp of skinny_few.cuh have, and how a warp streams its own.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/linear/skinny_format.cuh"
#include "kernels/cuda/linear/skinny_plan.h"

namespace tessera::kernels::cuda {

inline constexpr int kFewMostWarps = 16;
inline constexpr int kFewMostSlots = 96;  // of a block
inline constexpr int kFewMostTiles = 16;  // of a pass
// Units of 128 columns of up to 8 rows that a block keeps.
inline constexpr int kFewMostScales = kSkinnyMostKept / 128 + 8;

// How x gets to the warps: each reads its own from device memory, or the block keeps all of it in
// shared memory, as it is or normalised.
enum class FewX : uint8_t { kFetched, kCopied, kNormed };

// What is fixed when a kernel is compiled: `kTiles_` is the most that a warp sums at a time;
// `kSets_` the fours of rows of x that digits are of (of other numbers: 1); `kTokens_` of a row of
// weights that a thread finishes at a time.
template <typename Format_, int kTiles_, FewX kX_, int kSets_, int kTokens_>
struct FewShape {
  using Format = Format_;
  static constexpr int kTiles = kTiles_;
  static constexpr int kSets = kSets_;
  static constexpr int kTokens = kTokens_;
  static constexpr FewX kX = kX_;
  static constexpr bool kKeepsX = kX != FewX::kFetched;
  static constexpr bool kIsDigits = Format::kNumbers == SkinnyNumbers::kDigits;
  static constexpr bool kIsScaled = Format::kNumbers != SkinnyNumbers::kBf16;
  // Four warps a scheduler hide what an item waits for, where half of the registers suffice and a
  // warp's ring still has four slots.
  static constexpr int kWarps = Format::kPacked && kSets == 1 && kKeepsX ? 16 : 8;
  static constexpr int kThreads = kWarps * 32;
  // Slots of a warp, at most. More on their way than keep the memory busy make each come later, and
  // x of what runs beside: 64 KB a block do, of int4 50, one row of bf16 wants 80, of 8 bits 96.
  static constexpr int kMostSlots = kWarps == 16                               ? 3
                                    : Format::kPacked || kTokens > 1           ? 4
                                    : Format::kNumbers == SkinnyNumbers::kBf16 ? 5
                                                                               : 6;
  static constexpr bool kGrouped =
      Format::kScale == SkinnyScale::kBlock || Format::kScale == SkinnyScale::kGroup;
  static constexpr int kGroupColumns = kGrouped ? ScaleGroup(Format::kDType) : 0;
  static constexpr int kSums = kIsDigits ? 2 * kSets : 4;      // of a lane and tile
  static constexpr uint32_t kSumBytes = kTiles * kSums * 128;  // of a warp
};

// What becomes of the sums of a row of a tile.
struct alignas(16) FewOutput {
  float scale;  // of the channel; 1 for other types
  float bias;   // 0 where there is none
  void* y;      // element of token 0, where that is row 0 of y; null: past the last row
};

// The block's shared memory: this, x where it is kept, the warps' rings.
template <typename Few>
struct FewShared {
  uint64_t full[kFewMostSlots];
  float squares[kFewMostWarps][8];  // sums of squares of residual rows, of each warp's columns
  FewOutput outputs[kFewMostTiles][kSkinnyFewRows];
  float unit_scale[kFewMostScales];  // [row, units], of x in float16
};

inline constexpr uint32_t kFewHeadBytes = 6144;
static_assert(sizeof(FewShared<FewShape<SkinnyBf16, 4, FewX::kNormed, 1, 1>>) <= kFewHeadBytes);

// Bytes of a row of x in shared memory, whole units of it; rows begin in different banks.
TESSERA_HOST_DEVICE uint32_t FewInputStride(int in) {
  return (uint32_t(in) + 127) / 128 * 256 + 16;
}
template <typename Few>
TESSERA_HOST_DEVICE uint32_t FewInputBytes(const SkinnyPlan& plan) {
  return Few::kKeepsX ? (plan.rows * FewInputStride(plan.in) + 1023) / 1024 * 1024 : 0;
}

// Slots of a warp in a block of `bytes` of shared memory.
template <typename Few>
int FewSlots(const SkinnyPlan& plan, size_t bytes) {
  const size_t ring = (bytes - kFewHeadBytes - FewInputBytes<Few>(plan)) / Few::kWarps;
  return static_cast<int>(
      std::min<size_t>(ring / Few::Format::kRecordBytes, kFewMostSlots / Few::kWarps));
}

template <typename Few>
__device__ __forceinline__ uint32_t FewRingBytes(const SkinnyPlan& plan) {
  return plan.few_slots * Few::Format::kRecordBytes;
}
template <typename Few>
__device__ __forceinline__ uint8_t* FewRing(const SkinnyPlan& plan, FewShared<Few>& shared,
                                            int warp) {
  return reinterpret_cast<uint8_t*>(&shared) + kFewHeadBytes + FewInputBytes<Few>(plan) +
         warp * FewRingBytes<Few>(plan);
}

// Warps that have the same tiles and divide the units among them.
struct FewTeam {
  int index;  // of the team
  int warps;
  int place;  // of the warp in it

  // Of `all` warps.
  __device__ __forceinline__ FewTeam(const SkinnyPlan& plan, int all, int warp)
      : index(plan.few_teams == 1 ? 0 : warp / (all / 2)),
        warps(all / plan.few_teams),
        place(warp - index * warps) {}
};

// Tiles that a block sums at a time: so many that its teams can hold them.
struct FewPass {
  int first;       // tile, of all tasks; gate and up take turns where gated
  int count;       // 0 behind the last pass
  int first_half;  // tiles of the first team, which has all where there is one team

  static __device__ __forceinline__ int TilesOf(const SkinnyPlan& plan, int* first) {
    const int parts = plan.gated != 0 ? 2 : 1;
    const int begin = plan.UnitBegin(blockIdx.x), end = plan.UnitBegin(blockIdx.x + 1);
    *first = begin * parts;
    return (end - begin) * parts;
  }
  static __device__ __forceinline__ int CountOf(const SkinnyPlan& plan) {
    int first;
    return (TilesOf(plan, &first) + plan.few_tiles - 1) / plan.few_tiles;
  }
  __device__ __forceinline__ FewPass(const SkinnyPlan& plan, int index) {
    const int tiles = TilesOf(plan, &first);
    const int skipped = min(tiles, index * plan.few_tiles);
    first += skipped;
    count = min(plan.few_tiles, tiles - skipped);
    first_half = plan.few_teams == 1 ? count : (count + 1) / 2;
  }
};

// The tiles of a warp's team in a pass.
struct FewTiles {
  int first;
  int count;

  __device__ __forceinline__ FewTiles(const FewPass& pass, const FewTeam& team)
      : first(pass.first + (team.index == 0 ? 0 : pass.first_half)),
        count(team.index == 0 ? pass.first_half : pass.count - pass.first_half) {}
};

// Where a tile lies.
struct FewPlace {
  const SkinnyPlanTask* task;
  int task_index;
  int part;  // 1: of `up`
  int row;   // first row of the weight

  __device__ __forceinline__ FewPlace(const SkinnyPlan& plan, int tile) {
    const int group = plan.gated != 0 ? tile >> 1 : tile;
    part = plan.gated != 0 ? tile & 1 : 0;
    task = &plan.TaskOf(group, &task_index);
    row = (group - task->first_tile) * kSkinnyFewRows;
  }
  // The weight's row that is row `in_tile` (0..15) of the tile.
  template <typename Format>
  __device__ __forceinline__ int RowOf(int in_tile) const {
    return row + Format::RowOf(in_tile & 7) + (in_tile & 8);
  }
};

// A warp's ring. Lane t knows where the records of the warp's tile t are; an elected one loads
// them: where lanes copy for themselves, the compiler makes a loop of it.
template <typename Few>
class FewLoader {
  using Format = typename Few::Format;

 public:
  // `more` passes follow the first: the warp's sums, which else take the place of the ring's last
  // slots, then need their own.
  __device__ __forceinline__ FewLoader(const SkinnyPlan& plan, FewShared<Few>& shared, int warp,
                                       bool more)
      : plan_(plan),
        full_(shared.full + warp * (kFewMostSlots / Few::kWarps)),
        ring_(FewRing<Few>(plan, shared, warp)),
        policy_(EvictFirstPolicy()) {
    constexpr int kSumSlots = (Few::kSumBytes + Format::kRecordBytes - 1) / Format::kRecordBytes;
    slots_ = min(Few::kMostSlots, more ? plan.few_slots - kSumSlots : plan.few_slots);
    if (LaneId() < slots_) BarrierInit(&full_[LaneId()], 1);
    BarrierInitFence();
    __syncwarp();
  }

  // Fills the ring with the slots of pass `index`, those of the first one by and by
  // (kSkinnyFirstBytes).
  __device__ __forceinline__ void Begin(const FewTeam& team, const FewTiles& tiles, int index) {
    if (index > 0) GiveBack();
    step_ = team.warps;
    unit_ = team.place;
    tile_ = 0;
    tiles_ = tiles.count;
    if (LaneId() < tiles_) {
      const FewPlace place(plan_, tiles.first + LaneId());
      if constexpr (Format::kPacked) {
        stride_ =
            Int4RunRecords(place.task->out, place.row) * Format::kRecordBytes * uint32_t(step_);
        source_ = reinterpret_cast<uint64_t>(place.task->weight[place.part]) +
                  Int4RecordOffset(place.row, unit_ * kInt4RecordColumns, place.task->out, plan_.in,
                                   Format::kRecordBytes);
      } else {
        row_ = place.row;
        source_ = reinterpret_cast<uint64_t>(&plan_.weight_maps[place.task_index][place.part]);
      }
    }
    if (tiles_ == 0) unit_ = plan_.tile_units;
#pragma unroll 1
    for (int i = 0, slot = slot_; i < slots_; ++i) {
      const Record record = TakeRecord();
      if (record.unit < plan_.tile_units) {
        if (index == 0 && i == kFirstSlots) BarrierWait(&full_[0], 0);
        if (ElectOne()) Load(record, slot);
      }
      slot = slot + 1 == slots_ ? 0 : slot + 1;
    }
  }

  // The next slot, when it is full.
  __device__ __forceinline__ const uint8_t* WaitForNext() {
    next_ = TakeRecord();
    BarrierWait(&full_[slot_], parity_);
    return ring_ + slot_ * Format::kRecordBytes;
  }
  // The slot of WaitForNext has been read.
  __device__ __forceinline__ void Refill() {
    if (next_.unit < plan_.tile_units) {
      GiveBack();
      if (ElectOne()) Load(next_, slot_);
    }
    if (++slot_ == slots_) {
      slot_ = 0;
      parity_ ^= 1;
    }
  }
  // Of this warp, when its last slot has been read.
  __device__ __forceinline__ float* sums() const {
    return reinterpret_cast<float*>(ring_ + FewRingBytes<Few>(plan_) - Few::kSumBytes);
  }

 private:
  static constexpr uint32_t kSlotsBytes = Few::kWarps * Format::kRecordBytes;
  static constexpr int kFirstSlots =
      std::max<int>(1, (kSkinnyFirstBytes + kSlotsBytes / 2) / kSlotsBytes);

  // The same in all lanes.
  struct Record {
    uint64_t source;  // its first byte, or its tensor map
    int row;          // of its tile, with a tensor map
    int unit;         // past the last: there is none
  };

  // Before a copy into slots that the warp has read: without the fence copies now and then overtook
  // loads of other lanes.
  static __device__ __forceinline__ void GiveBack() {
    FenceAsyncShared();
    __syncwarp();
  }
  // The record to be loaded next, and goes on.
  __device__ __forceinline__ Record TakeRecord() {
    Record record{__shfl_sync(0xffffffffu, source_, tile_), 0, unit_};
    if constexpr (Format::kPacked) {
      if (LaneId() == tile_) source_ += stride_;
    } else {
      record.row = __shfl_sync(0xffffffffu, row_, tile_);
    }
    if (++tile_ >= tiles_) {
      tile_ = 0;
      unit_ += step_;
    }
    return record;
  }
  // One lane.
  __device__ __forceinline__ void Load(const Record& record, int slot) {
    BarrierExpect(&full_[slot], Format::kRecordBytes);
    uint8_t* to = ring_ + slot * Format::kRecordBytes;
    if constexpr (Format::kPacked) {
      BulkLoad(to, reinterpret_cast<const void*>(record.source), Format::kRecordBytes, &full_[slot],
               policy_);
    } else {
      TensorLoad(to, reinterpret_cast<const CUtensorMap*>(record.source), record.unit * 128,
                 record.row, &full_[slot], policy_);
    }
  }

  const SkinnyPlan& plan_;
  uint64_t* const full_;
  uint8_t* const ring_;
  const uint64_t policy_;
  int slots_;
  int slot_ = 0;
  uint32_t parity_ = 0;
  Record next_;  // to be loaded when what was waited for is read
  // The next slot to be loaded.
  int unit_ = 0, tile_ = 0, tiles_ = 0, step_ = 0;
  // Of this lane's tile: its tensor map, or its record of the next unit to be loaded.
  uint64_t source_ = 0;
  uint32_t stride_ = 0;
  int row_ = 0;
};

}  // namespace tessera::kernels::cuda
