// What one block does with a sorted list of at most kListSize candidates. Every function is called
// by all threads of the block and gives all of them the result. Device code.
#pragma once

#include <cstdint>

#include "kernels/cuda/ops/sample_math.cuh"

namespace tessera::kernels::cuda {

// One step of a bitonic sort for the key at place `at`, whose partner is `step` away.
__device__ __forceinline__ uint64_t Exchanged(uint64_t mine, uint64_t other, int at, int step,
                                              int run) {
  const bool falling = (at & run) == 0;
  const bool first = (at & step) == 0;
  return (first == falling) == (mine > other) ? mine : other;
}

// Sorts up to a key a thread; only steps between warps pass through memory.
__device__ __forceinline__ void SortInRegisters(uint64_t* keys, int size) {
  const int at = static_cast<int>(threadIdx.x);
  uint64_t key = at < size ? keys[at] : 0;
  for (int run = 2; run <= size; run *= 2) {
    for (int step = run / 2; step >= 32; step /= 2) {
      __syncthreads();
      if (at < size) keys[at] = key;
      __syncthreads();
      if (at < size) key = Exchanged(key, keys[at ^ step], at, step, run);
    }
    for (int step = min(run / 2, 16); step > 0; step /= 2) {
      const uint64_t other = __shfl_xor_sync(0xffffffffu, key, step);
      key = Exchanged(key, other, at, step, run);
    }
  }
  __syncthreads();
  if (at < size) keys[at] = key;
  __syncthreads();
}

// Sorts keys[0 .. count) by falling key; writes zeros up to the next power of two.
__device__ __noinline__ inline void SortKeys(uint64_t* keys, int count) {
  int size = 2;
  while (size < count) size *= 2;
  for (int i = count + threadIdx.x; i < size; i += kSampleThreads) keys[i] = 0;
  __syncthreads();
  if (size <= kSampleThreads) return SortInRegisters(keys, size);
  for (int run = 2; run <= size; run *= 2) {
    for (int step = run / 2; step > 0; step /= 2) {
      for (int pair = threadIdx.x; pair < size / 2; pair += kSampleThreads) {
        const int low = pair / step * 2 * step + pair % step;
        const int high = low + step;
        const uint64_t a = keys[low], b = keys[high];
        const bool falling = (low & run) == 0;
        if ((a < b) == falling) {
          keys[low] = b;
          keys[high] = a;
        }
      }
      __syncthreads();
    }
  }
}

__device__ __forceinline__ double BlockSumOf(RowState& s, double value) {
  value = WarpSumDouble(value);
  if (LaneId() == 0) s.scan[threadIdx.x / 32] = value;
  __syncthreads();
  double sum = 0;
#pragma unroll
  for (int w = 0; w < kSampleWarps; ++w) sum += s.scan[w];
  __syncthreads();
  return sum;
}

// The first place where `base` plus the weights up to it reaches `target` (or exceeds it, when
// `strict`), and in `mass` what they sum to there; `count` and all of the mass if there is none.
__device__ __noinline__ inline int FirstReaching(RowState& s, const float* weights, int count,
                                                 double base, double target, bool strict,
                                                 double* mass) {
  static_assert(kListSize == 2 * kSampleThreads);
  const int at = 2 * static_cast<int>(threadIdx.x);
  const double first = at < count ? static_cast<double>(weights[at]) : 0.0;
  const double second = at + 1 < count ? static_cast<double>(weights[at + 1]) : 0.0;
  double scan = first + second;
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const double before = __shfl_up_sync(0xffffffffu, scan, offset);
    if (LaneId() >= offset) scan += before;
  }
  if (LaneId() == 31) s.scan[threadIdx.x / 32] = scan;
  if (threadIdx.x == 0) s.cross = count;
  __syncthreads();
  double before = base;
  for (int w = 0; w < static_cast<int>(threadIdx.x) / 32; ++w) before += s.scan[w];
  const double at_second = before + scan;
  const double at_first = at_second - second;
  // Rounding must not stop at one that weighs nothing: it may have been removed.
  const auto reaches = [&](double weight, double sum) {
    return weight > 0 && (strict ? sum > target : sum >= target);
  };
  const int mine = reaches(first, at_first) ? at : reaches(second, at_second) ? at + 1 : count;
  if (mine < count) atomicMin(&s.cross, mine);
  if (threadIdx.x == kSampleThreads - 1) s.cross_mass = at_second;
  __syncthreads();
  const int cross = s.cross;
  if (cross < count && mine == cross) s.cross_mass = cross == at ? at_first : at_second;
  __syncthreads();
  *mass = s.cross_mass;
  __syncthreads();
  return cross;
}

__device__ __forceinline__ void WeighList(RowState& s, int count) {
  for (int i = threadIdx.x; i < count; i += kSampleThreads) {
    s.weights[i] = s.keys[i] == 0 ? 0.0f : WeightOf(s, KeyScore(s.keys[i]));
  }
  __syncthreads();
}

