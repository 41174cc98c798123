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

// The new token of an item's row: eight elements of its key or its value for each of the first
// threads of the group of warps that reads its page.
template <typename Shape>
class NewToken {
 public:
  // After earlier kernels have ended. Writes the token to its page.
  __device__ __forceinline__ void Append(const DecodeKernelArgs& args, const DecodeItem& item,
                                         uint32_t page_group) {
    constexpr int kChunks = Shape::kHeadDim / 8;
    const RopeAppendArgs& append = args.append;
    const int32_t row = item.q_begin;
    const PageId page = append.page[row];
    const int unit = static_cast<int>(threadIdx.x) - static_cast<int>(page_group) * 128;
    writes_ = unit >= 0 && unit < 2 * kChunks && page.value != PageId::kInvalid;
    if (!writes_) return;
    is_value_ = unit >= kChunks;
    const int dim = unit % kChunks * 8;
    const int64_t head = int64_t{item.kv_head} * Shape::kHeadDim;
    const HeadChunk chunk = is_value_ ? HeadChunk::Of(append.v + row * append.v_stride + head + dim)
                                      : RotatedChunk(append.k + row * append.k_stride + head, dim,
                                                     AnglesOf(append, row));
    Convert(chunk);
    constexpr int kElementBytes = Shape::kIsE4m3 ? 1 : 2;
    offset_ = PlaneOffset(static_cast<uint32_t>(item.position) % kPageTokens, dim * kElementBytes,
                          Shape::kRowBytes);
    auto* record = reinterpret_cast<unsigned char*>(append.arena) +
                   uint64_t{page.value} * kPageUnitBytes +
                   HeadOffset(item.kv_head, Shape::kHeadDim, kElementBytes);
    Store(record + (is_value_ ? Shape::kPlaneBytes : 0));
  }

  // Four warps. Puts the token into the page's copy in the ring, whose key plane is at `at`.
  __device__ __forceinline__ void Patch(const PlaneRing& ring, RingPosition at,
                                        uint32_t page_group) const {
    RingWait(&ring.full[at.slot], at.phase);
    RingPosition value_at = at;
    value_at.Advance(1, ring.slots);
    RingWait(&ring.full[value_at.slot], value_at.phase);
    if (writes_) {
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

  uint4 bits_;
  uint32_t offset_;
  bool is_value_;
  bool writes_ = false;
};

}  // namespace tessera::kernels::cuda
