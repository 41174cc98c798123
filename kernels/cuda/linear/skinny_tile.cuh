// The kernel of skinny.h for sm_90a. A block has one producer warpgroup (warp 0 streams weights
// into a ring by the copy engine, the others bring x) and one or two consumer warpgroups, each with
// its own 128 rows of the tile: weights are the row operand of the matrix products, tokens the
// columns.
//
// Only x, y and the workspace wait for earlier kernels; the ring is full of weights by then.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/linear/skinny_consumer.cuh"
#include "kernels/cuda/linear/skinny_epilogue.cuh"
#include "kernels/cuda/linear/skinny_few.cuh"
#include "kernels/cuda/linear/skinny_format.cuh"
#include "kernels/cuda/linear/skinny_input.cuh"

namespace tessera::kernels::cuda {

// Runs work(piece) for each piece of this block, in order.
template <typename Work>
__device__ __forceinline__ void ForPieces(const SkinnyPlan& plan, Work work) {
  const int begin = plan.UnitBegin(blockIdx.x), end = plan.UnitBegin(blockIdx.x + 1);
  int tile = begin / plan.tile_units;
  int unit_begin = begin - tile * plan.tile_units;
  for (int unit = begin; unit < end;) {
    const int left = end - unit;
    const int unit_end = left < plan.tile_units - unit_begin ? unit_begin + left : plan.tile_units;
    work(SkinnyPiece{tile, unit_begin, unit_end, unit == begin,
                     unit + unit_end - unit_begin == end});
    unit += unit_end - unit_begin;
    unit_begin = 0;
    ++tile;
  }
}

// The rows of one group in a tile, as the copy engine loads them.
template <typename Tile>
struct GroupSource {
  const CUtensorMap* maps[2];
  int row[2];  // of each block of 64
  const std::byte* records[2];
  uint32_t record_bytes[2];  // 0: past the last row

  __device__ GroupSource(const SkinnyPlan& plan, const SkinnyPiece& piece, int group) {
    int index;
    const SkinnyPlanTask& task = plan.TaskOf(piece.tile, &index);
    const int first = (piece.tile - task.first_tile) * Tile::kGroups + group;
#pragma unroll
    for (int b = 0; b < 2; ++b) {
      const int part = plan.gated ? b : 0;
      row[b] = plan.gated ? first * 64 : first * kSkinnyGroupRows + b * 64;
      maps[b] = &plan.weight_maps[index][part];
      if constexpr (Tile::Format::kPacked) {
        record_bytes[b] = 0;
        if (row[b] >= task.out) continue;
        record_bytes[b] = Int4RunRecords(task.out, row[b]) * Tile::Format::kRecordBytes;
        records[b] = task.weight[part] + Int4RecordOffset(row[b], piece.unit_begin * 128, task.out,
                                                          plan.in, Tile::Format::kRecordBytes);
      }
    }
  }

  __device__ __forceinline__ void Load(const SkinnyPlan& plan, int unit, uint8_t* slot,
                                       uint64_t* full, uint64_t policy) {
    if constexpr (Tile::Format::kPacked) {
      BarrierExpect(full, record_bytes[0] + record_bytes[1]);
#pragma unroll
      for (int b = 0; b < 2; ++b) {
        if (record_bytes[b] == 0) continue;
        BulkLoad(slot + b * Tile::Format::kBlockBytes, records[b], record_bytes[b], full, policy);
        records[b] += record_bytes[b];
      }
    } else {
      BarrierExpect(full, Tile::kSlotBytes);
      TensorLoad(slot, maps[0], unit * 128, row[0], full, policy);
      if (plan.gated) {
        TensorLoad(slot + Tile::Format::kBlockBytes, maps[1], unit * 128, row[1], full, policy);
      }
    }
  }

