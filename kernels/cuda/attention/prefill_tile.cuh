// What both prefill kernels do with a tile: find its work, load queries, mask and normalise scores,
// store rows. Device code.
//
// A warp owns 16 rows of a tile. A lane holds, of rows lane / 4 and lane / 4 + 8 (`half` 0 and 1),
// columns 8 i + 2 (lane % 4) + {0, 1} as value[4 i + 2 half + {0, 1}]: the accumulators of mma and
// wgmma alike.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <type_traits>

#include "kernels/cuda/attention/half.cuh"
#include "kernels/cuda/attention/prefill.h"
#include "kernels/cuda/attention/prefill_plan.h"
#include "kernels/cuda/kv_layout.h"
#include "kernels/cuda/ptx.cuh"

namespace tessera::kernels::cuda::prefill {

inline constexpr float kLog2E = 1.4426950408889634f;

// What a kernel is launched with.
struct KernelArgs {
  PrefillArgs call;
  int group;            // query heads a KV head
  uint32_t reciprocal;  // 2^32 / group, rounded up; 0 for a group of 1
  float scale_log2;
};
inline KernelArgs MakeKernelArgs(const PrefillArgs& call) {
  const uint32_t group = call.q_heads / call.kv_heads;
  return {call, static_cast<int>(group), 0xffffffffu / group + 1, call.scale * kLog2E};
}
// pair / group, exact for pairs below 2^32 / group.
__device__ __forceinline__ int QueryOf(const KernelArgs& args, int pair) {
  return args.reciprocal == 0 ? pair : static_cast<int>(__umulhi(pair, args.reciprocal));
}

// One tile of work.
struct Item {
  const PageId* pages;  // of the run, in the launch's table
  int32_t q_begin;      // row of the run's first query
  int32_t pair_begin;   // first (query, head) pair of the run
  int32_t pairs;        // 0: no work is left
  int32_t position;     // of the run's first query
  int32_t kv_head;
  int32_t first_key;  // that any row sees of this part of its context
  int32_t last_key;
  int32_t partial;  // slot that takes the sums, or PrefillPlanItem::kWhole
};

// The part of an item that its tile of a run says.
__device__ __forceinline__ void FindTile(const KernelArgs& args, uint32_t run_index, uint32_t tile,
                                         uint32_t kv_head, Item& item) {
  const auto* header = reinterpret_cast<const PrefillPlanHeader*>(args.call.plan);
  const auto* runs = reinterpret_cast<const PrefillPlanRun*>(header + 1);
  const PrefillPlanRun run = runs[run_index];
  item.pages = run.page_table + uint64_t{args.call.table} * run.table_stride;
  item.q_begin = run.q_begin;
  item.pair_begin = static_cast<int>(tile) * kPrefillTileRows;
  item.pairs = min(kPrefillTileRows, run.q_rows * args.group - item.pair_begin);
  item.position = run.position;
  item.kv_head = static_cast<int>(kv_head);
}

__device__ __forceinline__ Item FindItem(const KernelArgs& args, uint32_t index) {
  const auto* header = reinterpret_cast<const PrefillPlanHeader*>(args.call.plan);
  Item item = {};
  if (index >= header->items) return item;
  const auto* items =
      reinterpret_cast<const PrefillPlanItem*>(args.call.plan + header->items_offset);
  const PrefillPlanItem found = items[index];
  FindTile(args, found.run, found.tile, found.kv_head, item);
  item.first_key = static_cast<int>(found.first_key);
  item.last_key = static_cast<int>(found.past_key) - 1;
  item.partial = found.partial;
  return item;
}

// Elements before the head of row `row` of a tile in a buffer whose rows lie `stride` apart.
__device__ __forceinline__ int64_t RowOffset(const KernelArgs& args, const Item& item, int row,
                                             int64_t stride) {
  const int pair = item.pair_begin + row;
  const int query = QueryOf(args, pair);
  const int head = item.kv_head * args.group + pair - query * args.group;
  return (item.q_begin + query) * stride + int64_t{head} * args.call.head_dim;
}

// Calls visit(row, chunk, offset) for a thread's chunks of 16 bytes of a tile's queries, which lie
// in shared memory as two planes of 64 rows, each as kv_layout.h has them. `thread` counts from 0
// to kThreads - 1.
template <int kDim, int kThreads, int kColumn = 0, typename Visit>
__device__ __forceinline__ void ForQueryChunks(uint32_t thread, const Visit& visit) {
  constexpr int kWidth = PanelWidth(2 * kDim - kColumn);
  constexpr int kPanels = kWidth == 128 ? (2 * kDim - kColumn) / 128 : 1;
  constexpr int kChunks = kWidth / 16;
  const uint32_t chunk = thread % kChunks;
#pragma unroll 2
  for (uint32_t row = thread / kChunks; row < kPrefillTileRows; row += kThreads / kChunks) {
    const uint32_t offset = row / 64 * PlaneBytes(kDim, 2) + kColumn * 64 + row % 64 * kWidth +
                            (chunk ^ PanelSwizzle(row, kWidth)) * 16;
#pragma unroll
    for (int panel = 0; panel < kPanels; ++panel) {
      visit(static_cast<int>(row), static_cast<int>(kColumn / 16 + panel * kChunks + chunk),
            offset + panel * kWidth * 64);
    }
  }
  constexpr int kNext = kColumn + kPanels * kWidth;
  if constexpr (kNext < 2 * kDim) ForQueryChunks<kDim, kThreads, kNext>(thread, visit);
}

// Starts the copy of a tile's queries to `shared`. Rows past the item's are zeros.
template <int kDim, int kThreads>
__device__ __forceinline__ void LoadQueries(const KernelArgs& args, const Item& item,
                                            uint32_t thread, std::byte* shared) {
  const auto* q = static_cast<const __nv_bfloat16*>(args.call.q);
  ForQueryChunks<kDim, kThreads>(thread, [&](int row, int chunk, uint32_t offset) {
    const bool inside = row < item.pairs;
    const __nv_bfloat16* from =
        inside ? q + RowOffset(args, item, row, args.call.q_stride) + chunk * 8 : q;
    CopyAsync16(shared + offset, from, inside);
  });
}

// The queries that the same thread copied, once they are there, to f16.
template <int kDim, int kThreads>
__device__ __forceinline__ void QueriesToHalf(uint32_t thread, std::byte* shared) {
  ForQueryChunks<kDim, kThreads>(thread, [&](int, int, uint32_t offset) {
    auto* chunk = reinterpret_cast<uint4*>(shared + offset);
    const uint4 bits = *chunk;
    *chunk = make_uint4(HalfFromBf16(bits.x), HalfFromBf16(bits.y), HalfFromBf16(bits.z),
                        HalfFromBf16(bits.w));
  });
}

// Of a lane's two rows in the end.
struct RowEnds {
  float factor[2];  // of the accumulators; 0 for a row that saw nothing, 1 for parts
  float2 statistics[2];
};

// The online softmax of a lane's two rows.
struct Softmax {
  float maximum[2] = {-INFINITY, -INFINITY};  // of the scores so far, not yet scaled
  float sum[2] = {0, 0};                      // of this lane's columns
  int position[2];

