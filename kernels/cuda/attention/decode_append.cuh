// Decode attention that rotates the queries itself, and appends the key and the value of its one
// new token to the page where they belong: no kernel of their own stands between the products and
// attention.
#pragma once

#include <cuda_fp8.h>

#include "kernels/cuda/attention/decode_loader.cuh"
#include "kernels/cuda/attention/decode_tile.cuh"
#include "kernels/cuda/attention/rotation.cuh"

namespace tessera::kernels::cuda {

inline constexpr int kAppendBarrier = 2;  // and the next: one for each group of warps

// Columns enough for one query of each head: longer runs have their tokens appended before.
template <typename Shape>
inline constexpr bool kMayAppend = Shape::kColumns == 8;

__device__ __forceinline__ RowAngles AnglesOf(const RopeAppendArgs& append, int32_t row) {
  const int64_t at = append.rotary_rows == nullptr ? row : append.rotary_rows[row];
  const int64_t first = at * (append.rotary_dim / 2);
  return {append.cosine + first, append.sine + first, append.rotary_dim, append.style};
}

// Whether the item reads the page that takes its row's new token.
__device__ __forceinline__ bool TakesNewToken(const DecodeItem& item) {
  return item.first_page + item.page_count - 1 ==
         static_cast<uint32_t>(item.position) / kPageTokens;
}

// What one thread does of an item whose row is rotated and appended: eight elements of a query
// head, and, in the group of warps that reads the new token's page, eight of its key or value.
// Reads come in two rounds, before and after the end of earlier kernels, each at once.
template <typename Shape>
class RowAppender {
 public:
  // Angles and places, which no kernel of the chain writes where its history is settled.
  __device__ __forceinline__ void Begin(const DecodeKernelArgs& args, const DecodeItem& item) {
    const RopeAppendArgs& append = args.append;
    const RowAngles angles = AnglesOf(append, item.q_begin);
    const int thread = static_cast<int>(threadIdx.x);
    column_ = thread / kChunks;
    q_dim_ = thread % kChunks * 8;
    q_angles_ = ChunkAngles::Of(angles, q_dim_);
    const uint32_t group = (item.page_count - 1) % Shape::kPageGroups;
    const int unit = thread - static_cast<int>(group) * 128;
    takes_ = TakesNewToken(item);
    const bool mine = takes_ && unit >= 0 && unit < 2 * kChunks;
    is_value_ = unit >= kChunks;
    dim_ = unit % kChunks * 8;
    page_ = PageId::kInvalid;
    if (!mine) return;
    page_ = append.page[item.q_begin].value;
    if (!is_value_) angles_ = ChunkAngles::Of(angles, dim_);
  }

  // After earlier kernels have ended: the rotated query to shared memory, the token to its page.
  __device__ __forceinline__ void Finish(const DecodeKernelArgs& args, const DecodeItem& item,
                                         uint16_t* query) {
    const RopeAppendArgs& append = args.append;
    const int32_t row = item.q_begin;
    const bool has_query = column_ < args.group;
    const bool writes = page_ != PageId::kInvalid;
    uint4 q = {}, q_partner = {}, own = {}, partner = {};
    if (has_query) {
      const __nv_bfloat16* head =
          args.q + row * args.q_stride + (item.kv_head * args.group + column_) * Shape::kHeadDim;
      q = Bits(head + q_dim_);
      q_partner = Bits(head + PartnerOf(append.rotary_dim, append.style, q_dim_));
    }
    if (writes) {
      const __nv_bfloat16* head =
          (is_value_ ? append.v + row * append.v_stride : append.k + row * append.k_stride) +
          int64_t{item.kv_head} * Shape::kHeadDim;
      own = Bits(head + dim_);
      if (!is_value_) partner = Bits(head + PartnerOf(append.rotary_dim, append.style, dim_));
    }
    if (column_ < Shape::kColumns) {
      const HeadChunk rotated =
          Rotated(q, q_partner, q_angles_, append.rotary_dim, append.style, q_dim_);
      *reinterpret_cast<uint4*>(query + column_ * Shape::kQueryStride + q_dim_) =
          QueryBits<Shape>(rotated.ToBf16());
    }
    if (!writes) return;
    Convert(is_value_ ? HeadChunk::Of(own)
                      : Rotated(own, partner, angles_, append.rotary_dim, append.style, dim_));
    constexpr int kElementBytes = Shape::kIsE4m3 ? 1 : 2;
    offset_ = PlaneOffset(static_cast<uint32_t>(item.position) % kPageTokens, dim_ * kElementBytes,
                          Shape::kRowBytes);
    auto* record = reinterpret_cast<unsigned char*>(append.arena) +
                   uint64_t{page_} * kPageUnitBytes +
                   HeadOffset(item.kv_head, Shape::kHeadDim, kElementBytes);
    Store(record + (is_value_ ? Shape::kPlaneBytes : 0));
  }

  // Whether the item reads the new token's page, as its last.
  [[nodiscard]] __device__ __forceinline__ bool takes() const { return takes_; }

  // Four warps. Puts the token into the page's copy in the ring, whose key plane is at `at`.
  __device__ __forceinline__ void Patch(const PlaneRing& ring, RingPosition at,
                                        uint32_t page_group) const {
    RingWait(&ring.full[at.slot], at.phase);
    RingPosition value_at = at;
    value_at.Advance(1, ring.slots);
    RingWait(&ring.full[value_at.slot], value_at.phase);
    if (page_ != PageId::kInvalid) {
      Store(ring.Plane(is_value_ ? value_at.slot : at.slot));
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
      FenceAsyncShared();  // the copy engine writes there next
#endif
    }
    // Constants: a barrier in a register would take all of the block's.
    if (page_group == 0) {
      SyncNamed(kAppendBarrier, 128);
    } else {
      SyncNamed(kAppendBarrier + 1, 128);
    }
  }

 private:
  static constexpr int kChunks = Shape::kHeadDim / 8;
  static_assert(!kMayAppend<Shape> || Shape::kColumns * kChunks <= Shape::kThreads);

  __device__ __forceinline__ static uint4 Bits(const __nv_bfloat16* from) {
    return *reinterpret_cast<const uint4*>(from);
  }
  __device__ __forceinline__ void Convert(const HeadChunk& chunk) {
    if constexpr (Shape::kIsE4m3) {
      uint32_t words[2] = {0, 0};
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const uint32_t bits = __nv_cvt_float_to_fp8(chunk.value[i], __NV_SATFINITE, __NV_E4M3);
        words[i / 4] |= bits << i % 4 * 8;
      }
      bits_ = make_uint4(words[0], words[1], 0, 0);
    } else {
      bits_ = chunk.ToBf16();
    }
  }
  __device__ __forceinline__ void Store(unsigned char* plane) const {
    if constexpr (Shape::kIsE4m3) {
      *reinterpret_cast<uint2*>(plane + offset_) = make_uint2(bits_.x, bits_.y);
    } else {
      *reinterpret_cast<uint4*>(plane + offset_) = bits_;
    }
  }

  ChunkAngles q_angles_, angles_;
  uint4 bits_;
  int column_, q_dim_, dim_;
  uint32_t offset_;
  uint32_t page_;  // invalid: this thread writes nothing
  bool is_value_, takes_;
};

}  // namespace tessera::kernels::cuda
