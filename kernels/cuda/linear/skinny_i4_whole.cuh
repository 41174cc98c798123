// Products of int4 weights where a row of weights stays in one block or in a pair of blocks, as in
// skinny_whole.cuh. Weights are the row operand of the matrix products, from registers: 16 times
// the code less 8, signed bytes, or the code less its zero point. Rows of x are the column operand,
// int8 codes with a scale for each 128 columns (CodeKind::kInt8Groups): the sums of a group of
// weights are exact integers, which its scale and x's meet.
//
// Rows of weights are counted in records, 16 rows. A block of gate and up owns up to 8 records of
// both, of which its first consumer warpgroup has four; a pair of blocks, other products, owns up
// to 4 or 8, each block one half of `in`, of which its warpgroups take the units in turn.
//
// Only codes of x and y wait for earlier kernels; the ring is full of weights by then.
#pragma once

#include <cuda_bf16.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/linear/skinny_epilogue.cuh"
#include "kernels/cuda/linear/skinny_format.cuh"
#include "kernels/cuda/linear/skinny_kept.cuh"
#include "kernels/cuda/linear/skinny_pair.cuh"
#include "kernels/cuda/linear/skinny_plan.h"
#include "kernels/cuda/row_codes.h"
#include "kernels/cuda/wgmma.cuh"

namespace tessera::kernels::cuda {

// What is fixed when a kernel is compiled.
template <typename Format_, int kTokens_, int kBlocks_, bool kPair_>
struct I4Shape {
  using Format = Format_;
  static constexpr int kRuns = 128 / Format::kGroup;  // of a unit, with a scale each
  static constexpr int kTokens = kTokens_;            // 8, 16, 32 or 64
  static constexpr int kBlocks = kBlocks_;            // of 64 rows of weights that a warpgroup has
  static constexpr bool kPair = kPair_;
  static constexpr bool kCoded = true;
  // Consumer warpgroups: a unit takes one longer than its bytes take to come, so that few rows,
  // which need few registers, have four. They take the units in turn; those of gate and up in twos,
  // each with its 64 rows, which add their sums at the end.
  static constexpr int kGroups = kTokens <= 16 ? 4 : 2;
  static constexpr int kTurn = kPair ? kGroups : kGroups / 2;  // units that one goes on by
  static constexpr int kThreads = 128 * (1 + kGroups);
  static constexpr int kParts = kPair ? 1 : 2;                // gate and up
  static constexpr int kRecords = 4 * (kPair ? kBlocks : 2);  // of a part, in a slot
  static constexpr uint32_t kPartBytes = kRecords * Format::kRecordBytes;
  static constexpr uint32_t kSlotBytes = (kParts * kPartBytes + 127) / 128 * 128;
  static constexpr int kReaders = kPair ? 4 : 8;  // warps that read a slot, of weights or of x
  static constexpr int kWeightsArrivals = 32 * kReaders;  // every lane gives back what it read
  static constexpr uint32_t kInputBytes = kTokens * 128;
  static constexpr int kInputSlots = 8;
  using Tiles = PairTiles<kBlocks * kTokens / 8, kGroups>;
  static constexpr int kWords = kBlocks * kTokens / 2;  // sums of a thread
  using Arrivals =
      std::conditional_t<kPair, PairArrivals<Tiles>, float[kTurn == 2 ? 2 : 1][kWords][128]>;
  static constexpr uint32_t kLimit = 222 * 1024;
  static constexpr int kSlots = std::min<int>(
      32, (kLimit - kInputSlots * kInputBytes - sizeof(Arrivals)) / kSlotBytes / kTurn * kTurn);
  static_assert(kSlots >= 6 && kInputSlots % kTurn == 0 && (kPair || kBlocks == 2));
  // That are on their way at a time while the ring fills for the first time.
  static constexpr int kFirstSlots = std::max<int>(2, 2 * kSkinnyFirstBytes / kSlotBytes);
};

// The block's shared memory.
template <typename Shape>
struct I4Shared {
  alignas(1024) uint8_t input[Shape::kInputSlots][Shape::kInputBytes];
  alignas(128) uint8_t weights[Shape::kSlots][Shape::kSlotBytes];
  // Of gate and up where two warpgroups have the same rows: the second one's sums.
  alignas(16) typename Shape::Arrivals arrivals;
  alignas(128) float x_scales[Shape::kInputSlots][std::max(Shape::kTokens, 32)];
  uint64_t weights_full[Shape::kSlots];
  uint64_t weights_empty[Shape::kSlots];
  uint64_t input_full[Shape::kInputSlots];
  uint64_t input_empty[Shape::kInputSlots];
};

// What this block has: rows of a task from `first` on, and units.
template <typename Shape>
struct I4Share : KeptUnits<Shape::kPair> {
  int first, rows;