  // Removes the scores that a row does not see; column 0 is key `key`.
  template <int kCount>
  __device__ __forceinline__ void Mask(float (&score)[kCount], int key, int window) {
    const int column = key + 2 * (LaneId() & 3);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int past = position[half] - column;
      const int before = window > 0 ? past - window : -1 - kCount * 2;
#pragma unroll
      for (int i = 0; i < kCount / 4; ++i) {
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          const int at = 8 * i + j;
          if (at > past || at <= before) score[4 * i + 2 * half + j] = -INFINITY;
        }
      }
    }
  }

  // Turns scores into weights relative to the new maximum; `correction` is what earlier weights
  // must be multiplied by, exactly 1 where the maximum stays.
  template <int kCount>
  __device__ __forceinline__ void Update(float (&score)[kCount], float scale_log2,
                                         float (&correction)[2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float largest = fmaxf(score[2 * half], score[2 * half + 1]);
#pragma unroll
      for (int i = 1; i < kCount / 4; ++i) {
        largest = fmaxf(largest, fmaxf(score[4 * i + 2 * half], score[4 * i + 2 * half + 1]));
      }
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
      const float before = maximum[half];
      const float now = fmaxf(before, largest);
      maximum[half] = now;
      correction[half] = before == now ? 1.0f : Exp2((before - now) * scale_log2);
      const float shift = now == -INFINITY ? 0.0f : now * scale_log2;
      float added[2] = {0, 0};
#pragma unroll
      for (int i = 0; i < kCount / 4; ++i) {
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          float& value = score[4 * i + 2 * half + j];
          value = Exp2(fmaf(value, scale_log2, -shift));
          added[j] += value;
        }
      }
      sum[half] = fmaf(sum[half], correction[half], added[0] + added[1]);
    }
  }

  // What ends the rows of `item`.
  __device__ __forceinline__ RowEnds End(const KernelArgs& args, const Item& item) const {
    RowEnds ends;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float total = sum[half] + __shfl_xor_sync(0xffffffffu, sum[half], 1);
      total += __shfl_xor_sync(0xffffffffu, total, 2);
      ends.statistics[half] = make_float2(maximum[half] * args.scale_log2, total);
      const float factor = total == 0 ? 0.0f : 1.0f / total;
      ends.factor[half] = item.partial == PrefillPlanItem::kWhole ? factor : 1.0f;
    }
    return ends;
  }
};

