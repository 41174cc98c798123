// Products of 1 to 64 rows where a row of weights stays in one place, so that no sum goes through
// device memory. Rows of x are the row operand of the matrix products, channels their columns.
//
// Gate and up: a block owns whole rows of weights, as those of few rows do. Each of its two
// consumer warpgroups has kN channels of gate and the same of up. A block reads all of x, which is
// less than its weights.
//
// Other products: a pair of blocks, a cluster, owns kN channels, each block one half of `in`, of
// which its warpgroups take the units in turn. At the end they add their sums (skinny_pair.cuh).
//
// Codes of x have a scale for each unit of a row, which meets the sums of the unit.
//
// Only x and y wait for earlier kernels; the ring is full of weights by then.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <type_traits>
#include <utility>

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
template <typename Format_, int kN_, bool kPair_>
struct WholeShape {
  using Format = Format_;
  static constexpr int kN = kN_;  // channels of a warpgroup's products
  static constexpr bool kPair = kPair_;
  static constexpr bool kCoded = Format::kCoded;
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
  static constexpr int kWeightsArrivals = kReaders;  // matrix products read, a lane says so
  // Slots that a warpgroup goes on by.
  static constexpr int kTurn = kPair ? kGroups : 1;
  static constexpr uint32_t kInputBytes = kSkinnyMaxRows * 128;
  static constexpr int kInputSlots = kPair ? 8 : 4;
  using Tiles = PairTiles<kN / 8>;
  static constexpr uint32_t kArrivedBytes = kPair ? sizeof(PairArrivals<Tiles>) : 0;
  static constexpr uint32_t kLimit = 222 * 1024;
  static constexpr int kSlots =
      (kLimit - kInputSlots * kInputBytes - kArrivedBytes) / kSlotBytes / kTurn * kTurn;
  static_assert(kN % 8 == 0 && kSlots >= 4);
  static_assert(kInputSlots % kTurn == 0);
  // That are on their way at a time while the ring fills for the first time.
  static constexpr int kFirstSlots = std::max<int>(2, 2 * kSkinnyFirstBytes / kSlotBytes);
};

// The block's shared memory.
template <typename Whole>
struct WholeShared {
  alignas(1024) uint8_t input[Whole::kInputSlots][Whole::kInputBytes];
  alignas(1024) uint8_t weights[Whole::kSlots][Whole::kSlotBytes];
  alignas(
      16) std::conditional_t<Whole::kPair, PairArrivals<typename Whole::Tiles>, uint64_t> arrivals;
  // Of the rows' unit, where they are codes.
  alignas(128) float x_scales[Whole::kCoded ? Whole::kInputSlots : 1][kCodeRows];
  // Of the channels of gate and up.
  float scales[2][Whole::kPair ? 1 : Whole::kChannels];
  uint64_t weights_full[Whole::kSlots];
  uint64_t weights_empty[Whole::kSlots];
  uint64_t input_full[Whole::kInputSlots];
  uint64_t input_empty[Whole::kInputSlots];
};

// What this block has: channels of a task from `first` on, and units.
template <typename Whole>
struct WholeShare : KeptUnits<Whole::kPair> {
  int first;

  __device__ __forceinline__ explicit WholeShare(const SkinnyPlan& plan)
      : KeptUnits<Whole::kPair>(plan), first(this->tile * Whole::kChannels) {}
};

// One thread.
template <typename Whole>
__device__ __forceinline__ void StreamWhole(const SkinnyPlan& plan, WholeShared<Whole>& shared) {
  const uint64_t policy = EvictFirstPolicy();
  const WholeShare<Whole> share(plan);
  StreamWeights<Whole>(shared, share, [&](uint8_t* slot, uint64_t* full, int unit) {
    BarrierExpect(full, Whole::kSlotBytes);
#pragma unroll
    for (int box = 0; box < Whole::kBoxes; ++box) {
      TensorLoad(slot + box * Whole::kBoxBytes, &plan.weight_maps[share.task][box % Whole::kParts],
                 unit * 128, share.first + box / Whole::kParts * Whole::kN, full, policy);
    }
  });
}