  __device__ __forceinline__ explicit I4Share(const SkinnyPlan& plan)
      : KeptUnits<Shape::kPair>(plan),
        first(this->tile * plan.whole_channels),
        rows(min(plan.whole_channels, plan.tasks[this->task].out - first)) {}
};

// The runs of records, up to three of a part, that the copy engine brings of each unit.
template <typename Shape>
class I4Source {
  static constexpr int kRuns = 3;
  static constexpr uint32_t kRecordBytes = Shape::Format::kRecordBytes;

 public:
  __device__ __forceinline__ I4Source(const SkinnyPlan& plan, const I4Share<Shape>& share) {
    const SkinnyPlanTask& task = plan.tasks[share.task];
    const int end = (share.first + share.rows + 15) / 16 * 16;
    int row = share.first;
    total_ = 0;
#pragma unroll
    for (int run = 0; run < kRuns; ++run) {
      at_[run] = total_;
      bytes_[run] = 0;
      if (row >= end) continue;
      const int next = min(end, (row / 64 + 1) * 64);
      bytes_[run] = (next - row) / 16 * kRecordBytes;
      step_[run] = Int4RunRecords(task.out, row) * kRecordBytes;
#pragma unroll
      for (int part = 0; part < Shape::kParts; ++part) {
        from_[part][run] = task.weight[part] + Int4RecordOffset(row, share.unit_begin * 128,
                                                                task.out, plan.in, kRecordBytes);
      }
      total_ += bytes_[run];
      row = next;
    }
  }
  // The next unit.
  __device__ __forceinline__ void Load(uint8_t* slot, uint64_t* full, uint64_t policy) {
    BarrierExpect(full, Shape::kParts * total_);
#pragma unroll
    for (int part = 0; part < Shape::kParts; ++part) {
#pragma unroll
      for (int run = 0; run < kRuns; ++run) {
        if (bytes_[run] == 0) continue;
        BulkLoad(slot + part * Shape::kPartBytes + at_[run], from_[part][run], bytes_[run], full,
                 policy);
        from_[part][run] += step_[run];
      }
    }
  }

 private:
  const std::byte* from_[Shape::kParts][kRuns];
  uint32_t at_[kRuns], bytes_[kRuns], step_[kRuns];
  uint32_t total_;  // bytes of a part
};

template <typename Shape>
__device__ __forceinline__ void ProduceI4(const SkinnyPlan& plan, I4Shared<Shape>& shared,
                                          int warp) {
  if (warp == 0) {
    if (ElectOne()) {
      const uint64_t policy = EvictFirstPolicy();
      const I4Share<Shape> share(plan);
      I4Source<Shape> source(plan, share);
      StreamWeights<Shape>(shared, share, [&](uint8_t* slot, uint64_t* full, int /*unit*/) {
        source.Load(slot, full, policy);
      });
    }
  } else if (warp == 1) {
    if (ElectOne()) StreamInput<Shape>(plan, shared, Shape::kTokens);
  }
  __syncwarp();
}

// A warpgroup's sums: of each block of rows [8 tokens][four words of the product].
template <typename Shape>
struct I4Sums {
  static constexpr int kBlockWords = Shape::kTokens / 2;
  float words[Shape::kWords];
};

// Signed bytes of four codes of a word, in its low halves of bytes or its high ones.
template <typename Format>
struct Int4Bytes {
  static constexpr float kScale = Format::kZeros ? 1.0f : 1.0f / Format::kProducts;
  uint32_t zeros;

