// The end of a work item: the states of the warps become one, and the splits of a row one result.
#pragma once

#include "kernels/cuda/attention/decode_loader.cuh"
#include "kernels/cuda/attention/decode_tile.cuh"
#include "kernels/cuda/attention/part_sum.cuh"
#include "kernels/cuda/row_codes.cuh"

namespace tessera::kernels::cuda {

inline constexpr int kComputeBarrier = 1;

struct MergeBuffers {
  float* values;       // [warps, 8 columns, kMergeStride]
  float2* statistics;  // [warps, kWarpColumns]: maximum, sum
};

// Splits meet in words that are their own flags: a word that nobody wrote yet has all bits set, a
// not-a-number that arithmetic never yields (its own is 0x7fffffff). So a part costs one store and
// one load, without fences or counters.
__device__ __forceinline__ float Missing() { return __uint_as_float(0xffffffffu); }
__device__ __forceinline__ bool IsMissing(float word) {
  return __float_as_uint(word) == 0xffffffffu;
}
__device__ __forceinline__ float4 LoadWord(const float4* at) {
  float4 v;
  asm volatile("ld.relaxed.gpu.global.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
               : "l"(at)
               : "memory");
  return v;
}
__device__ __forceinline__ float2 LoadWord(const float2* at) {
  float2 v;
  asm volatile("ld.relaxed.gpu.global.v2.f32 {%0, %1}, [%2];"
               : "=f"(v.x), "=f"(v.y)
               : "l"(at)
               : "memory");
  return v;
}
__device__ __forceinline__ void StoreWord(float4* at, const float4& v) {
  asm volatile("st.relaxed.gpu.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(at), "f"(v.x), "f"(v.y),
               "f"(v.z), "f"(v.w)
               : "memory");
}
__device__ __forceinline__ void StoreWord(float2* at, const float2& v) {
  asm volatile("st.relaxed.gpu.global.v2.f32 [%0], {%1, %2};" ::"l"(at), "f"(v.x), "f"(v.y)
               : "memory");
}

// Whether results are left as codes, too: a head is then a group of them.
template <typename Shape>
__device__ __forceinline__ bool LeavesCodes(const DecodeKernelArgs& args) {
  return Shape::kHeadDim == kCodeGroup && args.out_codes.codes != nullptr;
}

// Four neighbouring dimensions of one column's result.
template <typename Shape>
class Result {
 public:
  __device__ __forceinline__ Result(const DecodeKernelArgs& args, const DecodeItem& item,
                                    int column, int dim, const float4& total, float sum) {
    const float scale = sum == 0.f ? 0.f : 1.f / sum;
    const int run_row = RowOf(args, column);
    row_ = item.q_begin + run_row;
    head_ = item.kv_head * args.group + (column - run_row * args.group);
    at_ = (int64_t{row_} * args.q_heads + head_) * Shape::kHeadDim + dim;
    bits_.x = PackBf16(total.x * scale, total.y * scale);
    bits_.y = PackBf16(total.z * scale, total.w * scale);
  }
  __device__ __forceinline__ void Write(const DecodeKernelArgs& args) const {
    *reinterpret_cast<uint2*>(args.out + at_) = bits_;
  }
  // Bits of the largest magnitude.
  [[nodiscard]] __device__ __forceinline__ uint32_t Largest() const {
    return LargestOfPair(LargerBits(LargerBits(0, bits_.x), bits_.y));
  }
  // `largest`: of the head.
  __device__ __forceinline__ void WriteCodes(const DecodeKernelArgs& args, uint32_t largest) const {
    const CodeScale scale(args.out_codes.kind, largest);
    const auto dim = static_cast<int>(at_ % Shape::kHeadDim);
    StoreCodes(args.out_codes.kind, args.out_codes.codes + (at_ - dim), dim, bits_, scale.factor);
    if (dim == 0) args.out_codes.scales[head_ * kCodeRows + row_] = scale.scale;
  }

 private:
  int row_, head_;
  int64_t at_;
  uint2 bits_;
};

// One tile of 8 columns and kMergeDims dimensions of this warp to its part of the buffer. Tile
// numbers are constants once the callers' loops are unrolled.
template <typename Shape>
__device__ __forceinline__ void StoreTile(const SoftmaxState<Shape>& state, int tile,
                                          int first_dim_tile, float* values) {
  float* out = values + (LaneId() % 4 * 2) * Shape::kMergeStride;
#pragma unroll
  for (int dims = 0; dims < Shape::kMergeDims / 16; ++dims) {
    const float(&from)[4] = state.values[first_dim_tile + dims][tile];
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      float* at = out + c * Shape::kMergeStride + dims * 16;
      if constexpr (Shape::kIsE4m3) {
        // Rows of the product were taken in the order of pairs of bytes.
        *reinterpret_cast<float2*>(at + LaneId() / 4 * 2) = make_float2(from[c], from[c + 2]);
      } else {
        at[LaneId() / 4] = from[c];
        at[LaneId() / 4 + 8] = from[c + 2];
      }
    }
  }
}

