// The blocks that sample one row together: a cluster whose blocks each hold a slice of the row in
// shared memory, or a single block. Device code.
#pragma once

#include <cstdint>

#include "kernels/cuda/ops/sample_packed.h"
#include "kernels/cuda/ptx.cuh"

namespace tessera::kernels::cuda {

inline constexpr int kSampleThreads = 512;
inline constexpr int kSampleWarps = kSampleThreads / 32;
inline constexpr int kTeamBlocks = 8;    // on compute capability 9
inline constexpr int kSampleChunk = 64;  // tokens whose weights are summed in float32
inline constexpr int kBins = 2048;
inline constexpr int kListSize = 1024;  // candidates that one block sorts
inline constexpr uint64_t kNoKey = ~uint64_t{0};

// Reduced over a team by sums, maxima and minima, the fields that a reduction names.
struct Tally {
  double a = 0, b = 0;
  uint64_t high = 0;
  uint64_t low = kNoKey;
  uint64_t floor = kNoKey;
  uint32_t m = 0, n = 0;
};
enum TallyField : int { kA = 1, kB = 2, kHigh = 4, kLow = 8, kFloor = 16, kM = 32, kN = 64 };

// What the blocks of a team share: equal in all threads unless said otherwise.
struct RowState {
  PackedSampleRow row;
  Tally warp_tally[kSampleWarps];
  Tally slots[2][kTeamBlocks];  // by rank, of the last two reductions
  union {
    uint32_t hist[kBins];
    uint64_t order[kListSize];
  };
  uint32_t merged[kBins / kTeamBlocks];  // of this block's share of the bins
  uint64_t keys[kListSize];     // candidates of this block; in block 0 then those of the team
  uint32_t share[kTeamBlocks];  // what the blocks' shares of the bins hold
  float weights[kListSize];
  float order_weights[kListSize];
  double scan[kSampleWarps];
  double cross_mass;
  int cross;
  int list_count;  // of this block's own keys; past kListSize none is kept
  int pending_found;

  int rank;
  int turn;        // which slots the next reduction takes
  int first;       // id of the slice's first token
  int count;       // tokens of the slice, a multiple of kSampleChunk; -infinity past the vocabulary
  int per_block;   // tokens of a whole slice
  float max;       // of the values that remain
  float inverse;   // 1 / temperature
  double entropy;  // for typical_p
  double total;    // mass that the entropy was taken of
  float* values;   // [count] logits of the slice, changed and filtered in place
  float* chunk_sum;     // [count / kSampleChunk]
  const float* logits;  // the row in global memory
  const std::byte* packed;
};

template <int kTeam>
__device__ __forceinline__ int TeamRank() {
#if __CUDA_ARCH__ >= 900
  if constexpr (kTeam > 1) {
    uint32_t rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return static_cast<int>(rank);
  }
#endif
  return 0;
}

template <int kTeam>
__device__ __forceinline__ void TeamSync() {
#if __CUDA_ARCH__ >= 900
  if constexpr (kTeam > 1) {
    ArriveCluster();
    WaitCluster();
    return;
  }
#endif
  __syncthreads();
}

// The same place in the shared memory of the team's block `rank`.
template <int kTeam, typename T>
__device__ __forceinline__ T* Remote(T* local, int rank) {
#if __CUDA_ARCH__ >= 900
  if constexpr (kTeam > 1) {
    uint64_t address;
    asm("mapa.u64 %0, %1, %2;" : "=l"(address) : "l"(local), "r"(rank));
    return reinterpret_cast<T*>(address);
  }
#endif
  return local;
}

// The halves of a team's synchronisation, for work in between that touches no other block.
template <int kTeam>
__device__ __forceinline__ void TeamArrive() {
#if __CUDA_ARCH__ >= 900
  if constexpr (kTeam > 1) ArriveCluster();
#endif
}
template <int kTeam>
__device__ __forceinline__ void TeamWait() {
#if __CUDA_ARCH__ >= 900
  if constexpr (kTeam > 1) WaitCluster();
#endif
}

__device__ __forceinline__ double WarpSumDouble(double value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  }
  return value;
}
__device__ __forceinline__ uint64_t WarpMaxKey(uint64_t key) {
  const uint32_t high = __reduce_max_sync(0xffffffffu, static_cast<uint32_t>(key >> 32));
  const uint32_t low = __reduce_max_sync(
      0xffffffffu, static_cast<uint32_t>(key >> 32) == high ? static_cast<uint32_t>(key) : 0u);
  return static_cast<uint64_t>(high) << 32 | low;
}

