// The kernel of skinny.h for up to 8 rows on sm_90a. A multiprocessor owns whole rows of weights,
// in tiles of 16, so that sums stay inside it: its warps divide the columns (and, where there are
// many tiles, the tiles), and add what they have in shared memory at the end. Each warp streams its
// own weights through a ring of its own, one tile of a unit a slot, and needs no other warp until
// then.
//
// Only x and y wait for earlier kernels; the rings are full of weights by then. What follows the
// wait is short code: it is fetched while nothing else can be done.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/linear/skinny_epilogue.cuh"
#include "kernels/cuda/linear/skinny_few_input.cuh"
#include "kernels/cuda/linear/skinny_few_loader.cuh"
#include "kernels/cuda/linear/skinny_format.cuh"

namespace tessera::kernels::cuda {

// A lane's sums of a tile. Of float numbers as mma.m16n8k16 leaves them: rows g and g + 8, tokens 2
// (lane % 4) + {0, 1}; of digits rows g and g + 8 of token lane % 4, then of token 4 + lane % 4.
template <typename Few>
using FewSums = float[Few::kSums];

// Of a row (0..15) and token: the word of a warp's sums of a tile.
template <typename Few>
__device__ __forceinline__ int FewSumWord(int row, int token) {
  if constexpr (Few::kIsDigits) {
    return ((row & 7) * 4 + (token & 3)) * Few::kSums + (token >> 2) * 2 + (row >> 3);
  }
  return ((row & 7) * 4 + (token >> 1)) * Few::kSums + (row >> 3) * 2 + (token & 1);
}

// Scales of 128 x 128 blocks: lane t reads those of the warp's tile t, a unit ahead.
template <typename Few>
struct FewBlockScales {
  const float* row = nullptr;
  int units = 0;
  float now = 0, next = 0;

  __device__ __forceinline__ FewBlockScales(const SkinnyPlan& plan, const FewTiles& tiles) {
    if constexpr (Few::Format::kScale == SkinnyScale::kBlock) {
      if (LaneId() >= tiles.count) return;
      const FewPlace place(plan, tiles.first + LaneId());
      units = plan.tile_units;
      row = place.task->scales[place.part] + int64_t{place.row / 128} * units;
    }
  }
  __device__ __forceinline__ void Fetch(int unit) {
    if constexpr (Few::Format::kScale == SkinnyScale::kBlock) {
      next = row != nullptr && unit < units ? __ldg(row + unit) : 0;
    }
  }
  // Of the warp's tile `tile`; 1 for other types.
  __device__ __forceinline__ float Of(int tile) const {
    if constexpr (Few::Format::kScale == SkinnyScale::kBlock) {
      return __shfl_sync(0xffffffffu, now, tile);
    }
    return 1.0f;
  }
};

// What decides what integer sums of a unit begin with, where they begin with anything: of each set,
// run of columns with a scale of its own, and digit of this lane's token the sum of its digits.
template <typename Few>
struct FewStarts {
  static constexpr int kRuns = Few::kGroupColumns == 64 ? 2 : 1;
  int digits[Few::kSets][kRuns][2] = {};