template <typename Whole>
__device__ __forceinline__ void ProduceWhole(const SkinnyPlan& plan, WholeShared<Whole>& shared,
                                             int warp) {
  constexpr bool kScaled = Whole::Format::kScale == SkinnyScale::kChannel && !Whole::kPair;
  if (warp == 0) {
    if (ElectOne()) StreamWhole<Whole>(plan, shared);
  } else if (warp == 1) {
    if (ElectOne()) StreamInput<Whole>(plan, shared, plan.x_box_rows);
  } else if (kScaled && warp == 2) {
    const WholeShare<Whole> share(plan);
    for (int i = LaneId(); i < 2 * Whole::kChannels; i += 32) {
      const int part = i / Whole::kChannels, channel = i % Whole::kChannels;
      if (share.first + channel >= plan.tasks[0].out) continue;
      shared.scales[part][channel] = __ldg(plan.tasks[0].scales[part] + share.first + channel);
    }
  }
  __syncwarp();
}

// A warpgroup's sums: rows of x by channels of each part, as registers of the products.
template <typename Whole>
struct WholeSums {
  float part[Whole::kParts][Whole::kRegisters];
};

// This thread's first row of x; the other one is 8 further.
__device__ __forceinline__ int WholeRow() { return (threadIdx.x >> 5 & 3) * 16 + (LaneId() >> 2); }

template <typename Whole>
__device__ __forceinline__ void SumWhole(const SkinnyPlan& plan, WholeShared<Whole>& shared,
                                         int group, WholeSums<Whole>& sums) {
  using Product = Wgmma<Whole::kN>;
  constexpr bool kCoded = Whole::kCoded;
  const WholeShare<Whole> share(plan);
  const int own_slot = Whole::kPair ? group : 0, own_box = Whole::kPair ? 0 : group * Whole::kParts;
  RingCursor<Whole::kSlots> weights{own_slot, 0};
  RingCursor<Whole::kInputSlots> input{own_slot, 0};
  // Codes' sums of a unit: SkinnyConsumer::SumShared.
  WholeSums<Whole> unit_sums;
  for (int unit = share.unit_begin + own_slot; unit < share.unit_end; unit += Whole::kTurn) {
    BarrierWait(&shared.weights_full[weights.slot], weights.parity);
    BarrierWait(&shared.input_full[input.slot], input.parity);
    const uint64_t a = WgmmaDescriptor<128>(SharedAddress(shared.input[input.slot]), 1024);
    const uint64_t b = WgmmaDescriptor<128>(
        SharedAddress(shared.weights[weights.slot] + own_box * Whole::kBoxBytes), 1024);
    WgmmaFence();
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      const uint64_t rows = WgmmaAdvance(a, 32 * step);
#pragma unroll
      for (int part = 0; part < Whole::kParts; ++part) {
        const uint64_t columns = WgmmaAdvance(b, part * Whole::kBoxBytes + 32 * step);
        if constexpr (kCoded) {
          Product::SharedE4m3(unit_sums.part[part], rows, columns, step > 0);
        } else {
          Product::template Shared<__nv_bfloat16>(sums.part[part], rows, columns, true);
        }
      }
    }
    WgmmaCommit();
    float scale[2] = {1, 1};  // of this thread's rows
    if constexpr (kCoded) {
      scale[0] = shared.x_scales[input.slot][WholeRow()];
      scale[1] = shared.x_scales[input.slot][WholeRow() + 8];
    }
    WgmmaWait<0>();
    __syncwarp();
    BarrierArriveIf(LaneId() == 0, &shared.weights_empty[weights.slot]);
    BarrierArriveIf(LaneId() == 0, &shared.input_empty[input.slot]);
    weights.Advance(Whole::kTurn);
    input.Advance(Whole::kTurn);
    if constexpr (kCoded) {
#pragma unroll
      for (int part = 0; part < Whole::kParts; ++part) {
        WgmmaPin(unit_sums.part[part]);
#pragma unroll
        for (int i = 0; i < Whole::kRegisters; ++i) {
          sums.part[part][i] = fmaf(unit_sums.part[part][i], scale[i >> 1 & 1], sums.part[part][i]);
        }
      }
    }
  }
  if constexpr (!kCoded) {
#pragma unroll
    for (int part = 0; part < Whole::kParts; ++part) WgmmaPin(sums.part[part]);
  }
}