__device__ __forceinline__ Softmax MakeSoftmax(const KernelArgs& args, const Item& item,
                                               int first_row) {
  Softmax softmax;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int pair = item.pair_begin + first_row + LaneId() / 4 + 8 * half;
    softmax.position[half] = item.position + QueryOf(args, pair);
  }
  return softmax;
}

// Multiplies rows by `factor`; AnyFactor: whether any row of the warp needs it.
template <int kCount>
__device__ __forceinline__ void ScaleRows(float (&value)[kCount], const float (&factor)[2]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) value[i] *= factor[i / 2 % 2];
}
__device__ __forceinline__ bool AnyFactor(const float (&factor)[2]) {
  return __any_sync(0xffffffffu, factor[0] != 1.0f || factor[1] != 1.0f) != 0;
}

// The fragment of 16 keys' weights as operand a of the product with their values, of type T:
// __nv_bfloat16 or __half.
template <typename T, int kCount>
__device__ __forceinline__ void PackWeights(const float (&weight)[kCount], int step,
                                            uint32_t (&fragment)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float low = weight[8 * step + 2 * i];
    const float high = weight[8 * step + 2 * i + 1];
    fragment[i] = std::is_same_v<T, __half> ? PackF16(low, high) : PackBf16(low, high);
  }
}

// Four lanes with four words each, word b of lane q being columns 2 q, 2 q + 1 of block b: after
// it, lane q has all of block q.
__device__ __forceinline__ void TransposeQuad(uint32_t (&word)[4]) {
  const bool odd = LaneId() & 1;
  const uint32_t a = __shfl_xor_sync(0xffffffffu, odd ? word[0] : word[1], 1);
  const uint32_t b = __shfl_xor_sync(0xffffffffu, odd ? word[2] : word[3], 1);
  word[0] = odd ? a : word[0];
  word[1] = odd ? word[1] : a;
  word[2] = odd ? b : word[2];
  word[3] = odd ? word[3] : b;
  const bool high = LaneId() & 2;
  const uint32_t c = __shfl_xor_sync(0xffffffffu, high ? word[0] : word[2], 2);
  const uint32_t d = __shfl_xor_sync(0xffffffffu, high ? word[1] : word[3], 2);
  word[0] = high ? c : word[0];
  word[1] = high ? d : word[1];
  word[2] = high ? word[2] : c;
  word[3] = high ? word[3] : d;
}

