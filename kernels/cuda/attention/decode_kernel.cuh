// The kernel of paged decode attention: one thread block a multiprocessor, one warp that loads
// planes, eight that compute. See decode.h for what it does and decode_tile.cuh for the arithmetic.
#pragma once

#include "kernels/cuda/attention/decode.h"
#include "kernels/cuda/attention/decode_append.cuh"
#include "kernels/cuda/attention/decode_item.h"
#include "kernels/cuda/attention/decode_loader.cuh"
#include "kernels/cuda/attention/decode_merge.cuh"
#include "kernels/cuda/attention/decode_tile.cuh"

namespace tessera::kernels::cuda {

// Half of what Hopper's multiprocessors have, less what the device keeps of each block's.
inline constexpr int kDecodeHalfBytes = 113 * 1024;

// Places in dynamic shared memory, bytes; the ring comes first.
template <typename Shape>
struct DecodeShared {
  static constexpr int kMergeBytes = Shape::kWarps * 8 * Shape::kMergeStride * 4;
  static constexpr int kQueryBytes = Shape::kColumns * Shape::kQueryStride * 2;
  static constexpr int kStatisticsBytes = Shape::kWarps * Shape::kWarpColumns * 8;
  static constexpr int kSlotBytes = Shape::kPlaneBytes + 8 + 8 + 4;  // plane, barriers, meta
  static constexpr int kPatchedBytes = 2 * 8;
  static constexpr int kFixedBytes = kMergeBytes + kQueryBytes + kStatisticsBytes + kPatchedBytes;
  static constexpr int kMaxSlots = 32;

  // Slots of a ring that leaves room for the rest in `limit` bytes. With a multiple of four a slot
  // serves one group of warps for ever: a warp that waits for its plane has seen the slot's plane
  // before that one, without which it might take the barrier's last phase but one for its own.
  static constexpr int Slots(int limit) {
    const int slots = (limit - kFixedBytes) / kSlotBytes / 4 * 4;
    return slots < kMaxSlots ? slots : kMaxSlots;
  }
  // Half a ring has to hold the planes of two pages.
  static constexpr int SlotsOf(DecodeRing ring, int limit) {
    const int half = Slots(limit < kDecodeHalfBytes ? limit : kDecodeHalfBytes);
    return ring == DecodeRing::kHalf && half >= 4 ? half : Slots(limit);
  }
  static constexpr int Bytes(int slots) { return kFixedBytes + slots * kSlotBytes; }
};

template <typename Shape>
__device__ __forceinline__ MergeBuffers CarveShared(unsigned char* shared, uint32_t slots,
                                                    PlaneRing& ring, uint16_t*& query) {
  using Layout = DecodeShared<Shape>;
  ring.planes = shared;
  ring.slots = slots;
  ring.plane_bytes = Shape::kPlaneBytes;
  unsigned char* at = shared + slots * Shape::kPlaneBytes;
  MergeBuffers merge;
  merge.values = reinterpret_cast<float*>(at);
  at += Layout::kMergeBytes;
  query = reinterpret_cast<uint16_t*>(at);
  at += Layout::kQueryBytes;
  merge.statistics = reinterpret_cast<float2*>(at);
  at += Layout::kStatisticsBytes;
  ring.patched = reinterpret_cast<uint64_t*>(at);
  at += Layout::kPatchedBytes;
  ring.full = reinterpret_cast<uint64_t*>(at);
  ring.empty = ring.full + slots;
  ring.meta = reinterpret_cast<PageMeta*>(ring.empty + slots);
  return merge;
}

// Copies the queries of an item to shared memory; rows of columns that are not there become zero.
template <typename Shape>
__device__ __forceinline__ void StoreQuery(const DecodeKernelArgs& args, const DecodeItem& item,
                                           uint16_t* query) {
  constexpr int kChunks = Shape::kHeadDim / 8;
  const int columns = item.q_rows * args.group;
  for (int i = static_cast<int>(threadIdx.x); i < Shape::kColumns * kChunks; i += Shape::kThreads) {
    const int column = i / kChunks;
    const int chunk = i % kChunks;
    uint4 bits = make_uint4(0, 0, 0, 0);
    if (column < columns) {
      const int row = RowOf(args, column);
      const int head = item.kv_head * args.group + (column - row * args.group);
      bits = *reinterpret_cast<const uint4*>(args.q + (item.q_begin + row) * args.q_stride +
                                             head * Shape::kHeadDim + chunk * 8);
    }
    *reinterpret_cast<uint4*>(query + column * Shape::kQueryStride + chunk * 8) =
        QueryBits<Shape>(bits);
  }
}

template <typename Shape>
__device__ __forceinline__ ColumnLimits<Shape> LimitsOf(const DecodeKernelArgs& args,
                                                        const DecodeItem& item, int first_column) {
  ColumnLimits<Shape> limits;
  const int columns = item.q_rows * args.group;
#pragma unroll
  for (int tile = 0; tile < Shape::kTiles; ++tile) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      const int column = first_column + tile * 8 + LaneId() % 4 * 2 + c;
      const int row = RowOf(args, column);
      limits.last[tile][c] = column < columns ? item.position + row : -1;
      limits.head_bit[tile][c] = 1u << (column - row * args.group & 7);
    }
  }
  limits.window = args.window == 0 ? 1 << 30 : args.window;
  limits.common_last = item.position;
  limits.last_token = item.position + item.q_rows - 1;
  limits.first_token = max(0, item.position - limits.window + 1);
  limits.common_first = max(0, limits.last_token - limits.window + 1);
  return limits;
}