  __device__ __forceinline__ explicit Int4Bytes(uint32_t zero) : zeros(zero * 0x01010101u) {}
  __device__ __forceinline__ uint32_t Low(uint32_t word) const {
    if constexpr (Format::kZeros) {
      return Less(word);
    } else {
      return Format::Signed(word << 4);
    }
  }
  __device__ __forceinline__ uint32_t High(uint32_t word) const {
    if constexpr (Format::kZeros) {
      return Less(word >> 4);
    } else {
      return Format::Signed(word);
    }
  }

 private:
  // No byte borrows from the next: each has 128 more.
  __device__ __forceinline__ uint32_t Less(uint32_t word) const {
    return (MaskOr(word, 0x0f0f0f0fu, 0x80808080u) - zeros) ^ 0x80808080u;
  }
};

// Weights of a block of 64 rows and a unit, as the row operand.
template <typename Shape>
struct I4Operand {
  uint32_t a[4][4];   // of each 32 columns
  float scale[2][2];  // [run][row]

  __device__ __forceinline__ explicit I4Operand(const uint8_t* records) {
    using Format = typename Shape::Format;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const typename Format::Codes codes =
          Format::Load(records, half, threadIdx.x >> 5 & 3, LaneId());
      const uint2 &v = codes.row[0], &w = codes.row[1];
      const uint32_t words[2][2] = {{v.x, w.x}, {v.y, w.y}};
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const Int4Bytes<Format> bytes(codes.zero[r]);
#pragma unroll
        for (int step = 0; step < 2; ++step) {
          a[2 * half + step][r] = bytes.Low(words[step][r]);
          a[2 * half + step][r + 2] = bytes.High(words[step][r]);
        }
        scale[half][r] = codes.scale[r] * Int4Bytes<Format>::kScale;
      }
    }
  }
};

// Products of one block of 64 rows with a unit of x; `release` is called when the weights are in
// registers.
template <typename Shape, typename Release>
__device__ __forceinline__ void MultiplyUnit(const uint8_t* records, uint64_t columns,
                                             const float* x_scales, Release release, float* sums) {
  constexpr int kSteps = 4 / Shape::kRuns;  // of a run
  I4Operand<Shape> weights(records);
  release();
#pragma unroll
  for (int run = 0; run < Shape::kRuns; ++run) {
    int products[Shape::kTokens / 2];
#pragma unroll
    for (int step = 0; step < 4; ++step) WgmmaPin(weights.a[step]);
    WgmmaFence();
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const int at = run * kSteps + step;
      WgmmaS8<Shape::kTokens>::Registers(products, weights.a[at], WgmmaAdvance(columns, 32 * at),
                                         step > 0);
    }
    WgmmaCommit();
    WgmmaWait<0>();
    WgmmaPin(products);
#pragma unroll
    for (int j = 0; j < Shape::kTokens / 8; ++j) {
      const float2 x = *reinterpret_cast<const float2*>(x_scales + 8 * j + 2 * (LaneId() & 3));
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const int i = 4 * j + k;
        const float value = static_cast<float>(products[i]) * ((k & 1) == 0 ? x.x : x.y);
        sums[i] = fmaf(value, weights.scale[run][k >> 1], sums[i]);
      }
    }
  }
#pragma unroll
  for (int step = 0; step < 4; ++step) WgmmaPin(weights.a[step]);
}