  // `unit`, `ahead` units behind the next to be loaded.
  __device__ __forceinline__ void Prefetch(const SkinnyPlan& plan, int ahead, int unit) const {
    if constexpr (Tile::Format::kPacked) {
#pragma unroll
      for (int b = 0; b < 2; ++b) {
        if (record_bytes[b] != 0) {
          PrefetchBulk(records[b] + ahead * record_bytes[b], record_bytes[b]);
        }
      }
    } else {
      PrefetchTensor(maps[0], unit * 128, row[0]);
      if (plan.gated) PrefetchTensor(maps[1], unit * 128, row[1]);
    }
  }
};

// Units that are asked into L2 when the ring is full for the first time: mostly while the kernel
// before the last adds its pieces and nothing else reads.
inline constexpr int kPrefetchUnits = 2;

// One thread. Its own arithmetic a slot bounds the whole stream, so divisions stay out of the loop.
template <typename Tile>
__device__ __forceinline__ void StreamWeights(const SkinnyPlan& plan, SkinnyShared<Tile>& shared) {
  const uint64_t policy = EvictFirstPolicy();
  RingCursor<Tile::kSlots> cursor, arrived;
  int loaded = 0, filled = 0;
  ForPieces(plan, [&](const SkinnyPiece& piece) {
    GroupSource<Tile> first(plan, piece, 0);
    GroupSource<Tile> second(plan, piece, Tile::kGroups - 1);
    for (int unit = piece.unit_begin; unit < piece.unit_end; ++unit) {
#pragma unroll
      for (int group = 0; group < Tile::kGroups; ++group) {
        BarrierWait(&shared.weights_empty[cursor.slot], cursor.parity ^ 1);
        if (filled < Tile::kSlots || Tile::kPaced) {
          if (filled >= Tile::kFirstSlots) {
            BarrierWait(&shared.weights_full[arrived.slot], arrived.parity);
            arrived.Advance();
          }
          ++filled;
        }
        (group == 0 ? first : second)
            .Load(plan, unit, shared.weights[cursor.slot], &shared.weights_full[cursor.slot],
                  policy);
        cursor.Advance();
      }
      if (++loaded != Tile::kSlots / Tile::kGroups) continue;
      for (int next = unit + 1; next < min(unit + 1 + kPrefetchUnits, piece.unit_end); ++next) {
        first.Prefetch(plan, next - unit - 1, next);
        if (Tile::kGroups > 1) second.Prefetch(plan, next - unit - 1, next);
      }
    }
  });
}

template <typename Tile>
__device__ __forceinline__ void Produce(const SkinnyPlan& plan, SkinnyShared<Tile>& shared,
                                        int warp) {
  if (warp == 0) {
    if (ElectOne()) StreamWeights<Tile>(plan, shared);
  } else if (warp == 1) {
    if (ElectOne()) CopyInput<Tile>(plan, shared);
  } else if (Tile::Format::kCoded && warp == 2) {
    WaitForPrior();
    for (int row = LaneId(); row < plan.rows; row += 32) {
      shared.x_scales[row] = plan.x_scales[row];
    }
  }
  // Whole warps meet the block's barrier.
  __syncwarp();
}

// What a block owns of its last tile, which it finishes when it has nothing left to stream.
template <typename Tile>
struct LastTile {
  const int tile;
  const TileBlocks blocks;
  const OwnedTokens owned;

  __device__ __forceinline__ explicit LastTile(const SkinnyPlan& plan)
      : tile((plan.UnitBegin(blockIdx.x + 1) - 1) / plan.tile_units),
        blocks(plan, tile, blockIdx.x),
        owned(blocks, Tile::kColumns / 8) {}