template <int kFields>
__device__ __forceinline__ void WarpTally(Tally& t) {
  if constexpr ((kFields & kA) != 0) t.a = WarpSumDouble(t.a);
  if constexpr ((kFields & kB) != 0) t.b = WarpSumDouble(t.b);
  if constexpr ((kFields & kHigh) != 0) t.high = WarpMaxKey(t.high);
  if constexpr ((kFields & kLow) != 0) t.low = ~WarpMaxKey(~t.low);
  if constexpr ((kFields & kFloor) != 0) t.floor = ~WarpMaxKey(~t.floor);
  if constexpr ((kFields & kM) != 0) t.m = __reduce_add_sync(0xffffffffu, t.m);
  if constexpr ((kFields & kN) != 0) t.n = __reduce_add_sync(0xffffffffu, t.n);
}
template <int kFields>
__device__ __forceinline__ void CopyFields(const Tally& from, Tally& to) {
  if constexpr ((kFields & kA) != 0) to.a = from.a;
  if constexpr ((kFields & kB) != 0) to.b = from.b;
  if constexpr ((kFields & kHigh) != 0) to.high = from.high;
  if constexpr ((kFields & kLow) != 0) to.low = from.low;
  if constexpr ((kFields & kFloor) != 0) to.floor = from.floor;
  if constexpr ((kFields & kM) != 0) to.m = from.m;
  if constexpr ((kFields & kN) != 0) to.n = from.n;
}
template <int kFields>
__device__ __forceinline__ void AddFields(const Tally& from, Tally& to) {
  if constexpr ((kFields & kA) != 0) to.a += from.a;
  if constexpr ((kFields & kB) != 0) to.b += from.b;
  if constexpr ((kFields & kHigh) != 0) to.high = max(to.high, from.high);
  if constexpr ((kFields & kLow) != 0) to.low = min(to.low, from.low);
  if constexpr ((kFields & kFloor) != 0) to.floor = min(to.floor, from.floor);
  if constexpr ((kFields & kM) != 0) to.m += from.m;
  if constexpr ((kFields & kN) != 0) to.n += from.n;
}

// The reduction of kFields over all threads of the team, in every one of them, in a fixed order.
// Orders what came before it in any block before what follows in any other. `s.slots[s.turn ^ 1]`
// then holds each block's part until the next but one.
template <int kTeam, int kFields>
__device__ __noinline__ Tally AllReduce(RowState& s, Tally tally) {
  const int turn = s.turn;
  WarpTally<kFields>(tally);
  if (LaneId() == 0) CopyFields<kFields>(tally, s.warp_tally[threadIdx.x / 32]);
  __syncthreads();
  if (threadIdx.x < 32) {
    tally = Tally{};
    if (LaneId() < kSampleWarps) CopyFields<kFields>(s.warp_tally[LaneId()], tally);
    WarpTally<kFields>(tally);
    if (LaneId() < kTeam) {
      CopyFields<kFields>(tally, *Remote<kTeam>(&s.slots[turn][s.rank], LaneId()));
    }
    if (LaneId() == 0) s.turn = turn ^ 1;
  }
  TeamSync<kTeam>();
  Tally all;
#pragma unroll
  for (int r = 0; r < kTeam; ++r) AddFields<kFields>(s.slots[turn][r], all);
  return all;
}

}  // namespace tessera::kernels::cuda