  __device__ __forceinline__ explicit FewStarts(const FewUnit<Few>& unit) {
    if constexpr (!Few::Format::kStarts) return;
    constexpr uint32_t kOnes = 0x01010101u;
#pragma unroll
    for (int set = 0; set < Few::kSets; ++set) {
      int sums[kRuns][4] = {};
#pragma unroll
      for (int half = 0; half < Few::Format::kHalves; ++half) {
        const auto& words = unit.columns[set][half];
        int(&to)[4] = sums[kRuns == 2 ? half : 0];
        MmaU8(to, {kOnes, kOnes, kOnes, kOnes}, words[0], words[1]);
        MmaU8(to, {kOnes, kOnes, kOnes, kOnes}, words[2], words[3]);
      }
#pragma unroll
      for (int run = 0; run < kRuns; ++run) {
        digits[set][run][0] = sums[run][0];
        digits[set][run][1] = sums[run][1];
      }
    }
  }
};

// One tile of a unit into its sums, before which `release` is called when the slot is read.
// `block_scale` is of the weights, where they have one.
template <typename Few, typename Release>
__device__ __forceinline__ void MultiplyFloats(const uint8_t* slot, float block_scale,
                                               const FewUnit<Few>& unit, FewSums<Few>& sums,
                                               Release release) {
  using Format = typename Few::Format;
  typename Format::Codes codes[Format::kHalves];
#pragma unroll
  for (int half = 0; half < Format::kHalves; ++half) {
    codes[half] = Format::Load(slot, half, 0, LaneId());
  }
  release();
  FewSums<Few> part[2] = {};  // two chains
#pragma unroll
  for (int half = 0; half < Format::kHalves; ++half) {
#pragma unroll
    for (int pair = 0; pair < 2; ++pair) {
      uint32_t a[2][4];
      if constexpr (Format::kNumbers == SkinnyNumbers::kF16) {
        Format::ConvertHalves(codes[half], pair, a);
      } else {
        Format::Convert(codes[half], pair, a);
      }
#pragma unroll
      for (int step = 0; step < 2; ++step) {
        const uint32_t* b = &unit.columns[0][half][4 * pair + 2 * step];
        if constexpr (Format::kNumbers == SkinnyNumbers::kF16) {
          MmaF16(part[step], a[step], b[0], b[1]);
        } else {
          MmaBf16(part[step], a[step], b[0], b[1]);
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    float scale = unit.scale[i & 1];
    if constexpr (Format::kScale == SkinnyScale::kBlock) scale *= block_scale;
    sums[i] = fmaf(scale, part[0][i] + part[1][i], sums[i]);
  }
}
template <typename Few, typename Release>
__device__ __forceinline__ void MultiplyDigits(const uint8_t* slot, const FewStarts<Few>& starts,
                                               const FewUnit<Few>& unit, FewSums<Few>& sums,
                                               Release release) {
  using Format = typename Few::Format;
  typename Format::Codes codes[Format::kHalves];
#pragma unroll
  for (int half = 0; half < Format::kHalves; ++half) {
    codes[half] = Format::Load(slot, half, 0, LaneId());
  }
  release();
  constexpr bool kApart = Few::kGroupColumns == 64;  // whether each half has scales of its own
#pragma unroll
  for (int set = 0; set < Few::kSets; ++set) {
    int part[2][4];
#pragma unroll
    for (int half = 0; half < Format::kHalves; ++half) {
      if (half == 0 || kApart) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          part[0][i] = part[1][i] = 0;
          if constexpr (Format::kStarts) {
            part[1][i] =
                Format::Start(codes[half], i >> 1, starts.digits[set][kApart ? half : 0][i & 1]);
          }
        }
      }
      Format::MultiplyDigits(codes[half], unit.columns[set][half], part);
      if (half + 1 < Format::kHalves && !kApart) continue;
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int high = part[0][2 * r] + part[1][2 * r];
        const int low = part[0][2 * r + 1] + part[1][2 * r + 1];
        float scale = unit.scale[set];
        if constexpr (Format::kScale == SkinnyScale::kGroup) scale *= codes[half].scale[r];
        // Below 2^31: 128 codes of 4 bits times 16, or of 8, and 16 bits.
        sums[2 * set + r] = fmaf(scale, static_cast<float>(high * 256 + low), sums[2 * set + r]);
      }
    }
  }
}

// Streams one pass of a warp, all its tiles over all its units, and leaves the sums.
template <typename Few>
__device__ __forceinline__ void SumPass(const SkinnyPlan& plan, const FewTeam& team,
                                        const FewTiles& tiles, FewBlockScales<Few>& scales,
                                        FewLoader<Few>& loader, FewInput<Few>& input) {
  FewSums<Few> sums[Few::kTiles] = {};
  input.Fetch(team.place);
#pragma unroll 1
  for (int unit = team.place; unit < plan.tile_units; unit += team.warps) {
    FewUnit<Few> x;
    input.Take(unit, x);
    input.Fetch(unit + team.warps);
    const FewStarts<Few> starts(x);
    scales.now = scales.next;
    scales.Fetch(unit + team.warps);
#pragma unroll
    for (int tile = 0; tile < Few::kTiles; ++tile) {
      if (tile >= tiles.count) break;
      const float block_scale = scales.Of(tile);
      const uint8_t* slot = loader.WaitForNext();
      const auto release = [&] { loader.Refill(); };
      if constexpr (Few::kIsDigits) {
        MultiplyDigits<Few>(slot, starts, x, sums[tile], release);
      } else {
        MultiplyFloats<Few>(slot, block_scale, x, sums[tile], release);
      }
    }
  }
  __syncwarp();
#pragma unroll
  for (int tile = 0; tile < Few::kTiles; ++tile) {
    if (tile >= tiles.count) break;
    float* to = loader.sums() + (tile * 32 + LaneId()) * Few::kSums;
    if constexpr (Few::kSums == 2) {
      *reinterpret_cast<float2*>(to) = make_float2(sums[tile][0], sums[tile][1]);
    } else {
      *reinterpret_cast<float4*>(to) =
          make_float4(sums[tile][0], sums[tile][1], sums[tile][2], sums[tile][3]);
    }
  }
}

// Adds the warps' sums of a row and kTokens neighbouring tokens of tile `tile` of the pass, in
// pairs and pairs of pairs: all are read at once. A token that there is not has a sum of nothing in
// particular.
template <typename Few, int kTokens>
__device__ __forceinline__ void AddParts(const SkinnyPlan& plan, FewShared<Few>& shared,
                                         const FewPass& pass, int tile, int row, int token,
                                         float (&sums)[kTokens]) {
  const int team = tile < pass.first_half ? 0 : 1;
  const int warps = Few::kWarps / plan.few_teams;
  const int own = tile - (team == 0 ? 0 : pass.first_half);
  const uint32_t ring = FewRingBytes<Few>(plan);
  const uint8_t* from =
      FewRing<Few>(plan, shared, team * warps + 1) - Few::kSumBytes + own * 32 * Few::kSums * 4;
#pragma unroll
  for (int e = 0; e < kTokens; ++e) {
    const uint8_t* const at = from + FewSumWord<Few>(row, token + e) * 4;
    float part[Few::kWarps];
#pragma unroll
    for (int i = 0; i < Few::kWarps; ++i) {
      part[i] = i < warps ? *reinterpret_cast<const float*>(at + i * ring) : 0;
    }
#pragma unroll
    for (int apart = 1; apart < Few::kWarps; apart *= 2) {
#pragma unroll
      for (int i = 0; i < Few::kWarps; i += 2 * apart) part[i] += part[i + apart];
    }
    sums[e] = part[0];
  }
}

// Writes one value of the output.
__device__ __forceinline__ void StoreFew(const SkinnyPlan& plan, void* y, int64_t offset, float v) {
  if (plan.epilogue == SkinnyEpilogue::kResidual) {
    // An element of y has one writer: adding in L2 is as exact as loading it, and waits for
    // nothing.
    atomicAdd(static_cast<float*>(y) + offset, v);
  } else if (plan.epilogue == SkinnyEpilogue::kStoreFloat) {
    static_cast<float*>(y)[offset] = v;
  } else {
    static_cast<__nv_bfloat16*>(y)[offset] = __float2bfloat16_rn(v);
  }
}

// What the sums of the pass's tiles become.
template <typename Few>
__device__ __forceinline__ void LoadOutputs(const SkinnyPlan& plan, FewShared<Few>& shared,
                                            const FewPass& pass) {
  const int tile = static_cast<int>(threadIdx.x) / kSkinnyFewRows;
  if (tile >= pass.count) return;
  const int in_tile = static_cast<int>(threadIdx.x) % kSkinnyFewRows;
  const FewPlace place(plan, pass.first + tile);
  const SkinnyPlanTask& task = *place.task;
  const int row = place.template RowOf<typename Few::Format>(in_tile);
  FewOutput output{1, 0, nullptr};
  if (row < task.out) {
    if constexpr (Few::Format::kScale == SkinnyScale::kChannel) {
      output.scale = __ldg(task.scales[place.part] + row);
    }
    if (task.bias[place.part] != nullptr) output.bias = __ldg(task.bias[place.part] + row);
    const bool is_float =
        plan.epilogue == SkinnyEpilogue::kResidual || plan.epilogue == SkinnyEpilogue::kStoreFloat;
    output.y = static_cast<uint8_t*>(task.y) + int64_t{row} * (is_float ? 4 : 2);
  }
  shared.outputs[tile][in_tile] = output;
}

// Sums, finishes and writes what this thread has of the pass's output, kTokens of a row of a tile
// at a time, so that rows of a token lie one after another. Waits for the warps' sums. It runs once
// between two streams: what it reads lies ready in shared memory.
template <typename Few>
__device__ __forceinline__ void FinishPass(const SkinnyPlan& plan, FewShared<Few>& shared,
                                           const FewPass& pass) {
  constexpr int kTokens = Few::kTokens;
  const int parts = plan.gated != 0 ? 2 : 1;
  // Runs of kTokens, as a power of two.
  const int runs = plan.rows <= kTokens ? 0 : plan.rows <= 2 * kTokens ? 1 : 2;
  const int elements = pass.count / parts * kSkinnyFewRows << runs;
  const int in_tile = static_cast<int>(threadIdx.x) % kSkinnyFewRows;
  float factor = FewInput<Few>::Factor(plan, shared, 0);
  __syncthreads();
#pragma unroll 1
  for (int index = threadIdx.x; index < elements; index += Few::kThreads) {
    const int token = (index / kSkinnyFewRows & ((1 << runs) - 1)) * kTokens;
    const int tile = (index / kSkinnyFewRows >> runs) * parts;
    void* const y = shared.outputs[tile][in_tile].y;
    if (y == nullptr || token >= plan.rows) continue;
    int64_t y_stride = 0;
    const __nv_bfloat16* addend[2] = {nullptr, nullptr};
    int64_t addend_stride = 0;
    if (plan.few_plain == 0) {
      const FewPlace place(plan, pass.first + tile);
      const int row = place.template RowOf<typename Few::Format>(in_tile);
      y_stride = place.task->y_stride;
      addend_stride = place.task->addend_stride;
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        if (place.task->addend[part] != nullptr) addend[part] = place.task->addend[part] + row;
      }
    }
    float factors[kTokens];
#pragma unroll
    for (int e = 0; e < kTokens; ++e) {
      factors[e] =
          kTokens == 1 && plan.rows == 1 ? factor : FewInput<Few>::Factor(plan, shared, token + e);
    }
    const auto values = [&](int part, float(&v)[kTokens]) {
      const FewOutput output = shared.outputs[tile + part][in_tile];
      AddParts<Few>(plan, shared, pass, tile + part, in_tile, token, v);
#pragma unroll
      for (int e = 0; e < kTokens; ++e) {
        v[e] = v[e] * (factors[e] * output.scale) + output.bias;
        if (addend[part] != nullptr && token + e < plan.rows) {
          v[e] += __bfloat162float(addend[part][(token + e) * addend_stride]);
        }
      }
    };
    float v[kTokens], up[kTokens];
    values(0, v);
    if (parts == 2) values(1, up);
#pragma unroll
    for (int e = 0; e < kTokens; ++e) {
      if (token + e >= plan.rows) break;
      const int64_t y_row = plan.y_rows == nullptr ? token + e : plan.y_rows[token + e];
      StoreFew(plan, y, y_row * y_stride,
               parts == 2 ? GatedValue(v[e], up[e], plan.epilogue) : v[e]);
    }
  }
}

