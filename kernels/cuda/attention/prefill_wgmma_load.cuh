// The producers and converters of the wgmma prefill kernel, and its shared memory. Device code for
// sm_90a.
#pragma once

#include <algorithm>
#include <type_traits>

#include "kernels/cuda/attention/prefill_tile.cuh"

namespace tessera::kernels::cuda::prefill {

inline constexpr int kConsumers = 2;  // warpgroups
inline constexpr int kThreads = 128 * (1 + kConsumers);
inline constexpr int kConverterThreads = 64;
inline constexpr int kSharedLimit = 227 * 1024;
inline constexpr int kMaxRing = 8;
// Items that a block has taken at a time: the one in work and the next. More would only spoil the
// balance at the end.
inline constexpr int kItems = 2;

// Named barriers.
inline constexpr int kTurnBarrier = 1;  // and the next: a consumer's turn to issue products
inline constexpr int kZeroBarrier = 3;  // and the next: a consumer's zeros are written

// The barriers of a ring's slots.
struct Ring {
  uint64_t full[kMaxRing];
  uint64_t empty[kMaxRing];
};

struct Control {
  Ring tiles;
  Ring codes;
  uint64_t item_full[kItems];
  uint64_t item_empty[kItems];
  uint64_t query_full[2];
  uint64_t query_empty[2];
  Item items[kItems];
};

// A kernel for heads of kDim_ and pages of bf16 or e4m3. Pages of e4m3 land in a ring of codes, of
// which two warps make tiles of f16, which is exact.
template <int kDim_, bool kE4m3_>
struct Shape {
  static constexpr int kDim = kDim_;
  static constexpr bool kE4m3 = kE4m3_;
  using Product = std::conditional_t<kE4m3, __half, __nv_bfloat16>;  // that the tensor cores read
  // With 384 threads the kernel starts at 168 registers a thread: what producers give up is what
  // consumers take.
  static constexpr int kProducerRegisters = kE4m3 ? 56 : 40;
  static constexpr int kConsumerRegisters = kE4m3 ? 224 : 232;
  static constexpr int kQueryThreads = kE4m3 ? 32 : 64;

  static constexpr int kKeys = kDim > 128 ? 64 : 128;  // of a tile
  static constexpr int kPages = kKeys / kPageTokens;
  static constexpr int kFullPanels = kDim / 64;
  static constexpr int kTail = kDim % 64;  // columns of the last, narrower panel
  static constexpr int kPanels = kFullPanels + (kTail > 0 ? 1 : 0);
  static constexpr int kTileBytes = kKeys * kDim * 2;
  static constexpr int kQueryBytes = kPrefillTileRows * kDim * 2;
  static constexpr int kQuerySlots = kDim > 128 ? 1 : 2;
  // Of a tile as pages have it. Converting takes a fraction of the products' time, so that few
  // slots of codes do: a copy's latency is what they hide.
  static constexpr int kCodeBytes = kKeys * kDim;
  static constexpr int kCodeRing = !kE4m3 ? 0 : kDim > 96 ? 2 : 4;
  static constexpr int kOtherBytes =
      kQuerySlots * kQueryBytes + kCodeRing * kCodeBytes + static_cast<int>(sizeof(Control));
  static constexpr int kRing = std::min(kMaxRing, (kSharedLimit - kOtherBytes) / kTileBytes);
  static constexpr int kSharedBytes = kOtherBytes + kRing * kTileBytes;
  static_assert(kRing >= 3 && kTail % 16 == 0 && kTail != 48);