// `group`: of four warps.
template <typename Shape>
__device__ __forceinline__ void ComputeItems(const DecodeKernelArgs& args, const PlaneRing& ring,
                                             uint16_t* query, const MergeBuffers& merge,
                                             const DecodeItem& first, int group) {
  const int column_group = Shape::kColumnGroups == 2 ? group : 0;
  const uint32_t page_group = Shape::kColumnGroups == 2 ? 0 : group;
  const int first_column = column_group * Shape::kWarpColumns;
  const bool appends = kMayAppend<Shape> && args.append.rows > 0;
  DecodeItem item = first;
  RowAppender<Shape> appender;
  if (appends) {
    if (args.history == KvHistory::kInFlight) WaitForPrior();
    appender.Begin(args, item);
  }
  WaitForPrior();
  if (appends) appender.Load(args, item);
  uint32_t last_split = kNoItem;  // first item of this block that completes a row
  uint32_t place = blockIdx.x;
  RingPosition start;
  while (true) {
    const uint32_t following = item.next == kNoItem ? 0 : FetchItem(args.items + item.next);
    const ColumnLimits<Shape> limits = LimitsOf<Shape>(args, item, first_column);
    SoftmaxState<Shape> state;
    state.Clear();
    if (appends) {
      appender.Store(args, item, query);
    } else {
      StoreQuery<Shape>(args, item, query);
    }
    SyncNamed(kComputeBarrier, Shape::kThreads);
    QueryTile<Shape> tile;
    tile.Load(query + first_column * Shape::kQueryStride);
    const bool patches = appends && appender.takes();
    RingPosition at = start;
    at.Advance(2 * page_group, ring.slots);
    for (uint32_t page = page_group; page < item.page_count; page += Shape::kPageGroups) {
      if (patches && page + 1 == item.page_count) appender.Patch(ring, at, page_group);
      AddPage<Shape>(ring, at, args.scale_log2, tile, limits, state);
      at.Advance(2 * Shape::kPageGroups, ring.slots);
    }
    start.Jump(2 * item.page_count, ring.slots);
    const DecodeItem next = item.next == kNoItem ? DecodeItem{} : ItemOf(following);
    if (appends && item.next != kNoItem) {
      // On their way while this item is merged.
      appender.Begin(args, next);
      appender.Load(args, next);
    }
    MergeItem<Shape>(args, item, merge, state);
    if (CompletesRow(item) && last_split == kNoItem) last_split = place;
    if (item.next == kNoItem) break;
    place = item.next;
    item = next;
  }
  // Only now: other blocks may still be at their parts.
  for (; last_split != kNoItem; last_split = item.next) {
    item = LoadItem(args.items + last_split);
    if (CompletesRow(item)) CombineSplits<Shape>(args, item, merge);
  }
}

template <typename Shape>
__global__ void __launch_bounds__(Shape::kThreads + 32, 1)
    DecodeKernel(const __grid_constant__ DecodeKernelArgs args) {
  extern __shared__ __align__(128) unsigned char shared[];
  const int warp = UniformWarp();
  PlaneRing ring;
  uint16_t* query;
  const MergeBuffers merge = CarveShared<Shape>(shared, args.slots, ring, query);
  LetNextStart();
  const DecodeItem first = LoadItem(args.items + blockIdx.x);
  if (threadIdx.x < args.slots) {
    RingBarrierInit(&ring.full[threadIdx.x], kFullArrivals);
    // Every lane of the warps that read a slot gives it back.
    RingBarrierInit(&ring.empty[threadIdx.x], 128 * Shape::kColumnGroups);
    RingInitFence();
  }
  if (kMayAppend<Shape> && threadIdx.x < 2) RingBarrierInit(&ring.patched[threadIdx.x], 128);
  __syncthreads();
  if (first.q_rows == 0) {
    // A grid that ended before its predecessor would break the chain for its successor.
    WaitForPrior();
  } else if (warp >= Shape::kWarps) {
    LoadItems(args, ring, first);
  } else {
    ComputeItems<Shape>(args, ring, query, merge, first, warp / 4);
  }
}

}  // namespace tessera::kernels::cuda