template <typename Few>
__global__ void __launch_bounds__(Few::kThreads, 2)
    SkinnyFewKernel(const __grid_constant__ SkinnyPlan plan) {
  extern __shared__ __align__(1024) uint8_t memory[];
  auto& shared = *reinterpret_cast<FewShared<Few>*>(memory);
  const int warp = UniformWarp();
  const FewTeam team(plan, Few::kWarps, warp);
  const int passes = FewPass::CountOf(plan);
  FewLoader<Few> loader(plan, shared, warp, passes > 1);
  FewInput<Few> input(plan, shared);
  FewPass pass(plan, 0);
  loader.Begin(team, FewTiles(pass, team), 0);
#pragma unroll 1
  for (int index = 0;;) {
    const FewTiles tiles(pass, team);
    LoadOutputs<Few>(plan, shared, pass);
    FewBlockScales<Few> scales(plan, tiles);
    scales.Fetch(team.place);
    if (index == 0) {
      LetNextStart();
      input.Begin();
    }
    SumPass<Few>(plan, team, tiles, scales, loader, input);
    const FewPass done = pass;
    const bool is_last = ++index == passes;
    if (!is_last) {
      // On its way while the pass before is finished.
      pass = FewPass(plan, index);
      loader.Begin(team, FewTiles(pass, team), index);
    }
    FinishPass<Few>(plan, shared, done);
    if (is_last) return;
    __syncthreads();
  }
}