// Sums the warps of each column group for tile `tile` from dimension `first_dim` on, and writes the
// result or the item's part of it.
template <typename Shape>
__device__ __forceinline__ void ReduceTile(const DecodeKernelArgs& args, const DecodeItem& item,
                                           const MergeBuffers& merge, int tile, int first_dim) {
  constexpr int kQuads = Shape::kMergeDims / 4;
  constexpr int kWarps = 4 * Shape::kPageGroups;
  constexpr int kUnits = Shape::kColumnGroups * 8 * kQuads;
  const int columns = item.q_rows * args.group;
  for (int unit = static_cast<int>(threadIdx.x); unit < kUnits; unit += Shape::kThreads) {
    const int quad = unit % kQuads;
    const int lane_column = unit / kQuads % 8;
    const int group = unit / kQuads / 8;
    const int column = group * Shape::kWarpColumns + tile * 8 + lane_column;
    if (column >= columns) continue;
    const int first_warp = group * 4;
    float2 part[kWarps];
    float top = -INFINITY;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      part[w] = merge.statistics[(first_warp + w) * Shape::kWarpColumns + tile * 8 + lane_column];
      top = fmaxf(top, part[w].x);
    }
    float sum = 0;
    float4 total = make_float4(0, 0, 0, 0);
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float weight = WeightOf(part[w].x, top);
      sum = fmaf(part[w].y, weight, sum);
      AddScaled(
          total,
          *reinterpret_cast<const float4*>(
              merge.values + ((first_warp + w) * 8 + lane_column) * Shape::kMergeStride + quad * 4),
          weight);
    }
    const int dim = first_dim + quad * 4;
    if (item.split_count == 1) {
      const Result<Shape> result(args, item, column, dim, total, sum);
      result.Write(args);
      if (LeavesCodes<Shape>(args)) {
        // The warp has all of the head.
        result.WriteCodes(args, __reduce_max_sync(0xffffffffu, result.Largest()));
      }
      continue;
    }
    const int64_t slot = (int64_t{item.partial} + item.split) * args.partial_columns + column;
    StoreWord(reinterpret_cast<float4*>(args.partial_values + slot * Shape::kHeadDim + dim), total);
    if (dim == 0) StoreWord(args.statistics + slot, make_float2(top, sum));
  }
}

// Whether an item is the last of a row's several: its block adds them all up.
__device__ __forceinline__ bool CompletesRow(const DecodeItem& item) {
  return item.split_count > 1 && item.split + 1 == item.split_count;
}

// Reads until every word of the first `count` parts is there; parts lie `stride` columns apart.
template <int kQuads, int kParts>
__device__ __forceinline__ void AwaitParts(SplitParts<kParts>& parts, const float2* statistics_at,
                                           const float4* values_at, int64_t stride, int count) {
  bool missing = true;
  while (missing) {
#pragma unroll
    for (int s = 0; s < kParts; ++s) {
      parts.statistics[s] = make_float2(-INFINITY, 0);
      parts.values[s] = make_float4(0, 0, 0, 0);
      if (s >= count) continue;
      parts.statistics[s] = LoadWord(statistics_at + s * stride);
      parts.values[s] = LoadWord(values_at + s * stride * kQuads);
    }
    missing = false;
#pragma unroll
    for (int s = 0; s < kParts; ++s) {
      missing |= IsMissing(parts.statistics[s].x) || IsMissing(parts.statistics[s].y) ||
                 IsMissing(parts.values[s].x) || IsMissing(parts.values[s].y) ||
                 IsMissing(parts.values[s].z) || IsMissing(parts.values[s].w);
    }
  }
}