template <typename Shape>
__device__ __forceinline__ void SumI4(const SkinnyPlan& plan, I4Shared<Shape>& shared, int group,
                                      I4Sums<Shape>& sums) {
  const I4Share<Shape> share(plan);
  const int own_slot = Shape::kPair ? group : group / 2;
  RingCursor<Shape::kSlots> weights{own_slot, 0};
  RingCursor<Shape::kInputSlots> input{own_slot, 0};
  for (int unit = share.unit_begin + own_slot; unit < share.unit_end; unit += Shape::kTurn) {
    BarrierWait(&shared.weights_full[weights.slot], weights.parity);
    BarrierWait(&shared.input_full[input.slot], input.parity);
    const uint64_t columns = WgmmaDescriptor<128>(SharedAddress(shared.input[input.slot]), 1024);
    const uint8_t* const slot = shared.weights[weights.slot];
#pragma unroll
    for (int block = 0; block < Shape::kBlocks; ++block) {
      const uint32_t at =
          Shape::kPair ? 4 * block * Shape::Format::kRecordBytes
                       : block * Shape::kPartBytes + 4 * (group % 2) * Shape::Format::kRecordBytes;
      const auto release = [&] {
        if (block + 1 == Shape::kBlocks) BarrierArrive(&shared.weights_empty[weights.slot]);
      };
      MultiplyUnit<Shape>(slot + at, columns, shared.x_scales[input.slot], release,
                          sums.words + block * I4Sums<Shape>::kBlockWords);
    }
    __syncwarp();
    BarrierArriveIf(LaneId() == 0, &shared.input_empty[input.slot]);
    weights.Advance(Shape::kTurn);
    input.Advance(Shape::kTurn);
  }
}

// Rows of a thread's words: the first one of the warp's record.
template <typename Shape>
__device__ __forceinline__ int I4Row(int record) {
  return 16 * (record + (threadIdx.x >> 5 & 3)) + (LaneId() >> 2);
}

// Gives the sums of the second one of two warpgroups with the same rows to the first; whether this
// is that.
template <typename Shape>
__device__ __forceinline__ bool AddOther(I4Shared<Shape>& shared, int group, I4Sums<Shape>& sums) {
  const int thread = threadIdx.x & 127;
  if (group >= 2) {
#pragma unroll
    for (int i = 0; i < Shape::kWords; ++i) shared.arrivals[group - 2][i][thread] = sums.words[i];
  }
  SyncNamed(1, 128 * Shape::kGroups);
  if (group >= 2) return false;
#pragma unroll
  for (int i = 0; i < Shape::kWords; ++i) sums.words[i] += shared.arrivals[group][i][thread];
  return true;
}

template <typename Shape>
__device__ __forceinline__ void WriteGatedI4(const SkinnyPlan& plan, int group,
                                             const I4Sums<Shape>& sums) {
  const I4Share<Shape> share(plan);
  const SkinnyPlanTask& task = plan.tasks[0];
  const int row = I4Row<Shape>(4 * group);
  auto* const y = static_cast<__nv_bfloat16*>(task.y) + share.first + row;
#pragma unroll
  for (int j = 0; j < Shape::kTokens / 8; ++j) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int token = 8 * j + 2 * (LaneId() & 3) + e;
      if (token >= plan.rows) continue;
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        if (row + 8 * r >= share.rows) continue;
        const int word = 4 * j + 2 * r + e;
        const float value = GatedValue(
            sums.words[word], sums.words[I4Sums<Shape>::kBlockWords + word], plan.epilogue);
        y[token * task.y_stride + 8 * r] = __float2bfloat16_rn(value);
      }
    }
  }
}

// What a pair has of this warpgroup's tiles.
template <typename Shape>
__device__ __forceinline__ void WritePairI4(const SkinnyPlan& plan, int group,
                                            const float (&own)[4 * Shape::Tiles::kOwnTiles]) {
  using Tiles = typename Shape::Tiles;
  constexpr int kTokenTiles = Shape::kTokens / 8;
  const I4Share<Shape> share(plan);
  const SkinnyPlanTask& task = plan.tasks[share.task];
#pragma unroll
  for (int i = 0; i < Tiles::kOwnTiles; ++i) {
    const int tile = PairOwner<Tiles>(group) * Tiles::kOwnTiles + i;
    if (tile >= Tiles::kTiles) continue;
    const int row = I4Row<Shape>(4 * (tile / kTokenTiles));
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int token = 8 * (tile % kTokenTiles) + 2 * (LaneId() & 3) + e;
      if (token >= plan.rows) continue;
      const int64_t offset = token * task.y_stride + share.first + row;
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        if (row + 8 * r >= share.rows) continue;
        float value = own[4 * i + 2 * r + e];
        if (task.bias[0] != nullptr) value += __ldg(task.bias[0] + share.first + row + 8 * r);
        if (plan.epilogue == SkinnyEpilogue::kResidual) {
          atomicAdd(static_cast<float*>(task.y) + offset + 8 * r, value);
        } else if (plan.epilogue == SkinnyEpilogue::kStoreFloat) {
          static_cast<float*>(task.y)[offset + 8 * r] = value;
        } else {
          static_cast<__nv_bfloat16*>(task.y)[offset + 8 * r] = __float2bfloat16_rn(value);
        }
      }
    }
  }
}

