// How the consumer warpgroups of a pair of blocks, a cluster, add their sums of the same tiles:
// each owns as many of the tiles, is sent the others' sums of these, straight into its shared
// memory, and adds them in a fixed order. A tile is 8 columns of a warpgroup product, four words a
// thread.
#pragma once

#include <cstdint>

#include "kernels/cuda/ptx.cuh"

namespace tessera::kernels::cuda {

template <int kTiles_, int kGroups_ = 2>
struct PairTiles {
  static constexpr int kTiles = kTiles_;
  static constexpr int kGroups = kGroups_;  // consumer warpgroups of a block
  static constexpr int kOwners = 2 * kGroups;
  static constexpr int kSenders = kOwners - 1;
  static constexpr int kOwnTiles = (kTiles + kOwners - 1) / kOwners;  // the last ones may have less
  static __host__ __device__ constexpr int TilesOf(int owner) {
    const int left = kTiles - owner * kOwnTiles;
    return left < 0 ? 0 : left < kOwnTiles ? left : kOwnTiles;
  }
};

// In a block's shared memory: what is sent to its warpgroups.
template <typename Tiles>
struct PairArrivals {
  float4 words[Tiles::kGroups][Tiles::kSenders][Tiles::kOwnTiles][128];
  uint64_t full[Tiles::kGroups];
};

// This warpgroup, of the pair's.
template <typename Tiles>
__device__ __forceinline__ int PairOwner(int group) {
  return static_cast<int>(blockIdx.x & 1) * Tiles::kGroups + group;
}

// One thread, before the block's first barrier. `warps` of each warpgroup send.
template <typename Tiles>
__device__ __forceinline__ void InitPair(PairArrivals<Tiles>& arrivals, int warps) {
  for (int i = 0; i < Tiles::kGroups; ++i) BarrierInit(&arrivals.full[i], 1);
  BarrierInitFence();
  for (int i = 0; i < Tiles::kGroups; ++i) {
    BarrierExpect(&arrivals.full[i], Tiles::kSenders * Tiles::TilesOf(PairOwner<Tiles>(i)) * warps *
                                         (32 * sizeof(float4)));
  }
}

// `sums`: four words of each tile. `own` is what the pair has of this warpgroup's tiles. Behind
// WaitCluster.
template <typename Tiles>
__device__ __forceinline__ void ExchangePair(PairArrivals<Tiles>& arrivals, int group,
                                             const float* sums,
                                             float (&own)[4 * Tiles::kOwnTiles]) {
  const int owner = PairOwner<Tiles>(group), thread = threadIdx.x & 127;
#pragma unroll
  for (int to = 0; to < Tiles::kOwners; ++to) {
    const int sender = owner - (owner > to ? 1 : 0);
    const int block = to / Tiles::kGroups, to_group = to % Tiles::kGroups;
    const uint32_t barrier = PeerAddress(&arrivals.full[to_group], block);
    const uint32_t at = PeerAddress(&arrivals.words[to_group][sender][0][thread], block);
#pragma unroll
    for (int j = 0; j < Tiles::kOwnTiles; ++j) {
      const int tile = to * Tiles::kOwnTiles + j;
      if (tile >= Tiles::kTiles) continue;
      if (to != owner) {
        SendToPeer(at + j * (128 * 16), sums + 4 * tile, barrier);
        continue;
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) own[4 * j + i] = sums[4 * tile + i];
    }
  }
  ClusterBarrierWait(&arrivals.full[group], 0);
  const int tiles = Tiles::TilesOf(owner);
  float sum[4 * Tiles::kOwnTiles] = {};
#pragma unroll
  for (int from = 0; from < Tiles::kOwners; ++from) {
    const int sender = from - (from > owner ? 1 : 0);
#pragma unroll
    for (int j = 0; j < Tiles::kOwnTiles; ++j) {
      if (j >= tiles) continue;
      const float4 v = from == owner
                           ? make_float4(own[4 * j], own[4 * j + 1], own[4 * j + 2], own[4 * j + 3])
                           : arrivals.words[group][sender][j][thread];
      sum[4 * j] += v.x;
      sum[4 * j + 1] += v.y;
      sum[4 * j + 2] += v.z;
      sum[4 * j + 3] += v.w;
    }
  }
#pragma unroll
  for (int i = 0; i < 4 * Tiles::kOwnTiles; ++i) own[i] = sum[i];
}

}  // namespace tessera::kernels::cuda