// Adds the splits of a row in a fixed order, even ones and odd ones by neighbouring lanes, and
// leaves the workspace as it was. Blocks wait for blocks before them only, which have been started.
template <typename Shape>
__device__ __forceinline__ void CombineSplits(const DecodeKernelArgs& args, const DecodeItem& item,
                                              const MergeBuffers& merge) {
  constexpr int kQuads = Shape::kHeadDim / 4;
  constexpr int kParts = 8;
  const int columns = item.q_rows * args.group;
  const int parity = LaneId() % 2;
  const int64_t stride = int64_t{2} * args.partial_columns;
  const float4 missing = make_float4(Missing(), Missing(), Missing(), Missing());
  // Whole warps: lanes past the end have no parts and write nothing.
  const int units = columns * kQuads;
  int turn = 0;
  // The last item's statistics may still be read.
  if (LeavesCodes<Shape>(args)) SyncNamed(kComputeBarrier, Shape::kThreads);
  for (int first_unit = 0; first_unit < units; first_unit += Shape::kThreads / 2) {
    const int wanted = first_unit + static_cast<int>(threadIdx.x) / 2;
    const bool inside = wanted < units;
    const int unit = inside ? wanted : units - 1;
    const int column = unit / kQuads;
    const int dim = unit % kQuads * 4;
    const int64_t first_slot = (int64_t{item.partial} + parity) * args.partial_columns + column;
    const float2* statistics_at = args.statistics + first_slot;
    auto* values_at =
        reinterpret_cast<float4*>(args.partial_values + first_slot * Shape::kHeadDim + dim);
    const int mine = inside ? (item.split_count + 1 - parity) / 2 : 0;
    PartSum sum;
    for (int first = 0; first < mine; first += kParts) {
      SplitParts<kParts> parts;
      AwaitParts<kQuads>(parts, statistics_at + first * stride, values_at + first * stride * kQuads,
                         stride, mine - first);
      sum.Add(parts);
      for (int s = first; s < min(mine, first + kParts); ++s) {
        values_at[s * stride * kQuads] = missing;
      }
    }
    __syncwarp();
    sum.AddNeighbour();
    const Result<Shape> result(args, item, column, dim, sum.total, sum.sum);
    const bool writes = inside && parity == 0;
    if (writes) result.Write(args);
    if (LeavesCodes<Shape>(args)) {
      // Two warps have a head. Every second turn has the same words.
      auto* const most = reinterpret_cast<uint32_t*>(merge.statistics) + turn * Shape::kWarps;
      turn ^= 1;
      const int warp = static_cast<int>(threadIdx.x) / 32;
      const uint32_t own = __reduce_max_sync(0xffffffffu, writes ? result.Largest() : 0);
      if (LaneId() == 0) most[warp] = own;
      SyncNamed(kComputeBarrier, Shape::kThreads);
      if (writes) result.WriteCodes(args, max(most[warp], most[warp ^ 1]));
    }
  }
  // Every thread of a column reads its statistics.
  SyncNamed(kComputeBarrier, Shape::kThreads);
  for (int i = static_cast<int>(threadIdx.x); i < item.split_count * columns;
       i += Shape::kThreads) {
    const int64_t slot = int64_t{item.partial} + i / columns;
    args.statistics[slot * args.partial_columns + i % columns] = make_float2(Missing(), Missing());
  }
}

// All computing warps. On return they have left the query behind; the statistics and the buffer of
// values may still be read.
template <typename Shape>
__device__ __forceinline__ void MergeItem(const DecodeKernelArgs& args, const DecodeItem& item,
                                          const MergeBuffers& merge, SoftmaxState<Shape>& state) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
#pragma unroll
  for (int tile = 0; tile < Shape::kTiles; ++tile) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      float sum = state.sum[tile][c];
#pragma unroll
      for (int offset = 4; offset < 32; offset *= 2) {
        sum += __shfl_xor_sync(0xffffffffu, sum, offset);
      }
      if (LaneId() < 4) {
        merge.statistics[warp * Shape::kWarpColumns + tile * 8 + LaneId() * 2 + c] =
            make_float2(state.maximum[tile][c], sum);
      }
    }
  }
  float* own = merge.values + warp * 8 * Shape::kMergeStride;
#pragma unroll
  for (int tile = 0; tile < Shape::kTiles; ++tile) {
#pragma unroll
    for (int first_dim = 0; first_dim < Shape::kHeadDim; first_dim += Shape::kMergeDims) {
      if (tile + first_dim > 0) SyncNamed(kComputeBarrier, Shape::kThreads);
      StoreTile<Shape>(state, tile, first_dim / 16, own);
      SyncNamed(kComputeBarrier, Shape::kThreads);
      ReduceTile<Shape>(args, item, merge, tile, first_dim);
    }
  }
}

}  // namespace tessera::kernels::cuda
