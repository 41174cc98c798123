// The consumer warpgroups of skinny.h's kernel: matrix products of one group's 128 rows with the
// tokens.
#pragma once

#include <cstdint>

#include "kernels/cuda/linear/skinny_epilogue.cuh"
#include "kernels/cuda/linear/skinny_format.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace tessera::kernels::cuda {

// Where a piece's codes and group scales come from. Scales of 128 x 128 blocks are read 32 units at
// a time, one a lane.
template <typename Tile>
struct SkinnyCodeSource {
  using Format = typename Tile::Format;

  const float* row[2] = {nullptr, nullptr};  // scales of the block's row of blocks
  int count = 0;
  float chunk[2] = {0, 0};
  bool is_loaded = false;

  __device__ __forceinline__ SkinnyCodeSource(const SkinnyPlan& plan, const SkinnyPlanTask& task,
                                              const SkinnyPiece& piece, int group) {
    const int first = (piece.tile - task.first_tile) * Tile::kGroups + group;
#pragma unroll
    for (int b = 0; b < 2; ++b) {
      const int weight_row = plan.gated ? first * 64 : first * kSkinnyGroupRows + b * 64;
      if (weight_row >= task.out) continue;
      if constexpr (Format::kScale == SkinnyScale::kBlock) {
        count = (plan.in + 127) / 128;
        row[b] = task.scales[plan.gated ? b : 0] + int64_t{weight_row / 128} * count;
      }
    }
    if constexpr (Format::kScale == SkinnyScale::kBlock) LoadChunk(piece.unit_begin & ~31);
  }
  __device__ __forceinline__ void LoadChunk(int first) {
#pragma unroll
    for (int b = 0; b < 2; ++b) {
      const int index = first + LaneId();
      chunk[b] = row[b] != nullptr && index < count ? __ldg(row[b] + index) : 0;
    }
    is_loaded = true;
  }
  // Before the products of `unit`.
  __device__ __forceinline__ void Advance(int unit) {
    if constexpr (Format::kScale == SkinnyScale::kBlock) {
      if ((unit & 31) == 0 && !is_loaded) LoadChunk(unit);
      is_loaded = false;
    }
  }
  // This lane's codes of both blocks of a slot, `half` of their columns.
  __device__ __forceinline__ void Load(const uint8_t* slot, int half,
                                       typename Format::Codes (&codes)[2]) const {
    const int warp = threadIdx.x >> 5 & 3;
#pragma unroll
    for (int b = 0; b < 2; ++b) {
      codes[b] = Format::Load(slot + b * Format::kBlockBytes, half, warp, LaneId());
    }
  }
  // The same for the product of a warpgroup, of one block.
  __device__ __forceinline__ auto LoadSteps(const uint8_t* slot, int half, int b) const {
    return Format::LoadSteps(slot + b * Format::kBlockBytes, half, threadIdx.x >> 5 & 3, LaneId());
  }
  // Scales of rows g and g + 8 for the columns that `codes` are of.
  template <typename Codes>
  __device__ __forceinline__ void TakeScales(const Codes& codes, int b, int unit,
                                             float (&scale)[2]) const {
    if constexpr (Format::kScale == SkinnyScale::kGroup) {
      scale[0] = codes.scale[0];
      scale[1] = codes.scale[1];
    } else if constexpr (Format::kScale == SkinnyScale::kBlock) {
      scale[0] = scale[1] = __shfl_sync(0xffffffffu, chunk[b], unit & 31);
    }
  }
};

// What the products of a warpgroup under way read and write, of each block of 64 rows: fragments
// and, of grouped types, the sums of the group under way with the scales that they are to have.
template <typename Tile>
struct SkinnyFlight {
  SkinnyFragments a[2];
  float part[2][Tile::kGrouped ? Tile::kRegisters : 1] = {};
  float scale[2][2] = {};

  __device__ __forceinline__ void PinFragments(int b) {
#pragma unroll
    for (int step = 0; step < 4; ++step) WgmmaPin(a[b][step]);
  }
  // When the products of block `b` have ended, and where `ends_group` all of a group.
  __device__ __forceinline__ void Land(int b, bool ends_group, SkinnySums<Tile>& sums) {
    PinFragments(b);
    if constexpr (Tile::kGrouped) {
      WgmmaPin(part[b]);
      if (!ends_group) return;
#pragma unroll
      for (int i = 0; i < Tile::kRegisters; ++i) {
        sums.acc[b][i] = fmaf(scale[b][i >> 1 & 1], part[b][i], sums.acc[b][i]);
      }
    } else {
      WgmmaPin(sums.acc[b]);
    }
  }
};