  // Adds and writes a warpgroup's share. `helper`: which of those of the group's rows it is.
  __device__ __forceinline__ void Finish(const SkinnyPlan& plan, SkinnyShared<Tile>& shared,
                                         int group, int helper) const {
    int index;
    const SkinnyPlanTask& task = plan.TaskOf(tile, &index);
    const TileOutput<Tile> output(plan, task, owned, tile, group);
    if (blocks.count > 1) AddPieces<Tile>(plan, shared, blocks, group, helper, owned);
    SyncGroup<Tile>(group);
    output.Write(shared, group, 4 * helper + (threadIdx.x >> 5 & 3));
  }
};

template <typename Tile>
__device__ __forceinline__ void FinishPiece(const SkinnyPlan& plan, SkinnyShared<Tile>& shared,
                                            const SkinnyPiece& piece, const SkinnyPlanTask& task,
                                            int group, SkinnySums<Tile>& sums) {
  constexpr int kTokenGroups = Tile::kColumns / 8;
  const TileBlocks blocks(plan, piece.tile, blockIdx.x);
  if (blocks.count == 1 && !piece.is_last) {
    const SkinnyRowScales scales = LoadRowScales<Tile>(plan, task, piece.tile, group);
    const int first_row = FirstRow<Tile>(plan, task, piece.tile, group);
#pragma unroll 1
    for (int j = 0; j < kTokenGroups; ++j) {
      TokenWords words;
      TakeTokens<Tile>(sums, words);
      WriteTokens<Tile>(plan, task, first_row, j, words, scales);
      RotateTokens<Tile>(sums);
    }
    return;
  }
  // The last block may have more tiles to stream and owns nothing. All that others wait for is sent
  // before this waits for others.
  const OwnedTokens owned(blocks, kTokenGroups);
  if (owned.count > 0) {
    // Where the producer warps help they are waited for first.
    if constexpr (Tile::kHelpers == 2) return;
    // Other warps of the group may still read the slots.
    SyncGroup<Tile>(group);
  }
  DealPieces<Tile>(plan, shared, blocks, group, owned, sums);
}

// Constants of a piece are loaded before earlier kernels have ended. `sums`: of the last piece.
template <typename Tile>
__device__ __forceinline__ void Consume(const SkinnyPlan& plan, SkinnyShared<Tile>& shared,
                                        int group, SkinnySums<Tile>& sums) {
  SkinnyConsumer<Tile> consumer{plan, shared, group};
  ForPieces(plan, [&](const SkinnyPiece& piece) {
    int index;
    const SkinnyPlanTask& task = plan.TaskOf(piece.tile, &index);
    sums = SkinnySums<Tile>{};
    if constexpr (Tile::Format::kRegisters) {
      SkinnyCodeSource<Tile> source(plan, task, piece, group);
      if (piece.is_first) WaitForPrior();
      if constexpr (Tile::kWide) {
        consumer.SumWide(piece, source, sums);
      } else {
        consumer.SumConverted(piece, source, sums);
      }
    } else {
      if (piece.is_first) WaitForPrior();
      consumer.SumShared(piece, sums);
    }
    FinishPiece<Tile>(plan, shared, piece, task, group, sums);
  });
  if constexpr (Tile::kHelpers == 1) {
    const LastTile<Tile> last(plan);
    if (last.owned.count > 0) last.Finish(plan, shared, group, 0);
  }
}

template <typename Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kGeometry.resident)
    SkinnyKernel(const __grid_constant__ SkinnyPlan plan) {
  extern __shared__ __align__(1024) uint8_t memory[];
  auto& shared = *reinterpret_cast<SkinnyShared<Tile>*>(memory);
  const int warp = UniformWarp();
  if (threadIdx.x == 0) {
    for (int i = 0; i < Tile::kSlots; ++i) {
      BarrierInit(&shared.weights_full[i], 1);
      BarrierInit(&shared.weights_empty[i], 4);
    }
    for (int i = 0; i < Tile::kInputSlots; ++i) {
      BarrierInit(&shared.input_full[i], 1);
      BarrierInit(&shared.input_empty[i], 4 * Tile::kGroups);
    }
    BarrierInitFence();
  }
  __syncthreads();
  LetNextStart();
  SkinnySums<Tile> sums;
  if (warp < 4) {
    if constexpr (Tile::kGroups == 2) LowerRegisters<Tile::kProducerRegisters>();
    Produce<Tile>(plan, shared, warp);
  } else {
    if constexpr (Tile::kGroups == 2) RaiseRegisters<Tile::kConsumerRegisters>();
    Consume<Tile>(plan, shared, warp / 4 - 1, sums);
  }
  if constexpr (Tile::kHelpers == 2) {
    const LastTile<Tile> last(plan);
    if (last.owned.count == 0) return;
    // Warps may still read the slots.
    __syncthreads();
    if (warp < 4) {
      WaitForPrior();
    } else {
      DealPieces<Tile>(plan, shared, last.blocks, 0, last.owned, sums);
    }
    __syncthreads();
    last.Finish(plan, shared, 0, warp < 4 ? 1 : 0);
  }
}

template <typename Tile>
cudaError_t LaunchSkinnyTile(const SkinnyPlan& plan, int blocks, cudaStream_t stream) {
  // Without the padding behind its last member: it would be the few bytes that two blocks lack.
  constexpr size_t kBytes = offsetof(SkinnyShared<Tile>, input_empty) + 8 * Tile::kInputSlots;
  static_assert(kBytes <= Tile::kSharedLimit);
  constexpr size_t kMostBytes = std::max(kBytes, Tile::kMayBeAlone ? kSkinnyTileAloneBytes : 0);
  static_assert(!Tile::kMayBeAlone || kMostBytes + kBytes <= kSkinnyPairBytes);
  static std::atomic<uint64_t> prepared{0};  // a bit a device
  const cudaError_t error = PrepareKernel(reinterpret_cast<const void*>(&SkinnyKernel<Tile>),
                                          static_cast<int>(kMostBytes), prepared);
  if (error != cudaSuccess) return error;
  return LaunchDependent(SkinnyKernel<Tile>, dim3(blocks), dim3(Tile::kThreads),
                         plan.place == SkinnyPlace::kAlone ? kMostBytes : kBytes, 1, stream, plan);
}

// The kernel of `columns` for a weight type.
template <typename Format>
cudaError_t LaunchSkinnyTiles(const SkinnyPlan& plan, int columns, int blocks,
                              cudaStream_t stream) {
  switch (columns) {
    case 16:
      return LaunchSkinnyTile<SkinnyTile<Format, 16>>(plan, blocks, stream);
    case 32:
      return LaunchSkinnyTile<SkinnyTile<Format, 32>>(plan, blocks, stream);
    case 64:
      return LaunchSkinnyTile<SkinnyTile<Format, 64>>(plan, blocks, stream);
    default:
      return cudaErrorInvalidValue;
  }
}
template <typename Format>
cudaError_t LaunchSkinnyFormat(const SkinnyPlan& plan, int columns, int blocks,
                               cudaStream_t stream) {
  return columns == 8 ? LaunchSkinnyFew<Format>(plan, blocks, stream)
                      : LaunchSkinnyTiles<Format>(plan, columns, blocks, stream);
}

}  // namespace tessera::kernels::cuda
