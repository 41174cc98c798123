// Keys that order tokens, and the weight of a logit: the CPU backend's arithmetic, bit for bit.
// Device code.
#pragma once

#include <cstdint>

#include "kernels/cuda/ops/sample_team.cuh"

namespace tessera::kernels::cuda {

inline constexpr float kLargestFloat = 3.402823466e38f;
inline constexpr float kGreedyTemperature = 1e-5f;
inline constexpr float kRounder =
    12582912.0f;  // 1.5 * 2^23: what is added is rounded to an integer

__device__ __forceinline__ float NegativeInfinity() { return __uint_as_float(0xff800000u); }

// Not-a-number reads as -infinity, +infinity as the largest float, -0 as 0.
__device__ __forceinline__ float CleanLogit(float x) {
  return fminf(kLargestFloat, fmaxf(NegativeInfinity(), x)) + 0.0f;
}

// Rises with the score, then with falling id. Never 0 and no two tokens' are equal.
__device__ __forceinline__ uint64_t TokenKey(float score, uint32_t id) {
  const uint32_t bits = __float_as_uint(score);
  const uint32_t ordered = bits ^ ((bits >> 31) != 0 ? 0xffffffffu : 0x80000000u);
  return static_cast<uint64_t>(ordered) << 32 | ~id;
}
__device__ __forceinline__ float KeyScore(uint64_t key) {
  const uint32_t ordered = static_cast<uint32_t>(key >> 32);
  return __uint_as_float(ordered ^ ((ordered >> 31) != 0 ? 0x80000000u : 0xffffffffu));
}
__device__ __forceinline__ uint32_t KeyId(uint64_t key) { return ~static_cast<uint32_t>(key); }

// exp((value - max) * inverse), each step rounded as kernels/cpu/simd/math.h has it.
__device__ __forceinline__ float LogitWeight(float value, float max, float inverse) {
  const float x = __fmul_rn(__fsub_rn(value, max), inverse);
  const float bounded = fmaxf(x, -90.0f);
  // The nearest integer, and its bits at the bottom, without a conversion.
  const float shifted = __fadd_rn(__fmul_rn(bounded, 1.44269504f), kRounder);
  const float n = __fsub_rn(shifted, kRounder);
  float r = __fmaf_rn(-n, 0.693145751953125f, bounded);
  r = __fmaf_rn(-n, 1.42860677e-6f, r);
  float p = 1.0f / 720;
  p = __fmaf_rn(p, r, 1.0f / 120);
  p = __fmaf_rn(p, r, 1.0f / 24);
  p = __fmaf_rn(p, r, 1.0f / 6);
  p = __fmaf_rn(p, r, 0.5f);
  p = __fmaf_rn(__fmul_rn(r, r), p, r);
  p = __fadd_rn(p, 1.0f);
  p = __uint_as_float(__float_as_uint(p) + (__float_as_uint(shifted) << 23));
  return x < -87.33f ? 0.0f : p;
}
__device__ __forceinline__ float WeightOf(const RowState& s, float value) {
  return LogitWeight(value, s.max, s.inverse);
}

// Minus the distance of a token's surprise from the entropy (typical_p).
__device__ __forceinline__ float TypicalScore(float weight, double total, double entropy) {
  const double p = static_cast<double>(weight) / total;
  return p > 0 ? -static_cast<float>(fabs(-log(p) - entropy)) : -kLargestFloat;
}
// What a token's place is decided by: its logit, or how typical it is.
template <bool kTypical>
__device__ __forceinline__ float ScoreOf(const RowState& s, float value) {
  return kTypical ? TypicalScore(WeightOf(s, value), s.total, s.entropy) : value;
}

// `s.values`; in a team's kernel the compiler then knows that they lie in shared memory.
template <int kTeam>
__device__ __forceinline__ float* ValuesOf(const RowState& s) {
  float* values = s.values;
  if constexpr (kTeam > 1) __builtin_assume(__isShared(values));
  return values;
}

// Calls use(index in the slice, value) for each token of this thread that no filter has removed.
template <int kTeam, typename Use>
__device__ __forceinline__ void ForEachMember(const RowState& s, Use use) {
  const float* values = ValuesOf<kTeam>(s);
  const int count = s.count;
#pragma unroll 4
  for (int i = threadIdx.x; i < count; i += kSampleThreads) {
    const float value = values[i];
    if (value > NegativeInfinity()) use(i, value);
  }
}

// Weighs all tokens that remain; their mass (Tally::a), by block in `slots`, by chunk in
// `chunk_sum`. Sixteen lanes take a chunk as the CPU's vectors do.
template <int kTeam>
__device__ __noinline__ double Weigh(RowState& s) {
  Tally tally;
  const float* values = ValuesOf<kTeam>(s);
  const float max = s.max, inverse = s.inverse;
  const int chunks = s.count / kSampleChunk;
  const int lane = threadIdx.x % 16;
  // All lanes of a warp stay in the loop for the shuffles.
#pragma unroll 4
  for (int base = threadIdx.x / 32 * 2; base < chunks; base += kSampleThreads / 16) {
    const int chunk = base + threadIdx.x / 16 % 2;
    float sum = 0;
    if (chunk < chunks) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        sum =
            __fadd_rn(sum, LogitWeight(values[chunk * kSampleChunk + j * 16 + lane], max, inverse));
      }
    }
#pragma unroll
    for (int offset = 8; offset > 0; offset /= 2) {
      sum = __fadd_rn(sum, __shfl_xor_sync(0xffffffffu, sum, offset));
    }
    if (lane == 0 && chunk < chunks) {
      s.chunk_sum[chunk] = sum;
      tally.a += static_cast<double>(sum);
    }
  }
  return AllReduce<kTeam, kA>(s, tally).a;
}

// Removes the tokens for which `keep` is false.
template <int kTeam, typename Keep>
__device__ __forceinline__ void Restrict(RowState& s, Keep keep) {
  float* values = ValuesOf<kTeam>(s);
  const int count = s.count;
  for (int i = threadIdx.x; i < count; i += kSampleThreads) {
    const float value = values[i];
    if (value > NegativeInfinity() && !keep(i, value)) values[i] = NegativeInfinity();
  }
  __syncthreads();
}

}  // namespace tessera::kernels::cuda
