// How few rows of bf16 become codes in the kernel that multiplies them (skinny_whole.cuh).
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/linear/skinny_whole_shape.cuh"
#include "kernels/cuda/ptx.cuh"

namespace tessera::kernels::cuda {

// Few rows of bf16 on their way to codes: four lanes round a row's 128 of a unit, so that a warp
// has 8 of them at a time, as many units as that holds. A slot of the ring is always the same
// warp's: who waits for it waits for the phase before its own.
template <typename Whole>
class RowRounder {
 public:
  __device__ __forceinline__ RowRounder(const SkinnyPlan& plan, WholeShared<Whole>& shared)
      : plan_(plan), shared_(shared), share_(plan) {
    const int padded = plan.rows <= 2 ? plan.rows : kSkinnyRoundedRows;
    units_ = 8 / padded;
    turn_ = plan.rows == 1 ? units_ : 2 * units_;
    static_assert(Whole::kInputSlots == 8, "a turn of any number of rows divides it");
    row_ = LaneId() / 4 % padded;
    unit_ = LaneId() / 4 / padded;
  }

  // Units of warp `index`.
  __device__ __forceinline__ void Run(int index) {
    if (index * units_ >= turn_) return;
    WaitForPrior();
    const int count = share_.unit_end - share_.unit_begin;
    uint4 next[4];
    Load(index * units_ + unit_, next);
    for (int first = index * units_; first < count; first += turn_) {
      uint4 words[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) words[i] = next[i];
      Load(first + turn_ + unit_, next);
      const int unit = first + unit_, slot = unit % Whole::kInputSlots;
      if (unit < count) {
        BarrierWait(&shared_.input_empty[slot], unit / Whole::kInputSlots + 1 & 1);
      }
      __syncwarp();
      Round(words, unit < count && row_ < plan_.rows, slot);
      FenceAsyncShared();
      __syncwarp();
      const bool arrives = unit < count && row_ == 0 && (LaneId() & 3) == 0;
      BarrierArriveIf(arrives, &shared_.input_full[slot]);
    }
  }

 private:
  // This lane's 32 columns of a unit: eight each of four chunks of 32.
  __device__ __forceinline__ void Load(int unit, uint4 (&words)[4]) const {
    const int column = (share_.unit_begin + unit) * 128 + (LaneId() & 3) * 8;
    const auto* const from = reinterpret_cast<const uint4*>(plan_.x + int64_t{row_} * plan_.in);
    const bool exists = row_ < plan_.rows && share_.unit_begin + unit < share_.unit_end;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int at = column + 32 * i;
      words[i] = exists && at < plan_.in ? __ldcg(from + at / 8) : make_uint4(0, 0, 0, 0);
    }
  }
  __device__ __forceinline__ void Round(const uint4 (&words)[4], bool stores, int slot) const {
    const auto* const pairs = reinterpret_cast<const __nv_bfloat162*>(words);
    float amax = 0;
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const float2 v = __bfloat1622float2(pairs[i]);
      amax = fmaxf(amax, fmaxf(fabsf(v.x), fabsf(v.y)));
    }
    amax = fmaxf(amax, __shfl_xor_sync(0xffffffffu, amax, 1));
    amax = fmaxf(amax, __shfl_xor_sync(0xffffffffu, amax, 2));
    // Below this 448 / amax is no finite float.
    const float factor = amax < 1e-35f ? 0 : 448.0f / amax;
    if (!stores) return;
    uint8_t* const row = shared_.input[slot] + row_ * 128;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      uint32_t codes[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float2 a = __bfloat1622float2(pairs[4 * i + 2 * half]);
        const float2 b = __bfloat1622float2(pairs[4 * i + 2 * half + 1]);
        codes[half] = PackE4m3(a.x * factor, a.y * factor, b.x * factor, b.y * factor);
      }
      const int chunk = 4 * i + (LaneId() & 3);  // of eight codes
      *reinterpret_cast<uint2*>(row + ((chunk / 2 ^ row_) * 16 + chunk % 2 * 8)) =
          make_uint2(codes[0], codes[1]);
    }
    if ((LaneId() & 3) == 0) shared_.unit_scales[slot][row_] = amax * (1 / 448.0f);
  }

  const SkinnyPlan& plan_;
  WholeShared<Whole>& shared_;
  const WholeShare<Whole> share_;
  int units_;       // of a warp at a time
  int turn_;        // units of all warps at a time
  int row_, unit_;  // of this lane
};

}  // namespace tessera::kernels::cuda