// Pairs of channels of this thread's two rows, of gate and up.
template <typename Whole>
__device__ __forceinline__ void WriteGated(const SkinnyPlan& plan, const WholeShared<Whole>& shared,
                                           int group, const WholeSums<Whole>& sums) {
  constexpr bool kScaled = Whole::Format::kScale == SkinnyScale::kChannel;
  const SkinnyPlanTask& task = plan.tasks[0];
  const int own = group * Whole::kN + 2 * (LaneId() & 3);
  const int first = WholeShare<Whole>(plan).first + own;
  auto* const y = static_cast<__nv_bfloat16*>(task.y) + first;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int token = WholeRow() + 8 * half;
    if (token >= plan.rows) continue;
#pragma unroll
    for (int j = 0; j < Whole::kN / 8; ++j) {
      if (first + 8 * j >= task.out) continue;
      float values[2];
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float gate = sums.part[0][4 * j + 2 * half + e], up = sums.part[1][4 * j + 2 * half + e];
        if constexpr (kScaled) {
          gate *= shared.scales[0][own + 8 * j + e];
          up *= shared.scales[1][own + 8 * j + e];
        }
        values[e] = GatedValue(gate, up, plan.epilogue);
      }
      *reinterpret_cast<uint32_t*>(y + token * task.y_stride + 8 * j) =
          PackBf16(values[0], values[1]);
    }
  }
}

// The end of a pair's product, of one warpgroup. Constructed before earlier kernels have ended.
template <typename Whole>
class PairOutput {
  using Tiles = typename Whole::Tiles;

 public:
  __device__ __forceinline__ PairOutput(const SkinnyPlan& plan, WholeShared<Whole>& shared,
                                        int group)
      : plan_(plan), shared_(shared), group_(group) {
    const int owner = PairOwner<Tiles>(group);
    const WholeShare<Whole> share(plan);
    task_ = &plan.tasks[share.task];
    first_ = share.first + owner * (8 * Tiles::kOwnTiles) + 2 * (LaneId() & 3);
    tiles_ = min(Tiles::TilesOf(owner), (task_->out - first_ + 7) / 8);
#pragma unroll
    for (int j = 0; j < Tiles::kOwnTiles; ++j) {
      scales_[j] = make_float2(1, 1);
      bias_[j] = make_float2(0, 0);
      if (j >= tiles_) continue;
      if constexpr (kScaled) scales_[j] = PairOf(task_->scales[0] + first_ + 8 * j);
      if (task_->bias[0] != nullptr) bias_[j] = PairOf(task_->bias[0] + first_ + 8 * j);
    }
  }

  __device__ __forceinline__ void Exchange(const WholeSums<Whole>& sums) {
    if ((threadIdx.x >> 5 & 3) * 16 >= plan_.rows) return;
    ExchangePair<Tiles>(shared_.arrivals, group_, sums.part[0], own_);
  }

  __device__ __forceinline__ void Write() const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int token = WholeRow() + 8 * half;
      if (token >= plan_.rows) continue;
      const int64_t offset = token * task_->y_stride + first_;
#pragma unroll
      for (int j = 0; j < Tiles::kOwnTiles; ++j) {
        if (j >= tiles_) continue;
        float2 v = make_float2(own_[4 * j + 2 * half], own_[4 * j + 2 * half + 1]);
        v.x = fmaf(v.x, scales_[j].x, bias_[j].x);
        v.y = fmaf(v.y, scales_[j].y, bias_[j].y);
        if (plan_.epilogue == SkinnyEpilogue::kResidual) {
          AddGlobal(static_cast<float*>(task_->y) + offset + 8 * j, v);
        } else if (plan_.epilogue == SkinnyEpilogue::kStoreFloat) {
          *reinterpret_cast<float2*>(static_cast<float*>(task_->y) + offset + 8 * j) = v;
        } else {
          *reinterpret_cast<uint32_t*>(static_cast<__nv_bfloat16*>(task_->y) + offset + 8 * j) =
              PackBf16(v.x, v.y);
        }
      }
    }
  }

 private:
  static constexpr bool kScaled = Whole::Format::kScale == SkinnyScale::kChannel;

  static __device__ __forceinline__ float2 PairOf(const float* from) {
    return make_float2(__ldg(from), __ldg(from + 1));
  }

  const SkinnyPlan& plan_;
  WholeShared<Whole>& shared_;
  const int group_;
  const SkinnyPlanTask* task_;
  int first_;  // channel of this thread, of the task's
  int tiles_;  // that this warpgroup writes
  float2 scales_[Tiles::kOwnTiles], bias_[Tiles::kOwnTiles];
  float own_[4 * Tiles::kOwnTiles] = {};
};

