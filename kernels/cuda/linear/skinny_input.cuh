// How x gets into shared memory: by the copy engine, or normalised by warps. An input slot is 64
// columns of x, rows of 128 bytes with the 128-byte swizzle.
#pragma once

#include "kernels/cuda/linear/skinny_format.cuh"

namespace tessera::kernels::cuda {

inline constexpr int kSkinnyLoaders = 3;  // warps

// Runs work(run of 64 columns) for each input slot that this block consumes, in order.
template <typename Tile, typename Work>
__device__ __forceinline__ void ForInputSlots(const SkinnyPlan& plan, Work work) {
  const int units = plan.UnitBegin(blockIdx.x + 1) - plan.UnitBegin(blockIdx.x);
  int unit_k = plan.UnitBegin(blockIdx.x) % plan.tile_units;
  for (int i = 0; i < units; ++i) {
#pragma unroll
    for (int half = 0; half < Tile::Format::kHalves; ++half) {
      work(unit_k * Tile::Format::kHalves + half);
    }
    if (++unit_k == plan.tile_units) unit_k = 0;
  }
}

// One thread.
template <typename Tile>
__device__ __forceinline__ void CopyInput(const SkinnyPlan& plan, SkinnyShared<Tile>& shared) {
  PrefetchTensorMap(&plan.x_map);
  WaitForPrior();
  RingCursor<Tile::kInputSlots> cursor;
  ForInputSlots<Tile>(plan, [&](int run) {
    BarrierWait(&shared.input_empty[cursor.slot], cursor.parity ^ 1);
    BarrierExpect(&shared.input_full[cursor.slot], Tile::kInputBytes);
    TensorLoad(shared.input[cursor.slot], &plan.x_map, run * 128, 0,
               &shared.input_full[cursor.slot]);
    cursor.Advance();
  });
}

// Columns 64 * run ... of the residual rows, times the gains, into a slot; `rows` are those of this
// lane's two items. Written by kernels before: not through L1, which may hold what the lines were.
__device__ __forceinline__ void FillFromResidual(const SkinnyPlan& plan, int run,
                                                 const float* const (&rows)[2], uint8_t* slot,
                                                 float* squares, uint64_t* empty, uint32_t parity) {
  const int lane = LaneId(), chunk = lane & 7;
  const int column = run * 64 + chunk * 8;
  const bool inside = run * 64 < plan.in;
  float4 value[2][2] = {};
  float4 gain[2] = {};
  if (inside) {
    gain[0] = __ldg(reinterpret_cast<const float4*>(plan.norm_weight + column));
    gain[1] = __ldg(reinterpret_cast<const float4*>(plan.norm_weight + column + 4));
  }
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    if (!inside || rows[j] == nullptr) continue;
    value[j][0] = __ldcg(reinterpret_cast<const float4*>(rows[j] + column));
    value[j][1] = __ldcg(reinterpret_cast<const float4*>(rows[j] + column + 4));
  }
  BarrierWait(empty, parity);
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const float4 &v = value[j][0], &w = value[j][1];
    float sum = v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
    sum += w.x * w.x + w.y * w.y + w.z * w.z + w.w * w.w;
#pragma unroll
    for (int offset = 4; offset > 0; offset /= 2) {
      sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    }
    if (rows[j] == nullptr) continue;
    const int row = (lane >> 3) + 4 * j;
    if (chunk == 0) squares[row] = sum;
    *reinterpret_cast<uint4*>(slot + row * 128 + (chunk ^ row) * 16) = make_uint4(
        PackBf16(v.x * gain[0].x, v.y * gain[0].y), PackBf16(v.z * gain[0].z, v.w * gain[0].w),
        PackBf16(w.x * gain[1].x, w.y * gain[1].y), PackBf16(w.z * gain[1].z, w.w * gain[1].w));
  }
}

// One of kSkinnyLoaders warps.
template <typename Tile>
__device__ __forceinline__ void NormaliseInput(const SkinnyPlan& plan, SkinnyShared<Tile>& shared,
                                               int loader) {
  const int lane = LaneId();
  WaitForPrior();
  const float* rows[2] = {nullptr, nullptr};
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const int row = (lane >> 3) + 4 * j;
    if (row >= plan.rows) continue;
    const int64_t from = plan.x_rows == nullptr ? row : __ldcg(plan.x_rows + row);
    rows[j] = plan.residual + from * plan.in;
  }
  RingCursor<Tile::kInputSlots> cursor;
  int turn = 0;
  ForInputSlots<Tile>(plan, [&](int run) {
    if (turn == loader) {
      FillFromResidual(plan, run, rows, shared.input[cursor.slot], shared.squares[cursor.slot],
                       &shared.input_empty[cursor.slot], cursor.parity ^ 1);
      FenceAsyncShared();
      __syncwarp();
      if (lane == 0) BarrierArrive(&shared.input_full[cursor.slot]);
    }
    turn = turn == kSkinnyLoaders - 1 ? 0 : turn + 1;
    cursor.Advance();
  });
}

}  // namespace tessera::kernels::cuda
