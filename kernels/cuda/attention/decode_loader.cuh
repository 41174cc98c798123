// The loading warp of paged decode attention: walks the work items of its thread block, looks pages
// up, and fills the ring.
#pragma once

#include "kernels/cuda/attention/decode.h"
#include "kernels/cuda/attention/decode_item.h"
#include "kernels/cuda/attention/decode_ring.cuh"
#include "kernels/cuda/kv_layout.h"

namespace tessera::kernels::cuda {

struct DecodeKernelArgs {
  const DecodeItem* items;
  const __nv_bfloat16* q;
  __nv_bfloat16* out;
  RowCodes out_codes;
  const unsigned char* arena;
  float2* statistics;     // [partials, partial_columns]: maximum, sum
  float* partial_values;  // [partials, partial_columns, head_dim]
  int64_t q_stride;
  uint32_t table;
  uint32_t slots;             // of the ring
  int32_t group;              // query heads of a KV head
  uint32_t group_reciprocal;  // 65536 / group + 1
  int32_t q_heads;
  int32_t partial_columns;
  int32_t window;
  float scale_log2;  // scale * log2 e
  KvHistory history;
  DecodeRing ring;
  RopeAppendArgs append;  // no rows: everything is in its page
};

// Which query of the run a column below 32 belongs to.
__device__ __forceinline__ int RowOf(const DecodeKernelArgs& args, int column) {
  return static_cast<int>(static_cast<uint32_t>(column) * args.group_reciprocal >> 16);
}

__device__ __forceinline__ DecodeItem LoadItem(const DecodeItem* item) {
  union {
    uint4 words[3];
    DecodeItem item;
  } loaded;
#pragma unroll
  for (int i = 0; i < 3; ++i) loaded.words[i] = reinterpret_cast<const uint4*>(item)[i];
  return loaded.item;
}

// The same by a warp in two steps: a word a lane, which costs one register while it is on its way.
__device__ __forceinline__ uint32_t FetchItem(const DecodeItem* item) {
  return LaneId() < 12 ? reinterpret_cast<const uint32_t*>(item)[LaneId()] : 0;
}
__device__ __forceinline__ DecodeItem ItemOf(uint32_t fetched) {
  union {
    uint32_t words[12];
    DecodeItem item;
  } loaded;
#pragma unroll
  for (int i = 0; i < 12; ++i) loaded.words[i] = __shfl_sync(0xffffffffu, fetched, i);
  return loaded.item;
}

// Up to 32 pages of one item, one a lane.
struct PageBatch {
  uint32_t page;
  PageMeta meta;
  uint32_t count;    // 0: no more
  uint32_t settled;  // leading pages of the batch that may be read before earlier kernels end
  uint32_t end;      // of the tokens that the item's queries see
  uint32_t kv_head;
};

// Walks items in batches; looks one item ahead, so that a batch costs one dependent read.
class PageCursor {
 public:
  __device__ __forceinline__ PageCursor(const DecodeKernelArgs& args, const DecodeItem& first)
      : args_(args), item_(first) {
    LookAhead();
  }

  __device__ __forceinline__ PageBatch Next(bool& waited) {
    while (done_ >= item_.page_count) {
      if (item_.next == kNoItem) return PageBatch{};
      item_ = following_;
      done_ = 0;
      LookAhead();
    }
    return item_.listed != 0 ? Listed(waited) : Dense();
  }

 private:
  __device__ __forceinline__ void LookAhead() {
    if (item_.next != kNoItem) following_ = LoadItem(args_.items + item_.next);
  }
  __device__ __forceinline__ PageBatch Start() {
    PageBatch batch{};
    batch.page = PageId::kInvalid;
    batch.count = min(item_.page_count - done_, 32u);
    batch.kv_head = item_.kv_head;
    batch.end = static_cast<uint32_t>(item_.position) + item_.q_rows;
    return batch;
  }
  __device__ __forceinline__ PageBatch Dense() {
    PageBatch batch = Start();
    const uint32_t lane = LaneId();
    const auto* pages = static_cast<const uint32_t*>(item_.pages) +
                        uint64_t{args_.table} * item_.table_stride + done_;
    if (lane < batch.count) batch.page = pages[lane];
    const uint32_t first = item_.first_page + done_;
    batch.meta = PageMeta::Of(first + lane, 0xff);
    const uint32_t open = static_cast<uint32_t>(item_.position) / kPageTokens;
    // The page of a token that this launch appends was written by earlier steps but for that.
    const uint32_t settled = args_.append.rows > 0 ? open + 1 : open;
    batch.settled = args_.history == KvHistory::kSettled ? settled - min(settled, first) : 0;
    done_ += batch.count;
    return batch;
  }
  __device__ __forceinline__ PageBatch Listed(bool& waited) {
    if (!waited) WaitForPrior();
    waited = true;
    PageBatch batch = Start();
    const uint32_t lane = LaneId();
    const auto* entries =
        static_cast<const uint2*>(item_.pages) + uint64_t{args_.table} * item_.table_stride + done_;
    if (lane < batch.count) {
      const uint2 entry = entries[lane];
      const uint32_t all = (1u << args_.group) - 1;
      const uint32_t heads = entry.y >> 24 & all;
      batch.page = entry.x;
      batch.meta = PageMeta::Of(entry.y & 0xffffffu, heads == all ? 0xff : heads);
      if (batch.page == PageId::kInvalid || heads == 0) {
        batch.page = PageId::kInvalid;
        batch.meta = PageMeta::Of(0, 0);
      }
    }
    done_ += batch.count;
    return batch;
  }

  const DecodeKernelArgs& args_;
  DecodeItem item_;
  DecodeItem following_;
  uint32_t done_ = 0;
};

// Whole warp.
__device__ __forceinline__ void LoadItems(const DecodeKernelArgs& args, const PlaneRing& ring,
                                          const DecodeItem& first) {
  bool waited = false;
  PageCursor cursor(args, first);
  const LaneCopy copy(ring.plane_bytes);
  RingPosition at;
  PageBatch next = cursor.Next(waited);
  while (next.count != 0) {
    const PageBatch batch = next;
    next = cursor.Next(waited);
    for (uint32_t i = 0; i < batch.count; ++i) {
      if (!waited && i >= batch.settled) {
        WaitForPrior();
        waited = true;
      }
      const uint32_t page = __shfl_sync(0xffffffffu, batch.page, i);
      const uint32_t meta = __shfl_sync(0xffffffffu, batch.meta.bits, i);
      // Of a page that is not full yet the tokens that are there; of one that nobody sees one.
      const uint32_t first = PageMeta{meta}.logical_page() * kPageTokens;
      const uint32_t tokens = min(uint32_t{kPageTokens}, max(batch.end, first + 1) - first);
      const unsigned char* source = args.arena + uint64_t{page} * kPageUnitBytes +
                                    uint64_t{2} * batch.kv_head * ring.plane_bytes;
      for (int plane = 0; plane < 2; ++plane) {
        // A slot's first use finds its barrier in the phase before the first.
        RingWait(&ring.empty[at.slot], at.phase ^ 1);
        if (LaneId() == 0) ring.meta[at.slot].bits = meta;
        __syncwarp();
        if (page == PageId::kInvalid) {
          RingSkip(&ring.full[at.slot]);
        } else {
          RingLoad(ring.Plane(at.slot), source + plane * ring.plane_bytes, copy, tokens,
                   &ring.full[at.slot]);
        }
        at.Advance(1, ring.slots);
      }
    }
  }
}

}  // namespace tessera::kernels::cuda