template <typename Whole>
__device__ __forceinline__ void InitWhole(const SkinnyPlan& plan, WholeShared<Whole>& shared) {
  InitRings<Whole>(shared);
  if constexpr (Whole::kPair) {
    InitPair<typename Whole::Tiles>(shared.arrivals, (plan.rows + 15) / 16);
  } else {
    BarrierInitFence();
  }
}

inline constexpr int kScalesBarrier = 1;

template <typename Whole>
__global__ void __launch_bounds__(Whole::kThreads, 1)
    SkinnyWholeKernel(const __grid_constant__ SkinnyPlan plan) {
  extern __shared__ __align__(1024) uint8_t memory[];
  auto& shared = *reinterpret_cast<WholeShared<Whole>*>(memory);
  const int warp = UniformWarp(), group = warp / 4 - 1;
  if (threadIdx.x == 0) InitWhole<Whole>(plan, shared);
  __syncthreads();
  if constexpr (Whole::kPair) ArriveCluster();
  LetNextStart();
  if (warp < 4) {
    ProduceWhole<Whole>(plan, shared, warp);
    if constexpr (Whole::kPair) {
      WaitCluster();
    } else {
      ArriveNamed(kScalesBarrier, Whole::kThreads);
    }
    return;
  }
  WholeSums<Whole> sums{};
  if constexpr (Whole::kPair) {
    PairOutput<Whole> output(plan, shared, group);
    WaitForPrior();
    SumWhole<Whole>(plan, shared, group, sums);
    // The other block's barriers are ready.
    WaitCluster();
    output.Exchange(sums);
    output.Write();
  } else {
    WaitForPrior();
    SumWhole<Whole>(plan, shared, group, sums);
    // The channels' scales lie ready.
    SyncNamed(kScalesBarrier, Whole::kThreads);
    WriteGated<Whole>(plan, shared, group, sums);
  }
}

template <typename Whole>
cudaError_t LaunchWholeShape(const SkinnyPlan& plan, int blocks, cudaStream_t stream) {
  static std::atomic<uint64_t> prepared{0};  // a bit a device
  constexpr int kBytes = static_cast<int>(sizeof(WholeShared<Whole>));
  static_assert(kBytes <= 227 * 1024);
  const cudaError_t error =
      PrepareKernel(reinterpret_cast<const void*>(&SkinnyWholeKernel<Whole>), kBytes, prepared);
  if (error != cudaSuccess) return error;
  return LaunchDependent(SkinnyWholeKernel<Whole>, dim3(blocks), dim3(Whole::kThreads), kBytes,
                         Whole::kPair ? 2 : 1, stream, plan);
}

template <typename Format, bool kPair, size_t... kIndex>
cudaError_t LaunchWholeOf(const SkinnyPlan& plan, int blocks, cudaStream_t stream,
                          std::index_sequence<kIndex...>) {
  constexpr auto kOf = [](size_t index) {
    return kPair ? kSkinnyWholePaired[index] : kSkinnyWholeGated[index];
  };
  cudaError_t error = cudaErrorInvalidValue;
  const auto launch = [&]<int kN>(std::integral_constant<int, kN>) {
    if (plan.whole_channels != kN) return;
    error = LaunchWholeShape<WholeShape<Format, kN, kPair>>(plan, blocks, stream);
  };
  (launch(std::integral_constant<int, kOf(kIndex)>{}), ...);
  return error;
}

template <typename Format>
cudaError_t LaunchSkinnyWhole(const SkinnyPlan& plan, int blocks, cudaStream_t stream) {
  return plan.gated != 0
             ? LaunchWholeOf<Format, false>(
                   plan, blocks, stream, std::make_index_sequence<std::size(kSkinnyWholeGated)>())
             : LaunchWholeOf<Format, true>(
                   plan, blocks, stream, std::make_index_sequence<std::size(kSkinnyWholePaired)>());
}

}  // namespace tessera::kernels::cuda
