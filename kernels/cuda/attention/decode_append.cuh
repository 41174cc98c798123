// Decode attention that rotates the queries itself, and appends the key and the value of its one
// new token to the page where they belong: no kernel of their own stands between the products and
// attention.
#pragma once

#include <cuda_fp8.h>

#include "kernels/cuda/attention/decode_loader.cuh"
#include "kernels/cuda/attention/decode_tile.cuh"
#include "kernels/cuda/attention/rotation.cuh"

namespace tessera::kernels::cuda {

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
template <typename Shape>
class RowAppender {
 public:
  // Reads angles and places, which no kernel of the chain writes where its history is settled.
  __device__ __forceinline__ void Begin(const DecodeKernelArgs& args, const DecodeItem& item) {
    const int thread = static_cast<int>(threadIdx.x);
    column_ = thread / kChunks;
    dim_ = thread % kChunks * 8;
    angles_ = ChunkAngles::Of(AnglesOf(args.append, item.q_begin), dim_);
    takes_ = TakesNewToken(item);
    // The first two whole runs of chunks in the group's threads.
    const int group = static_cast<int>(item.page_count - 1) % Shape::kPageGroups;
    const int first = (group * 128 + kChunks - 1) / kChunks;
    is_value_ = column_ == first + 1;
    page_ = PageId::kInvalid;
    has_token_ = takes_ && (column_ == first || is_value_);
    if (has_token_) page_ = args.append.page[item.q_begin].value;
  }

  // Reads what earlier kernels wrote. All at once: nothing here depends on what was read.
  __device__ __forceinline__ void Load(const DecodeKernelArgs& args, const DecodeItem& item) {
    const RopeAppendArgs& append = args.append;
    const int32_t row = item.q_begin;
    const int partner = PartnerOf(append.rotary_dim, append.style, dim_);
    q_ = q_partner_ = token_ = token_partner_ = make_uint4(0, 0, 0, 0);
    if (column_ < args.group) {
      const __nv_bfloat16* head =
          args.q + row * args.q_stride + (item.kv_head * args.group + column_) * Shape::kHeadDim;
      q_ = Bits(head + dim_);
      q_partner_ = Bits(head + partner);
    }
    if (has_token_) {
      const __nv_bfloat16* head =
          (is_value_ ? append.v + row * append.v_stride : append.k + row * append.k_stride) +
          int64_t{item.kv_head} * Shape::kHeadDim;
      token_ = Bits(head + dim_);
      token_partner_ = Bits(head + partner);
    }
  }

  // The rotated query to shared memory, the token to its page.
  __device__ __forceinline__ void Store(const DecodeKernelArgs& args, const DecodeItem& item,
                                        uint16_t* query) {
    const RopeAppendArgs& append = args.append;
    if (column_ < Shape::kColumns) {
      const HeadChunk rotated =
          Rotated(q_, q_partner_, angles_, append.rotary_dim, append.style, dim_);
      *reinterpret_cast<uint4*>(query + column_ * Shape::kQueryStride + dim_) =
          QueryBits<Shape>(rotated.ToBf16());
    }
    if (page_ == PageId::kInvalid) return;
    token_ = PageBits(is_value_ ? HeadChunk::Of(token_)
                                : Rotated(token_, token_partner_, angles_, append.rotary_dim,
                                          append.style, dim_));
    constexpr int kElementBytes = Shape::kIsE4m3 ? 1 : 2;
    offset_ = PlaneOffset(static_cast<uint32_t>(item.position) % kPageTokens, dim_ * kElementBytes,
                          Shape::kRowBytes);
    auto* record = reinterpret_cast<unsigned char*>(append.arena) +
                   uint64_t{page_} * kPageUnitBytes +
                   HeadOffset(item.kv_head, Shape::kHeadDim, kElementBytes);
    StoreToken(record + (is_value_ ? Shape::kPlaneBytes : 0));
  }

  // Whether the item reads the new token's page, as its last.
  [[nodiscard]] __device__ __forceinline__ bool takes() const { return takes_; }

  // Four warps. Puts the token into the page's copy in the ring, whose key plane is at `at`.
  __device__ __forceinline__ void Patch(const PlaneRing& ring, RingPosition at,
                                        uint32_t page_group) {
    RingWait(&ring.full[at.slot], at.phase);
    RingPosition value_at = at;
    value_at.Advance(1, ring.slots);
    RingWait(&ring.full[value_at.slot], value_at.phase);
    if (page_ != PageId::kInvalid) {
      StoreToken(ring.Plane(is_value_ ? value_at.slot : at.slot));
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
      FenceAsyncShared();  // the copy engine writes there next
#endif
    }
    // No named barrier: racecheck then sees races between all warps later on.
    RingArrive(&ring.patched[page_group]);
    RingWait(&ring.patched[page_group], patches_);
    patches_ ^= 1;
  }

 private:
  static constexpr int kChunks = Shape::kHeadDim / 8;
  static_assert(!kMayAppend<Shape> || Shape::kColumns * kChunks <= Shape::kThreads);

  __device__ __forceinline__ static uint4 Bits(const __nv_bfloat16* from) {
    return *reinterpret_cast<const uint4*>(from);
  }
  // In the page's type; e4m3 in the first half.
  __device__ __forceinline__ static uint4 PageBits(const HeadChunk& chunk) {
    if constexpr (Shape::kIsE4m3) {
      uint32_t words[2] = {0, 0};
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const uint32_t bits = __nv_cvt_float_to_fp8(chunk.value[i], __NV_SATFINITE, __NV_E4M3);
        words[i / 4] |= bits << i % 4 * 8;
      }
      return make_uint4(words[0], words[1], 0, 0);
    } else {
      return chunk.ToBf16();
    }
  }
  __device__ __forceinline__ void StoreToken(unsigned char* plane) const {
    if constexpr (Shape::kIsE4m3) {
      *reinterpret_cast<uint2*>(plane + offset_) = make_uint2(token_.x, token_.y);
    } else {
      *reinterpret_cast<uint4*>(plane + offset_) = token_;
    }
  }

  ChunkAngles angles_;
  uint4 q_, q_partner_;
  uint4 token_, token_partner_;  // bf16; `token_` in the page's type once stored
  int column_;                   // run of chunks
  int dim_;
  uint32_t offset_;
  uint32_t patches_ = 0;  // parity of those of this group
  uint32_t page_;         // invalid: this thread writes nothing
  bool has_token_;        // a part of it, to be written or not
  bool is_value_, takes_;
};

}  // namespace tessera::kernels::cuda