// Stores 2 * kCount columns of a lane's rows from column `column` on, as bf16; `row[half]` is the
// row's head in out, or null.
template <int kCount>
__device__ __forceinline__ void StoreRows(const float (&value)[kCount],
                                          __nv_bfloat16* const (&row)[2], int column) {
  const int lane = LaneId() & 3;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const auto packed = [&](int block) {
      return PackBf16(value[4 * block + 2 * half], value[4 * block + 2 * half + 1]);
    };
    constexpr int kBlocks = kCount / 4;
#pragma unroll
    for (int block = 0; block + 4 <= kBlocks; block += 4) {
      uint32_t word[4] = {packed(block), packed(block + 1), packed(block + 2), packed(block + 3)};
      TransposeQuad(word);
      if (row[half] == nullptr) continue;
      *reinterpret_cast<uint4*>(row[half] + column + 8 * (block + lane)) =
          make_uint4(word[0], word[1], word[2], word[3]);
    }
#pragma unroll
    for (int block = kBlocks / 4 * 4; block < kBlocks; ++block) {
      if (row[half] == nullptr) continue;
      *reinterpret_cast<uint32_t*>(row[half] + column + 8 * block + 2 * lane) = packed(block);
    }
  }
}

// The same of a part's sums, as they are.
template <int kCount>
__device__ __forceinline__ void StoreRows(const float (&value)[kCount], float* const (&row)[2],
                                          int column) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (row[half] == nullptr) continue;
#pragma unroll
    for (int block = 0; block < kCount / 4; ++block) {
      *reinterpret_cast<float2*>(row[half] + column + 8 * block + 2 * (LaneId() & 3)) =
          make_float2(value[4 * block + 2 * half], value[4 * block + 2 * half + 1]);
    }
  }
}

// Where a lane's two rows go in out; null for rows past the item's.
__device__ __forceinline__ void FindRows(const KernelArgs& args, const Item& item, int first_row,
                                         __nv_bfloat16* (&row)[2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int at = first_row + LaneId() / 4 + 8 * half;
    row[half] = at < item.pairs
                    ? static_cast<__nv_bfloat16*>(args.call.out) +
                          RowOffset(args, item, at, int64_t{args.call.q_heads} * args.call.head_dim)
                    : nullptr;
  }
}

// Where the sums of parts lie, by slot and row of the tile.
struct Partials {
  float2* statistics;  // maximum of scaled scores times log2(e), sum of weights
  float* values;       // [head_dim], not divided by the sum

  __device__ __forceinline__ explicit Partials(const PrefillArgs& call)
      : statistics(static_cast<float2*>(call.workspace)),
        values(reinterpret_cast<float*>(statistics + size_t{call.partials} * kPrefillTileRows)) {}
  __device__ __forceinline__ static int64_t At(uint32_t slot, int row) {
    return int64_t{slot} * kPrefillTileRows + row;
  }
};

// Stores the statistics of a lane's two rows of a part; `row`: where their values go.
__device__ __forceinline__ void StoreStatistics(const KernelArgs& args, const Item& item,
                                                int first_row, const RowEnds& ends,
                                                float* (&row)[2]) {
  const Partials partials(args.call);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int at = first_row + LaneId() / 4 + 8 * half;
    row[half] = nullptr;
    if (at >= item.pairs) continue;
    const int64_t place = Partials::At(static_cast<uint32_t>(item.partial), at);
    row[half] = partials.values + place * args.call.head_dim;
    if ((LaneId() & 3) == 0) partials.statistics[place] = ends.statistics[half];
  }
}

}  // namespace tessera::kernels::cuda::prefill