template <typename Shape>
__device__ __forceinline__ void InitI4(I4Shared<Shape>& shared) {
  InitRings<Shape>(shared);
  if constexpr (Shape::kPair) {
    InitPair<typename Shape::Tiles>(shared.arrivals, 4);
  } else {
    BarrierInitFence();
  }
}

template <typename Shape>
__global__ void __launch_bounds__(Shape::kThreads, 1)
    SkinnyI4WholeKernel(const __grid_constant__ SkinnyPlan plan) {
  extern __shared__ __align__(1024) uint8_t memory[];
  auto& shared = *reinterpret_cast<I4Shared<Shape>*>(memory);
  const int warp = UniformWarp(), group = warp / 4 - 1;
  if (threadIdx.x == 0) InitI4<Shape>(shared);
  __syncthreads();
  if constexpr (Shape::kPair) ArriveCluster();
  LetNextStart();
  if (warp < 4) {
    ProduceI4<Shape>(plan, shared, warp);
    if constexpr (Shape::kPair) WaitCluster();
    return;
  }
  I4Sums<Shape> sums{};
  WaitForPrior();
  SumI4<Shape>(plan, shared, group, sums);
  if constexpr (Shape::kPair) {
    // The other block's barriers are ready.
    WaitCluster();
    float own[4 * Shape::Tiles::kOwnTiles] = {};
    ExchangePair<typename Shape::Tiles>(shared.arrivals, group, sums.words, own);
    WritePairI4<Shape>(plan, group, own);
  } else {
    if constexpr (Shape::kTurn == 2) {
      if (!AddOther<Shape>(shared, group, sums)) return;
    }
    WriteGatedI4<Shape>(plan, group, sums);
  }
}

template <typename Shape>
cudaError_t LaunchI4Shape(const SkinnyPlan& plan, int blocks, cudaStream_t stream) {
  static std::atomic<uint64_t> prepared{0};  // a bit a device
  constexpr int kBytes = static_cast<int>(sizeof(I4Shared<Shape>));
  static_assert(kBytes <= 227 * 1024);
  const cudaError_t error =
      PrepareKernel(reinterpret_cast<const void*>(&SkinnyI4WholeKernel<Shape>), kBytes, prepared);
  if (error != cudaSuccess) return error;
  return LaunchDependent(SkinnyI4WholeKernel<Shape>, dim3(blocks), dim3(Shape::kThreads), kBytes,
                         Shape::kPair ? 2 : 1, stream, plan);
}

template <typename Format, int kTokens>
cudaError_t LaunchI4Tokens(const SkinnyPlan& plan, int blocks, cudaStream_t stream) {
  if (plan.gated != 0) {
    return LaunchI4Shape<I4Shape<Format, kTokens, 2, false>>(plan, blocks, stream);
  }
  return plan.whole_channels <= 64
             ? LaunchI4Shape<I4Shape<Format, kTokens, 1, true>>(plan, blocks, stream)
             : LaunchI4Shape<I4Shape<Format, kTokens, 2, true>>(plan, blocks, stream);
}

// The kernel of `columns` tokens for a weight type.
template <typename Format>
cudaError_t LaunchI4Product(const SkinnyPlan& plan, int columns, int blocks, cudaStream_t stream) {
  switch (columns) {
    case 8:
      return LaunchI4Tokens<Format, 8>(plan, blocks, stream);
    case 16:
      return LaunchI4Tokens<Format, 16>(plan, blocks, stream);
    case 32:
      return LaunchI4Tokens<Format, 32>(plan, blocks, stream);
    case 64:
      return LaunchI4Tokens<Format, 64>(plan, blocks, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace tessera::kernels::cuda
