// Reading a slice of a row, changing its logits as a row asks, and drawing inside a slice. Device
// code; every function but DrawInSlice is called by all threads of a block.
#pragma once

#include <cstdint>

#include "kernels/cuda/ops/sample_math.cuh"

namespace tessera::kernels::cuda {

inline constexpr int kNoToken = -1;

template <typename T>
__device__ __forceinline__ const T* ListAt(const RowState& s, PackedList list) {
  return reinterpret_cast<const T*>(s.packed + uint64_t{list.at} * 4);
}

// The slice into `s.values`, cleaned, with -infinity past the vocabulary. Greedy rows that change
// and report nothing need no copy. Gives this thread's best value, and its key where it has one.
__device__ __forceinline__ float LoadLogits(RowState& s, int32_t vocab, uint64_t* key) {
  const bool copy =
      s.row.report != 0 || s.row.changed != 0 || !(s.row.temperature < kGreedyTemperature);
  float best = NegativeInfinity();
  int best_at = kNoToken;
  const int count = s.count;
  const int inside = vocab - s.first;
  const float4* from = reinterpret_cast<const float4*>(s.logits + s.first);
  float4* to = reinterpret_cast<float4*>(s.values);
#pragma unroll 4
  for (int i = threadIdx.x; i < count / 4; i += kSampleThreads) {
    const float4 raw = 4 * i < inside ? from[i] : make_float4(0, 0, 0, 0);
    float v[4] = {raw.x, raw.y, raw.z, raw.w};
    const bool whole = 4 * i + 3 < inside;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      v[j] = whole || 4 * i + j < inside ? CleanLogit(v[j]) : NegativeInfinity();
      if (v[j] > best || best_at == kNoToken) {
        best = v[j];
        best_at = 4 * i + j;
      }
    }
    if (copy) to[i] = make_float4(v[0], v[1], v[2], v[3]);
  }
  __syncthreads();
  if (best_at != kNoToken) *key = TokenKey(best, static_cast<uint32_t>(s.first + best_at));
  return best;
}

// Calls use(index in the slice, entry) for the entries of a list whose id lies in the slice.
template <typename T, typename Id, typename Use>
__device__ __forceinline__ void ForEachListed(const RowState& s, PackedList list, Id id, Use use) {
  const T* entries = ListAt<T>(s, list);
  for (uint32_t i = threadIdx.x; i < list.count; i += kSampleThreads) {
    const T entry = entries[i];
    const uint32_t at = id(entry) - static_cast<uint32_t>(s.first);
    if (at < static_cast<uint32_t>(s.count)) use(static_cast<int>(at), entry);
  }
}

__device__ __forceinline__ float Penalize(const PackedSampleRow& row, float logit,
                                          uint32_t in_prompt, uint32_t in_output) {
  if (in_prompt + in_output > 0 && row.repetition_penalty != 1.0f) {
    logit = logit > 0 ? __fdiv_rn(logit, row.repetition_penalty)
                      : __fmul_rn(logit, row.repetition_penalty);
  }
  if (in_output > 0) {
    const float frequency = __fmul_rn(row.frequency_penalty, static_cast<float>(in_output));
    logit = __fsub_rn(logit, __fadd_rn(row.presence_penalty, frequency));
  }
  return logit;
}

// `pending` is a token that occurred once more than the counts say, or negative.
__device__ __forceinline__ void ApplyPenalties(RowState& s, int32_t pending) {
  const uint32_t pending_id = static_cast<uint32_t>(pending);
  ForEachListed<TokenCount>(
      s, s.row.counts, [](const TokenCount& c) { return c.id; },
      [&](int at, const TokenCount& c) {
        const bool more = pending >= 0 && c.id == pending_id;
        if (more) s.pending_found = 1;
        s.values[at] = Penalize(s.row, s.values[at], c.in_prompt, c.in_output + (more ? 1 : 0));
      });
  __syncthreads();
  const uint32_t at = pending_id - static_cast<uint32_t>(s.first);
  if (threadIdx.x == 0 && pending >= 0 && s.pending_found == 0 &&
      at < static_cast<uint32_t>(s.count)) {
    s.values[at] = Penalize(s.row, s.values[at], 0, 1);
  }
}

// One thread: entries [begin, end) of a report become the lowest ids whose logit is -infinity.
__device__ __noinline__ inline void ReportImpossible(const RowState& s, int32_t vocab,
                                                     TokenLogprob* top, int begin, int end) {
  for (int id = 0; id < vocab && begin < end; ++id) {
    if (CleanLogit(s.logits[id]) != NegativeInfinity()) continue;
    top[begin++] = {static_cast<TokenId>(id), NegativeInfinity()};
  }
}

