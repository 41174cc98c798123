// Four bf16 elements at a time, and the activations. Device code.
#pragma once

#include <cstdint>

#include "kernels/cuda/ops/weight_decode.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/ops/gated_activation.h"

namespace tessera::kernels::cuda {

__device__ __forceinline__ float4 LoadBf16x4(const __nv_bfloat16* p) {
  const uint2 raw = *reinterpret_cast<const uint2*>(p);
  const float2 low = Bf16Pair(raw.x), high = Bf16Pair(raw.y);
  return make_float4(low.x, low.y, high.x, high.y);
}
__device__ __forceinline__ void StoreBf16x4(__nv_bfloat16* p, float4 v) {
  *reinterpret_cast<uint2*>(p) = make_uint2(PackBf16(v.x, v.y), PackBf16(v.z, v.w));
}

// silu: x / (1 + exp(-x)); gelu_tanh: x * sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3)).
template <ActivationKind kKind>
__device__ __forceinline__ float Activate(float x) {
  const float argument =
      kKind == ActivationKind::kSilu ? x : 1.5957691216f * (x + 0.044715f * x * x * x);
  return __fdividef(x, 1.0f + __expf(-argument));
}

}  // namespace tessera::kernels::cuda