  // The ring that pages are copied to, and the copies that make a slot of it.
  static constexpr int kLoadRing = kE4m3 ? kCodeRing : kRing;
  static constexpr int kLoadBytes = kE4m3 ? kCodeBytes : kTileBytes;
  static constexpr int kLoadPanels = kE4m3 ? 1 : kPanels;  // of a page: codes come as they lie
};

// Shared memory: query slots, ring of tiles, ring of codes, control. A tile of keys or values is
// [panel][key], so that the 8-key groups of its pages follow one another as wgmma wants them; a
// slot of codes is its pages' planes.
template <typename S>
struct Shared {
  std::byte* base;
  __device__ __forceinline__ std::byte* Query(int slot) const {
    return base + slot * S::kQueryBytes;
  }
  __device__ __forceinline__ std::byte* Tile(int slot) const {
    return base + S::kQuerySlots * S::kQueryBytes + slot * S::kTileBytes;
  }
  __device__ __forceinline__ std::byte* Codes(int slot) const {
    return Tile(S::kRing) + slot * S::kCodeBytes;
  }
  __device__ __forceinline__ Control& control() const {
    return *reinterpret_cast<Control*>(Codes(S::kCodeRing));
  }
  // What pages are copied to.
  __device__ __forceinline__ std::byte* Load(int slot) const {
    return S::kE4m3 ? Codes(slot) : Tile(slot);
  }
  __device__ __forceinline__ Ring& load_ring() const {
    return S::kE4m3 ? control().codes : control().tiles;
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
template <typename S>
struct TileLoader {
  static constexpr int kElementBytes = S::kE4m3 ? 1 : 2;
  const KernelArgs& args;
  const Shared<S> shared;
  const int lane = LaneId();
  const int panel = lane / S::kPages;  // that this lane copies
  const int page_of_tile = lane % S::kPages;
  const uint32_t width = S::kE4m3 ? S::kDim : panel < S::kFullPanels ? 128 : 2 * S::kTail;
  const std::byte* values = nullptr;  // to be copied after the next keys
  Cursor<S::kLoadRing> cursor = {};

  __device__ __forceinline__ void Load(const std::byte* source) {
    Ring& ring = shared.load_ring();
    BarrierWait(&ring.empty[cursor.slot], cursor.phase ^ 1);
    if (lane == 0) BarrierExpect(&ring.full[cursor.slot], S::kLoadBytes);
    __syncwarp();
    if (lane < S::kLoadPanels * S::kPages) {
      const uint32_t to = panel * S::kKeys * 128 + page_of_tile * kPageTokens * width;
      BulkLoad(shared.Load(cursor.slot) + to, source, kPageTokens * width, &ring.full[cursor.slot]);
    }
    cursor.Next();
  }

  __device__ __forceinline__ void LoadItem(const Item& item) {
    const std::byte* from = args.call.arena + HeadOffset(item.kv_head, S::kDim, kElementBytes) +
                            panel * kPageTokens * 128;
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
      values = keys + PlaneBytes(S::kDim, kElementBytes);
    }
  }
};

// First warp of the producers.
template <typename S>
__device__ __forceinline__ void ProduceTiles(const KernelArgs& args, const Shared<S>& shared) {
  Control& control = shared.control();
  TileLoader<S> loader{args, shared};
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

// Copies the queries of items, in the items' order.
template <typename S>
struct QueryLoader {
  const KernelArgs& args;
  const Shared<S> shared;
  const uint32_t thread;  // 0 .. S::kQueryThreads - 1
  Cursor<S::kQuerySlots> cursor = {};

  __device__ __forceinline__ void Load(const Item& item) {
    Control& control = shared.control();
    std::byte* queries = shared.Query(cursor.slot);
    BarrierWait(&control.query_empty[cursor.slot], cursor.phase ^ 1);
    if (item.pairs > 0) {
      LoadQueries<S::kDim, S::kQueryThreads>(args, item, thread, queries);
      CopyAsyncCommit();
      CopyAsyncWait<0>();
      if constexpr (S::kE4m3) QueriesToHalf<S::kDim, S::kQueryThreads>(thread, queries);
      FenceAsyncShared();
    }
    BarrierArrive(&control.query_full[cursor.slot]);
    cursor.Next();
  }
};

// Second warp: takes items. An item's slot is free when consumers say so: they have seen its keys
// and queries by then, so the other producers have read the slot as well. With e4m3 the warp copies
// the queries too; whoever copies keys has the item by then.
template <typename S>
__device__ __forceinline__ void ProduceItems(const KernelArgs& args, const Shared<S>& shared) {
  auto* header = reinterpret_cast<PrefillPlanHeader*>(args.call.plan);
  Control& control = shared.control();
  Cursor<kItems> cursor;
  QueryLoader<S> queries{args, shared, threadIdx.x % 32};
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
    if constexpr (S::kE4m3) queries.Load(item);
    cursor.Next();
    index = gridDim.x + __shfl_sync(0xffffffffu, taken, 0);
  }
  LetNextStart();
  __threadfence();  // this block's last addition to `next` comes before its addition to `done`
  if (LaneId() == 0 && atomicAdd(&header->done, 1u) == gridDim.x - 1) {
    header->next = 0;
    header->done = 0;
  }
  if constexpr (S::kE4m3) queries.Load({});  // with which consumers see the end
}

// The other two warps with bf16.
template <typename S>
__device__ __forceinline__ void ProduceQueries(const KernelArgs& args, const Shared<S>& shared,
                                               uint32_t thread) {
  Control& control = shared.control();
  Cursor<kItems> cursor;
  QueryLoader<S> queries{args, shared, thread};
  while (true) {
    BarrierWait(&control.item_full[cursor.slot], cursor.phase);
    const Item item = control.items[cursor.slot];
    queries.Load(item);
    if (item.pairs == 0) break;
    cursor.Next();
  }
}

// Makes f16 of a panel of codes, whose first column is kColumn. A thread has one chunk of 16 codes
// of every kRound-th key; eight neighbouring ones read all banks, and write all of them.
template <typename S, int kColumn>
__device__ __forceinline__ void ConvertPanel(const std::byte* codes, std::byte* tile,
                                             uint32_t thread) {
  constexpr int kWidth = PanelWidth(S::kDim - kColumn);
  constexpr int kTileWidth = kWidth < 64 ? 2 * kWidth : 128;  // of the panel of f16
  constexpr int kChunks = kWidth / 16;
  constexpr int kRound = kConverterThreads / kChunks;  // keys
  constexpr int kRounds = S::kKeys / kRound;
  constexpr int kBatch = kRounds < 4 ? kRounds : 4;
  constexpr int kPlane = PlaneBytes(S::kDim, 1);
  // Swizzles have a period of 8 keys.
  static_assert(kRound % 8 == 0 && kPageTokens % kRound == 0 && kRounds % kBatch == 0);
  uint32_t key = thread / kChunks;
  uint32_t chunk = thread % kChunks;
  if constexpr (kWidth == 128) {
    // Keys of 128 bytes have all banks to themselves, and their f16 lie in two panels, so eight
    // threads have halves of two keys: such that one's chunks of f16 are even ones where the
    // other's are odd, and their codes in different halves.
    chunk = thread % 4 + thread / 8 % 2 * 4;
    key = thread / 16 ^ thread / 4 % 2 * 5;
  }
  codes += kColumn * kPageTokens + key * kWidth + (chunk ^ PanelSwizzle(key, kWidth)) * 16;
  // A swizzle keeps pairs of chunks together: a pair's second is at its first one's offset ^ 16.
  const uint32_t column = kColumn + chunk * 16;
  const uint32_t to = column / 64 * S::kKeys * 128 + key * kTileWidth +
                      (column % 64 / 8 ^ PanelSwizzle(key, kTileWidth)) * 16;
#pragma unroll
  for (int batch = 0; batch < kRounds; batch += kBatch) {
    uint4 bytes[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int keys = (batch + i) * kRound;
      bytes[i] = *reinterpret_cast<const uint4*>(codes + keys / kPageTokens * kPlane +
                                                 keys % kPageTokens * kWidth);
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const uint32_t place = (batch + i) * kRound * kTileWidth;
      uint4 first, second;
      HalfFromE4m3(bytes[i].x, first.x, first.y);
      HalfFromE4m3(bytes[i].y, first.z, first.w);
      HalfFromE4m3(bytes[i].z, second.x, second.y);
      HalfFromE4m3(bytes[i].w, second.z, second.w);
      *reinterpret_cast<uint4*>(tile + to + place) = first;
      *reinterpret_cast<uint4*>(tile + (to ^ 16) + place) = second;
    }
  }
}
template <typename S, int kColumn = 0>
__device__ __forceinline__ void ConvertTile(const std::byte* codes, std::byte* tile,
                                            uint32_t thread) {
  ConvertPanel<S, kColumn>(codes, tile, thread);
  constexpr int kNext = kColumn + PanelWidth(S::kDim - kColumn);
  if constexpr (kNext < S::kDim) ConvertTile<S, kNext>(codes, tile, thread);
}

// The other two warps with e4m3: they make tiles of codes, in the order that these come.
template <typename S>
__device__ __forceinline__ void ConvertTiles(const Shared<S>& shared, uint32_t thread) {
  Control& control = shared.control();
  Cursor<kItems> cursor;
  Cursor<S::kCodeRing> codes;
  Cursor<S::kRing> ring;
  while (true) {
    BarrierWait(&control.item_full[cursor.slot], cursor.phase);
    const Item& item = control.items[cursor.slot];
    if (item.pairs == 0) break;
    // An item's last values come behind the next one's first keys, so the count runs one tile ahead
    // of the item. The item is read before the values that consumers wait for before they free it.
    const int tiles = 2 * (item.last_key / S::kKeys - item.first_key / S::kKeys + 1);
    for (int i = 0; i < tiles; ++i) {
      BarrierWait(&control.codes.full[codes.slot], codes.phase);
      BarrierWait(&control.tiles.empty[ring.slot], ring.phase ^ 1);
      ConvertTile<S>(shared.Codes(codes.slot), shared.Tile(ring.slot), thread);
      FenceAsyncShared();
      // Each thread for what it read and wrote: racecheck counts no arrival for others.
      BarrierArrive(&control.tiles.full[ring.slot]);
      BarrierArrive(&control.codes.empty[codes.slot]);
      codes.Next();
      ring.Next();
    }
    cursor.Next();
  }
}

}  // namespace tessera::kernels::cuda::prefill