// Bias, allowed and banned ids, penalties.
__device__ __noinline__ inline void ChangeLogits(RowState& s, const int32_t* last_token) {
  ForEachListed<TokenBias>(
      s, s.row.bias, [](const TokenBias& b) { return b.id; },
      [&](int at, const TokenBias& b) { s.values[at] = __fadd_rn(s.values[at], b.bias); });
  __syncthreads();
  if (s.row.allowed_mask.count > 0) {
    const uint32_t* mask = ListAt<uint32_t>(s, s.row.allowed_mask) + s.first / 32;
    const int words = static_cast<int>(s.row.allowed_mask.count) - s.first / 32;
    for (int i = threadIdx.x; i < s.count; i += kSampleThreads) {
      if (i / 32 >= words || (mask[i / 32] >> (i % 32) & 1) == 0) s.values[i] = NegativeInfinity();
    }
    __syncthreads();
  }
  ForEachListed<TokenId>(
      s, s.row.banned, [](TokenId id) { return id; },
      [&](int at, TokenId) { s.values[at] = NegativeInfinity(); });
  __syncthreads();
  if (s.row.has_penalties != 0) {
    const bool pending = last_token != nullptr && s.row.pending >= 0;
    ApplyPenalties(s, pending ? last_token[s.row.pending] : -1);
    __syncthreads();
  }
  for (int i = threadIdx.x; i < s.count; i += kSampleThreads) s.values[i] = CleanLogit(s.values[i]);
  __syncthreads();
}

// One warp, two tokens a lane: the first of a chunk at which the sum, from `before`, exceeds the
// target; else the last that weighs anything.
__device__ __forceinline__ int DrawInChunk(const RowState& s, int chunk, double before,
                                           double target) {
  const int at = chunk * kSampleChunk + 2 * LaneId();
  const float first = WeightOf(s, s.values[at]), second = WeightOf(s, s.values[at + 1]);
  double scan = static_cast<double>(first) + static_cast<double>(second);
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const double lower = __shfl_up_sync(0xffffffffu, scan, offset);
    if (LaneId() >= offset) scan += lower;
  }
  const double at_second = before + scan;
  const double at_first = at_second - static_cast<double>(second);
  const unsigned crossed = __ballot_sync(0xffffffffu, at_second > target && first + second > 0);
  const unsigned weighty = __ballot_sync(0xffffffffu, first + second > 0);
  const int lane = crossed != 0 ? __ffs(static_cast<int>(crossed)) - 1 : 31 - __clz(weighty);
  const bool take_first = first > 0 && (second == 0 || (crossed != 0 && at_first > target));
  return __shfl_sync(0xffffffffu, take_first ? at : at + 1, lane);
}

// One warp: the token of this slice at which the mass, from `before`, exceeds the target. The slice
// has mass. Gives the index in the slice, in every lane.
__device__ __forceinline__ int DrawInSlice(const RowState& s, double before, double target) {
  const int chunks = s.count / kSampleChunk;
  const int run = (chunks + 31) / 32;
  const int begin = min(chunks, run * LaneId());
  const int end = min(chunks, begin + run);
  double scan = 0;
  for (int c = begin; c < end; ++c) scan += static_cast<double>(s.chunk_sum[c]);
  const double own = scan;
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const double lower = __shfl_up_sync(0xffffffffu, scan, offset);
    if (LaneId() >= offset) scan += lower;
  }
  const unsigned crossed = __ballot_sync(0xffffffffu, before + scan > target && own > 0);
  const unsigned weighty = __ballot_sync(0xffffffffu, own > 0);
  const int lane = crossed != 0 ? __ffs(static_cast<int>(crossed)) - 1 : 31 - __clz(weighty);
  double sum = before + scan - own, sum_before = sum;
  int last = begin;
  for (int c = begin; c < end && sum <= target; ++c) {
    const double mass = static_cast<double>(s.chunk_sum[c]);
    if (mass == 0) continue;
    last = c;
    sum_before = sum;
    sum += mass;
  }
  const int chunk = __shfl_sync(0xffffffffu, last, lane);
  return DrawInChunk(s, chunk, __shfl_sync(0xffffffffu, sum_before, lane), target);
}

}  // namespace tessera::kernels::cuda