template <typename Few>
cudaError_t LaunchFew(const SkinnyPlan& plan, int blocks, cudaStream_t stream) {
  static std::atomic<uint64_t> prepared{0};  // a bit a device
  const cudaError_t error = PrepareKernel(reinterpret_cast<const void*>(&SkinnyFewKernel<Few>),
                                          static_cast<int>(kSkinnyAloneBytes), prepared);
  if (error != cudaSuccess) return error;
  SkinnyPlan with_slots = plan;
  const size_t bytes = plan.place == SkinnyPlace::kAlone ? kSkinnyAloneBytes : kSkinnyBesideBytes;
  with_slots.few_slots = FewSlots<Few>(plan, bytes);
  return LaunchDependent(SkinnyFewKernel<Few>, dim3(blocks), dim3(Few::kThreads), bytes, 1, stream,
                         with_slots);
}

// x that fits is copied into shared memory where turning it into other numbers costs most: where
// there is one tile or two for a unit of it. bfloat16 had nothing of that.
template <typename Format, int kTiles, int kSets, int kTokens>
cudaError_t LaunchFewTiles(const SkinnyPlan& plan, int blocks, cudaStream_t stream) {
  if (plan.x == nullptr) {
    return LaunchFew<FewShape<Format, kTiles, FewX::kNormed, kSets, kTokens>>(plan, blocks, stream);
  }
  if constexpr (Format::kNumbers != SkinnyNumbers::kBf16 && kSets == 1) {
    if (int64_t{plan.rows} * plan.in <= kSkinnyMostKept) {
      return LaunchFew<FewShape<Format, kTiles, FewX::kCopied, kSets, kTokens>>(plan, blocks,
                                                                                stream);
    }
  }
  return LaunchFew<FewShape<Format, kTiles, FewX::kFetched, kSets, kTokens>>(plan, blocks, stream);
}

// Few tiles a block need few registers.
template <typename Format, int kSets, int kTokens>
cudaError_t LaunchFewRows(const SkinnyPlan& plan, int blocks, cudaStream_t stream) {
  return plan.few_tiles <= 4 ? LaunchFewTiles<Format, 4, kSets, kTokens>(plan, blocks, stream)
                             : LaunchFewTiles<Format, 8, kSets, kTokens>(plan, blocks, stream);
}
// What one row does not need is not in its code: there is no time to fetch it.
template <typename Format>
cudaError_t LaunchSkinnyFew(const SkinnyPlan& plan, int blocks, cudaStream_t stream) {
  constexpr bool kIsDigits = Format::kNumbers == SkinnyNumbers::kDigits;
  constexpr int kMostSets = kIsDigits ? 2 : 1;
  if (plan.rows <= (kIsDigits ? 4 : 1)) return LaunchFewRows<Format, 1, 1>(plan, blocks, stream);
  return LaunchFewRows<Format, kMostSets, 2>(plan, blocks, stream);
}

}  // namespace tessera::kernels::cuda