// A consumer warpgroup's state from piece to piece.
template <typename Tile>
struct SkinnyConsumer {
  using Format = typename Tile::Format;
  using Product = Wgmma<Tile::kColumns>;

  const SkinnyPlan& plan;
  SkinnyShared<Tile>& shared;
  const int group;
  const int warp = threadIdx.x >> 5 & 3;
  const int lane = LaneId();
  RingCursor<Tile::kSlots> weights{group, 0};  // groups take slots in turn
  RingCursor<Tile::kInputSlots> input{};

  __device__ __forceinline__ void ReleaseWeights(int slot) {
    __syncwarp();
    BarrierArriveIf(lane == 0, &shared.weights_empty[slot]);
  }
  __device__ __forceinline__ void ReleaseInput(int slot, bool is_held = true) {
    __syncwarp();
    BarrierArriveIf(lane == 0 && is_held, &shared.input_empty[slot]);
  }
  __device__ __forceinline__ void WaitForInput() {
    BarrierWait(&shared.input_full[input.slot], input.parity);
  }
  __device__ __forceinline__ uint64_t InputDescriptor() const {
    return WgmmaDescriptor<128>(SharedAddress(shared.input[input.slot]), 1024);
  }

  // Weights straight from shared memory. A unit's slots are given back before the next is waited
  // for: the matrix cores are idle most of the time, and what they held would be missing from the
  // stream.
  __device__ __forceinline__ void SumShared(const SkinnyPiece& piece, SkinnySums<Tile>& sums) {
    // Codes' sums of a unit, whose sum is not rounded to the few bits that the products' are.
    SkinnySums<Tile> part;
    for (int unit = piece.unit_begin; unit < piece.unit_end; ++unit) {
      BarrierWait(&shared.weights_full[weights.slot], weights.parity);
      WaitForInput();
      const uint64_t b = InputDescriptor();
      const uint64_t a = WgmmaDescriptor<128>(SharedAddress(shared.weights[weights.slot]), 1024);
      WgmmaFence();
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        const uint64_t columns = WgmmaAdvance(b, 32 * step);
#pragma unroll
        for (int block = 0; block < 2; ++block) {
          const uint64_t rows = WgmmaAdvance(a, block * Format::kBlockBytes + 32 * step);
          if constexpr (Format::kCoded) {
            Product::SharedE4m3(part.acc[block], rows, columns, step > 0);
          } else {
            Product::template Shared<__nv_bfloat16>(sums.acc[block], rows, columns, true);
          }
        }
      }
      WgmmaCommit();
      WgmmaWait<0>();
      ReleaseWeights(weights.slot);
      ReleaseInput(input.slot);
      weights.Advance(Tile::kGroups);
      input.Advance();
      if constexpr (Format::kCoded) {
#pragma unroll
        for (int block = 0; block < 2; ++block) {
          WgmmaPin(part.acc[block]);
#pragma unroll
          for (int i = 0; i < Tile::kRegisters; ++i) sums.acc[block][i] += part.acc[block][i];
        }
      }
    }
    if constexpr (!Format::kCoded) {
      WgmmaPin(sums.acc[0]);
      WgmmaPin(sums.acc[1]);
    }
  }

  // Weights through registers, for many tokens: 64 columns of a block are converted while the
  // products of the other block run.
  __device__ __forceinline__ void SumWide(const SkinnyPiece& piece, SkinnyCodeSource<Tile>& source,
                                          SkinnySums<Tile>& sums) {
    // Codes are loaded before the products that they wait for have ended, if registers suffice.
    constexpr bool kEarly = Tile::kGeometry.resident == 1;
    SkinnyFlight<Tile> flight;
    for (int unit = piece.unit_begin; unit < piece.unit_end; ++unit) {
      BarrierWait(&shared.weights_full[weights.slot], weights.parity);
      source.Advance(unit);
      const uint8_t* slot = shared.weights[weights.slot];
      auto codes = source.LoadSteps(slot, 0, 0);
#pragma unroll
      for (int turn = 0; turn < 4; ++turn) {
        const int half = turn >> 1, b = turn & 1;
        const bool begins_group = half == 0 || Tile::kGroupColumns == 64;
        if (!kEarly && turn > 0) codes = source.LoadSteps(slot, half, b);
        Format::ConvertSteps(codes, flight.a[b]);
        if (begins_group) source.TakeScales(codes, b, unit, flight.scale[b]);
        if (b == 0) WaitForInput();
        // Products of the unit before: the assembler cannot tell which of them have ended.
        if (Tile::kGrouped && turn == 0) WgmmaWait<0>();
        MultiplyWide(b, begins_group, flight, sums);
        if (kEarly && turn < 3) codes = source.LoadSteps(slot, (turn + 1) >> 1, 1 - b);
        if (turn == (kEarly ? 2 : 3)) ReleaseWeights(weights.slot);
        // All have ended but those that began just now.
        WgmmaWait<1>();
        flight.Land(1 - b, turn == 0 || turn == 3 || Tile::kGroupColumns == 64, sums);
        if (b == 0) {
          ReleaseInput(input.Last(), half == 1 || unit != piece.unit_begin);
        } else {
          input.Advance();
        }
      }
      weights.Advance(Tile::kGroups);
    }
    WgmmaWait<0>();
    ReleaseInput(input.Last());
    flight.Land(1, true, sums);
  }
  // Starts the products of a block's fragments with the input slot.
  __device__ __forceinline__ void MultiplyWide(int b, bool begins_group, SkinnyFlight<Tile>& flight,
                                               SkinnySums<Tile>& sums) {
    const uint64_t columns = InputDescriptor();
    flight.PinFragments(b);
    WgmmaFence();
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      const uint64_t at = WgmmaAdvance(columns, 32 * step);
      if constexpr (Tile::kGrouped) {
        Product::template Registers<__nv_bfloat16>(flight.part[b], flight.a[b][step], at,
                                                   step > 0 || !begins_group);
      } else {
        Product::template Registers<__nv_bfloat16>(sums.acc[b], flight.a[b][step], at, true);
      }
    }
    WgmmaCommit();
  }

  // Weights through registers, for few tokens, 64 columns at a time, by products of single warps:
  // those of a warpgroup take as long for 8 tokens as for 32.
  __device__ __forceinline__ void SumConverted(const SkinnyPiece& piece,
                                               SkinnyCodeSource<Tile>& source,
                                               SkinnySums<Tile>& sums) {
    for (int unit = piece.unit_begin; unit < piece.unit_end; ++unit) {
      BarrierWait(&shared.weights_full[weights.slot], weights.parity);
      source.Advance(unit);
      const uint8_t* slot = shared.weights[weights.slot];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        typename Format::Codes codes[2];
        source.Load(slot, half, codes);
        if (half == 1) ReleaseWeights(weights.slot);
        WaitForInput();
        Multiply(source, unit, codes, sums);
        ReleaseInput(input.slot);
        input.Advance();
      }
      weights.Advance(Tile::kGroups);
    }
  }

  // Two steps at a time, so that few fragments wait in registers. Sums of grouped types are kept
  // apart until their scale is applied.
  __device__ __forceinline__ void Multiply(const SkinnyCodeSource<Tile>& source, int unit,
                                           const typename Format::Codes (&codes)[2],
                                           SkinnySums<Tile>& sums) {
    SkinnySums<Tile> part;
    if constexpr (Tile::kGrouped) part = SkinnySums<Tile>{};
    auto& to = Tile::kGrouped ? part : sums;
#pragma unroll
    for (int pair = 0; pair < 2; ++pair) {
      uint32_t a[2][2][4];
      Format::Convert(codes[0], pair, a[0]);
      Format::Convert(codes[1], pair, a[1]);
#pragma unroll
      for (int j = 0; j < Tile::kColumns / 8; ++j) {
        uint32_t columns[2][2];
        Format::LoadColumns(shared.input[input.slot], 8 * j, pair, lane, columns);
#pragma unroll
        for (int step = 0; step < 2; ++step) {
#pragma unroll
          for (int b = 0; b < 2; ++b) {
            float(&d)[4] = *reinterpret_cast<float(*)[4]>(&to.acc[b][4 * j]);
            MmaBf16(d, a[b][step], columns[step][0], columns[step][1]);
          }
        }
      }
    }
    if constexpr (Tile::kGrouped) {
#pragma unroll
      for (int b = 0; b < 2; ++b) {
        float scale[2];
        source.TakeScales(codes[b], b, unit, scale);
#pragma unroll
        for (int i = 0; i < Tile::kRegisters; ++i) {
          sums.acc[b][i] = fmaf(scale[i >> 1 & 1], part.acc[b][i], sums.acc[b][i]);
        }
      }
    }
  }
};

}  // namespace tessera::kernels::cuda
