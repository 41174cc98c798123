// The producers of the wgmma prefill kernel, and its shared memory. Device code for sm_90a.
#pragma once

#include <algorithm>

#include "kernels/cuda/attention/prefill_tile.cuh"

namespace tessera::kernels::cuda::prefill {

inline constexpr int kConsumers = 2;  // warpgroups
inline constexpr int kThreads = 128 * (1 + kConsumers);
inline constexpr int kQueryThreads = 64;
inline constexpr int kSharedLimit = 227 * 1024;
inline constexpr int kMaxRing = 8;
// Items that a block has taken at a time: the one in work and the next. More would only spoil the
// balance at the end.
inline constexpr int kItems = 2;
// With 384 threads the kernel starts at 168 registers a thread: what producers give up is what
// consumers take.
inline constexpr int kProducerRegisters = 40;
inline constexpr int kConsumerRegisters = 232;

// Named barriers.
inline constexpr int kTurnBarrier = 1;  // and the next: a consumer's turn to issue products
inline constexpr int kZeroBarrier = 3;  // and the next: a consumer's zeros are written

struct Control {
  uint64_t full[kMaxRing];
  uint64_t empty[kMaxRing];
  uint64_t item_full[kItems];
  uint64_t item_empty[kItems];
  uint64_t query_full[2];
  uint64_t query_empty[2];
  Item items[kItems];
};

template <int kDim>
struct Shape {
  static constexpr int kKeys = kDim > 128 ? 64 : 128;  // of a tile
  static constexpr int kPages = kKeys / kPageTokens;
  static constexpr int kFullPanels = kDim / 64;
  static constexpr int kTail = kDim % 64;  // columns of the last, narrower panel
  static constexpr int kPanels = kFullPanels + (kTail > 0 ? 1 : 0);
  static constexpr int kTileBytes = kKeys * kDim * 2;
  static constexpr int kQueryBytes = kPrefillTileRows * kDim * 2;
  static constexpr int kQuerySlots = kDim > 128 ? 1 : 2;
  static constexpr int kRing = std::min(
      kMaxRing,
      (kSharedLimit - static_cast<int>(sizeof(Control)) - kQuerySlots * kQueryBytes) / kTileBytes);
  static constexpr int kSharedBytes =
      kQuerySlots * kQueryBytes + kRing * kTileBytes + static_cast<int>(sizeof(Control));
  static_assert(kRing >= 3 && kTail % 16 == 0 && kTail != 48);
};

// Shared memory: query slots, ring, control. A tile of keys or values is [panel][key], so that the
// 8-key groups of its pages follow one another as wgmma wants them.
template <int kDim>
struct Shared {
  std::byte* base;
  __device__ __forceinline__ std::byte* Query(int slot) const {
    return base + slot * Shape<kDim>::kQueryBytes;
  }
  __device__ __forceinline__ std::byte* Tile(int slot) const {
    return base + Shape<kDim>::kQuerySlots * Shape<kDim>::kQueryBytes +
           slot * Shape<kDim>::kTileBytes;
  }
  __device__ __forceinline__ Control& control() const {
    return *reinterpret_cast<Control*>(Tile(Shape<kDim>::kRing));
  }
};

template <int kRing>
struct Cursor {
  int slot = 0;
  uint32_t phase = 0;
  __device__ __forceinline__ void Next() {
    if (++slot == kRing) {
      slot = 0;
      phase ^= 1;
    }
  }
};

// The warp that copies keys and values, in the order that consumers use them: K0, K1, V0, K2, V1,
// ..., with the last values of an item behind the first keys of the next. Pages of a tile that no
// row sees are not touched: a page that is seen takes their place.
template <int kDim>
struct TileLoader {
  using S = Shape<kDim>;
  const KernelArgs& args;
  const Shared<kDim> shared;
  const int lane = LaneId();
  const int panel = lane / S::kPages;  // that this lane copies
  const int page_of_tile = lane % S::kPages;
  const uint32_t width = panel < S::kFullPanels ? 128 : 2 * S::kTail;
  const std::byte* values = nullptr;  // to be copied after the next keys
  Cursor<S::kRing> ring = {};

