// A ring of planes (K or V of one KV head of one page) in shared memory between one loading warp
// and the warps that compute: a bulk copy a plane on sm_90, 16-byte asynchronous copies on sm_80.
#pragma once

#include <cstdint>

#include "kernels/cuda/kv_layout.h"
#include "kernels/cuda/ptx.cuh"

namespace tessera::kernels::cuda {

// What a lane copies of a plane: all of it, the first lane, or the first tokens of one panel
// (kv_layout.h). Lanes past the last panel copy nothing.
class LaneCopy {
 public:
  __device__ __forceinline__ explicit LaneCopy(uint32_t plane_bytes)
      : row_bytes(plane_bytes / kPageTokens), plane_bytes_(LaneId() == 0 ? plane_bytes : 0) {
    uint32_t column = 0;
    for (int panel = 0; column < row_bytes; ++panel) {
      const uint32_t width = PanelWidth(row_bytes - column);
      if (panel == LaneId()) {
        start = column * kPageTokens;
        width_ = width;
      }
      column += width;
    }
  }
  [[nodiscard]] __device__ __forceinline__ uint32_t Bytes(uint32_t tokens) const {
    return tokens == kPageTokens ? plane_bytes_ : tokens * width_;
  }

  uint32_t row_bytes;  // of a token, in all panels
  uint32_t start = 0;  // bytes from the plane's start

 private:
  uint32_t plane_bytes_;
  uint32_t width_ = 0;  // bytes of a token in the panel
};

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
inline constexpr uint32_t kFullArrivals = 1;

__device__ __forceinline__ void RingBarrierInit(uint64_t* barrier, uint32_t arrivals) {
  BarrierInit(barrier, arrivals);
}
__device__ __forceinline__ void RingArrive(uint64_t* barrier) { BarrierArrive(barrier); }
__device__ __forceinline__ void RingWait(uint64_t* barrier, uint32_t parity) {
  BarrierWait(barrier, parity);
}
// Whole warp. Fills `shared` with the first `tokens` tokens of a plane and completes a phase of
// `full`.
__device__ __forceinline__ void RingLoad(unsigned char* shared, const unsigned char* global,
                                         const LaneCopy& copy, uint32_t tokens, uint64_t* full) {
  // Bytes that arrive before they are expected do not complete the phase: the arrival does.
  if (LaneId() == 0) BarrierExpect(full, tokens * copy.row_bytes);
  const uint32_t bytes = copy.Bytes(tokens);
  if (bytes != 0) BulkLoad(shared + copy.start, global + copy.start, bytes, full);
  __syncwarp();
}
// Whole warp. Completes a phase of `full` without data.
__device__ __forceinline__ void RingSkip(uint64_t* full) {
  if (LaneId() == 0) BarrierArrive(full);
  __syncwarp();
}
__device__ __forceinline__ void RingInitFence() { BarrierInitFence(); }
#else
inline constexpr uint32_t kFullArrivals = 32;

__device__ __forceinline__ void RingBarrierInit(uint64_t* barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(SharedAddress(barrier)), "r"(arrivals)
               : "memory");
}
__device__ __forceinline__ void RingArrive(uint64_t* barrier) {
  asm volatile("{\n.reg .b64 state;\nmbarrier.arrive.shared.b64 state, [%0];\n}\n" ::"r"(
                   SharedAddress(barrier))
               : "memory");
}
__device__ __forceinline__ void RingWait(uint64_t* barrier, uint32_t parity) {
  uint32_t done = 0;
  while (done == 0) {
    asm volatile(
        "{\n.reg .pred p;\nmbarrier.test_wait.parity.shared.b64 p, [%1], %2;\n"
        "selp.u32 %0, 1, 0, p;\n}\n"
        : "=r"(done)
        : "r"(SharedAddress(barrier)), "r"(parity)
        : "memory");
  }
}
__device__ __forceinline__ void RingLoad(unsigned char* shared, const unsigned char* global,
                                         const LaneCopy& copy, uint32_t tokens, uint64_t* full) {
  for (uint32_t column = 0; column < copy.row_bytes;) {
    const uint32_t width = PanelWidth(copy.row_bytes - column);
    const uint32_t first = column * kPageTokens;
    for (uint32_t offset = LaneId() * 16; offset < tokens * width; offset += 512) {
      CopyAsync16(shared + first + offset, global + first + offset);
    }
    column += width;
  }
  asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(SharedAddress(full))
               : "memory");
}
__device__ __forceinline__ void RingSkip(uint64_t* full) { RingArrive(full); }
__device__ __forceinline__ void RingInitFence() {}
#endif

// What the computing warps must know of the page whose K is in a slot.
struct PageMeta {
  uint32_t bits;  // logical page below 2^24, mask of query heads above

  __device__ __forceinline__ static PageMeta Of(uint32_t logical_page, uint32_t heads) {
    return {logical_page | heads << 24};
  }
  __device__ __forceinline__ uint32_t logical_page() const { return bits & 0xffffffu; }
  __device__ __forceinline__ uint32_t heads() const { return bits >> 24; }
};

struct PlaneRing {
  unsigned char* planes;  // [slots, plane_bytes]
  uint64_t* full;         // [slots]
  uint64_t* empty;        // [slots]
  uint64_t* patched;      // [2]: of each group of four warps, whose lanes all arrive
  PageMeta* meta;         // [slots]
  uint32_t slots;
  uint32_t plane_bytes;

  __device__ __forceinline__ unsigned char* Plane(uint32_t slot) const {
    return planes + slot * plane_bytes;
  }
};

// A place in the endless sequence of planes: K of a page, then its V, then the next page's K.
struct RingPosition {
  uint32_t slot = 0;
  uint32_t phase = 0;

  __device__ __forceinline__ void Advance(uint32_t planes, uint32_t slots) {
    slot += planes;
    while (slot >= slots) {
      slot -= slots;
      phase ^= 1;
    }
  }
  // For many planes.
  __device__ __forceinline__ void Jump(uint32_t planes, uint32_t slots) {
    slot += planes;
    phase ^= slot / slots & 1;
    slot %= slots;
  }
};

}  // namespace tessera::kernels::cuda
