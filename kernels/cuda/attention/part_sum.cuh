// Adding up what parts of a context left: sums of values that are weighted relative to the part's
// own maximum. Device code.
#pragma once

#include <cmath>

#include "kernels/cuda/ptx.cuh"

namespace tessera::kernels::cuda {

// What a part's sums count where the greatest maximum is `top`. Maxima are of exponents of two; a
// part that saw nothing has minus infinity.
__device__ __forceinline__ float WeightOf(float maximum, float top) {
  return maximum == -INFINITY ? 0.f : Exp2(maximum - top);
}

__device__ __forceinline__ void AddScaled(float4& total, const float4& value, float weight) {
  total.x = fmaf(value.x, weight, total.x);
  total.y = fmaf(value.y, weight, total.y);
  total.z = fmaf(value.z, weight, total.z);
  total.w = fmaf(value.w, weight, total.w);
}

// Of up to kParts parts, for one query and four dimensions: maximum and sum of weights, weighted
// values.
template <int kParts>
struct SplitParts {
  float2 statistics[kParts];
  float4 values[kParts];
};

// A running sum of parts.
struct PartSum {
  float top = -INFINITY;
  float sum = 0;
  float4 total = {0, 0, 0, 0};

  __device__ __forceinline__ void Rescale(float new_top) {
    const float factor = WeightOf(top, new_top);
    sum *= factor;
    total = make_float4(total.x * factor, total.y * factor, total.z * factor, total.w * factor);
    top = new_top;
  }
  template <int kParts>
  __device__ __forceinline__ void Add(const SplitParts<kParts>& parts) {
    float new_top = top;
#pragma unroll
    for (int s = 0; s < kParts; ++s) new_top = fmaxf(new_top, parts.statistics[s].x);
    Rescale(new_top);
#pragma unroll
    for (int s = 0; s < kParts; ++s) {
      const float weight = WeightOf(parts.statistics[s].x, top);
      sum = fmaf(parts.statistics[s].y, weight, sum);
      AddScaled(total, parts.values[s], weight);
    }
  }
  // Adds the neighbouring lane's sum; both lanes get the same bits.
  __device__ __forceinline__ void AddNeighbour() {
    Rescale(fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1)));
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    total.x += __shfl_xor_sync(0xffffffffu, total.x, 1);
    total.y += __shfl_xor_sync(0xffffffffu, total.y, 1);
    total.z += __shfl_xor_sync(0xffffffffu, total.z, 1);
    total.w += __shfl_xor_sync(0xffffffffu, total.w, 1);
  }
};

}  // namespace tessera::kernels::cuda