  __device__ __forceinline__ void Load(const std::byte* source) {
    Control& control = shared.control();
    BarrierWait(&control.empty[ring.slot], ring.phase ^ 1);
    if (lane == 0) BarrierExpect(&control.full[ring.slot], S::kTileBytes);
    __syncwarp();
    if (lane < S::kPanels * S::kPages) {
      const uint32_t to = panel * S::kKeys * 128 + page_of_tile * kPageTokens * width;
      BulkLoad(shared.Tile(ring.slot) + to, source, kPageTokens * width, &control.full[ring.slot]);
    }
    ring.Next();
  }

  __device__ __forceinline__ void LoadItem(const Item& item) {
    const std::byte* from =
        args.call.arena + HeadOffset(item.kv_head, kDim, 2) + panel * kPageTokens * 128;
    const int first_page = item.first_key / kPageTokens;
    const int last_page = item.last_key / kPageTokens;
    const auto ids_from = [&](int base) {
      return item.pages[min(max(base + lane, first_page), last_page)].value;
    };
    int base = first_page & ~31;  // page of lane 0's id
    uint32_t ids = ids_from(base);
    uint32_t later_ids = ids_from(base + 32);
    for (int tile = item.first_key / S::kKeys; tile <= item.last_key / S::kKeys; ++tile) {
      if (tile * S::kPages == base + 32) {
        base += 32;
        ids = later_ids;
        later_ids = ids_from(base + 32);
      }
      const int page = min(max(tile * S::kPages + page_of_tile, first_page), last_page);
      const uint32_t id = __shfl_sync(0xffffffffu, ids, page - base);
      const std::byte* keys = from + uint64_t{id} * kPageUnitBytes;
      Load(keys);
      if (values != nullptr) Load(values);
      values = keys + PlaneBytes(kDim, 2);
    }
  }
};

// First warp of the producers.
template <int kDim>
__device__ __forceinline__ void ProduceTiles(const KernelArgs& args, const Shared<kDim>& shared) {
  Control& control = shared.control();
  TileLoader<kDim> loader{args, shared};
  Cursor<kItems> cursor;
  while (true) {
    BarrierWait(&control.item_full[cursor.slot], cursor.phase);
    const Item item = control.items[cursor.slot];
    if (item.pairs == 0) break;
    loader.LoadItem(item);
    cursor.Next();
  }
  if (loader.values != nullptr) loader.Load(loader.values);
}

// Second warp: takes items. An item's slot is free when consumers say so: they have seen its keys
// and queries by then, so the other producers have read the slot as well.
template <int kDim>
__device__ __forceinline__ void ProduceItems(const KernelArgs& args, const Shared<kDim>& shared) {
  auto* header = reinterpret_cast<PrefillPlanHeader*>(args.call.plan);
  Control& control = shared.control();
  Cursor<kItems> cursor;
  uint32_t index = blockIdx.x;
  while (true) {
    BarrierWait(&control.item_empty[cursor.slot], cursor.phase ^ 1);
    // Looked at in the next round: nobody waits for the counter.
    const uint32_t taken = LaneId() == 0 ? atomicAdd(&header->next, 1u) : 0;
    const Item item = FindItem(args, index);
    if (LaneId() == 0) {
      control.items[cursor.slot] = item;
      BarrierArrive(&control.item_full[cursor.slot]);
    }
    if (item.pairs == 0) break;
    cursor.Next();
    index = gridDim.x + __shfl_sync(0xffffffffu, taken, 0);
  }
  LetNextStart();
  __threadfence();  // this block's last addition to `next` comes before its addition to `done`
  if (LaneId() == 0 && atomicAdd(&header->done, 1u) == gridDim.x - 1) {
    header->next = 0;
    header->done = 0;
  }
}

// The other two warps.
template <int kDim>
__device__ __forceinline__ void ProduceQueries(const KernelArgs& args, const Shared<kDim>& shared,
                                               int thread) {
  Control& control = shared.control();
  Cursor<kItems> cursor;
  Cursor<Shape<kDim>::kQuerySlots> query;
  while (true) {
    BarrierWait(&control.item_full[cursor.slot], cursor.phase);
    const Item item = control.items[cursor.slot];
    BarrierWait(&control.query_empty[query.slot], query.phase ^ 1);
    LoadQueries<kDim, kQueryThreads>(args, item, thread, shared.Query(query.slot));
    CopyAsyncCommit();
    CopyAsyncWait<0>();
    FenceAsyncShared();
    BarrierArrive(&control.query_full[query.slot]);
    if (item.pairs == 0) break;
    cursor.Next();
    query.Next();
  }
}

}  // namespace tessera::kernels::cuda::prefill