// Removes the candidates that typical_p does not keep: key 0, weight 0. The others stay in place.
__device__ __noinline__ inline void KeepTypicalOfList(RowState& s, int count) {
  double part = 0;
  for (int i = threadIdx.x; i < count; i += kSampleThreads)
    part += static_cast<double>(s.weights[i]);
  const double total = BlockSumOf(s, part);
  part = 0;
  for (int i = threadIdx.x; i < count; i += kSampleThreads) {
    const double p = static_cast<double>(s.weights[i]) / total;
    if (p > 0) part -= p * log(p);
  }
  const double entropy = BlockSumOf(s, part);
  for (int i = threadIdx.x; i < count; i += kSampleThreads) {
    s.order[i] = TokenKey(TypicalScore(s.weights[i], total, entropy), static_cast<uint32_t>(i));
  }
  __syncthreads();
  SortKeys(s.order, count);
  for (int i = threadIdx.x; i < count; i += kSampleThreads) {
    s.order_weights[i] = s.weights[KeyId(s.order[i])];
  }
  __syncthreads();
  double mass;
  const double target = static_cast<double>(s.row.typical_p) * total;
  const int last = FirstReaching(s, s.order_weights, count, 0, target, false, &mass);
  for (int i = last + 1 + threadIdx.x; i < count; i += kSampleThreads) {
    const uint32_t dropped = KeyId(s.order[i]);
    s.keys[dropped] = 0;
    s.weights[dropped] = 0;
  }
  __syncthreads();
}

// The candidate at which the weights pass uniform * total; the first that is left if rounding has
// none.
__device__ __forceinline__ uint32_t DrawFromList(RowState& s, int count, double total) {
  double mass;
  int at = FirstReaching(s, s.weights, count, 0, s.row.uniform * total, true, &mass);
  if (at == count) {
    for (at = 0; at + 1 < count && s.keys[at] == 0;) ++at;
  }
  return KeyId(s.keys[at]);
}

// True when the best `wanted` of a sorted list are the only ones no worse than the last of them and
// no two are of one chunk of ids: then the CPU's first selection has them already, in order of ids.
// The list holds all tokens that tie with the last of them.
__device__ __noinline__ inline bool OnePerChunk(RowState& s, int count, int wanted) {
  uint32_t* seen = s.hist;  // a bit a chunk
  for (int i = threadIdx.x; i < kBins; i += kSampleThreads) seen[i] = 0;
  __syncthreads();
  bool crowded = count > wanted && s.keys[wanted] >> 32 == s.keys[wanted - 1] >> 32;
  for (int i = threadIdx.x; i < wanted; i += kSampleThreads) {
    const uint32_t chunk = KeyId(s.keys[i]) / kSampleChunk;
    const uint32_t bit = 1u << (chunk % 32);
    crowded = crowded || (atomicOr(&seen[chunk / 32], bit) & bit) != 0;
  }
  return __syncthreads_or(crowded ? 1 : 0) == 0;
}

// The best `count` candidates, sorted, to a token: typical_p, top_p, draw.
__device__ __noinline__ inline uint32_t FinishList(RowState& s, int count, bool by_id) {
  WeighList(s, count);
  if (s.row.typical_p < 1.0f) KeepTypicalOfList(s, count);
  double part = 0;
  for (int i = threadIdx.x; i < count; i += kSampleThreads)
    part += static_cast<double>(s.weights[i]);
  double total = BlockSumOf(s, part);
  if (s.row.top_p < 1.0f) {
    const double target = static_cast<double>(s.row.top_p) * total;
    count = min(count, FirstReaching(s, s.weights, count, 0, target, false, &total) + 1);
  } else if (by_id) {
    // Halves of the keys change places: falling keys are then rising ids.
    for (int i = threadIdx.x; i < count; i += kSampleThreads) {
      s.keys[i] = s.keys[i] << 32 | s.keys[i] >> 32;
    }
    __syncthreads();
    SortKeys(s.keys, count);
    for (int i = threadIdx.x; i < count; i += kSampleThreads) {
      s.keys[i] = s.keys[i] << 32 | s.keys[i] >> 32;
    }
    __syncthreads();
    WeighList(s, count);
  }
  return DrawFromList(s, count, total);
}

// The draw from the nucleus of a row that weighs `total`, when a sorted list of its best tokens
// holds it; `complete`: the list is the whole row. Gives the token + 1, or 0 where the nucleus is
// larger.
__device__ __noinline__ inline uint32_t NucleusOfList(RowState& s, int count, double total,
                                                      bool complete) {
  WeighList(s, count);
  double mass;
  const double target = static_cast<double>(s.row.top_p) * total;
  const int last = FirstReaching(s, s.weights, count, 0, target, false, &mass);
  if (last == count && !complete) return 0;
  return DrawFromList(s, min(last + 1, count), mass) + 1;
}

}  // namespace tessera::kernels::cuda
