// Rows on their way to the threads that work on them, for kernels that take many rows in turn:
// memory is as far away as some rows take, and registers hold less than that.
#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <cstdint>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"

namespace tessera::kernels::cuda {

inline constexpr int kRingStages = 3;  // rows of a block: one in work, two on their way

// Dynamic shared memory of a block whose threads take `pieces` of 16 bytes of a row.
inline int RingBytes(int threads, int pieces) { return kRingStages * pieces * threads * 16; }

// A thread's part of the ring. No other thread reads it, so that no barrier is needed.
template <int kPieces>
class RowRing {
 public:
  // `memory`: RingBytes of the block.
  __device__ __forceinline__ explicit RowRing(uint4* memory) : memory_(memory + threadIdx.x) {}

  // Asks for a piece of the next row; zeros where `!inside`. Behind all of its pieces: Asked.
  __device__ __forceinline__ void Ask(int piece, const void* from, bool inside) {
    CopyAsync16(Slot(asked_, piece), from, inside);
  }
  __device__ __forceinline__ void Asked() {
    CopyAsyncCommit();
    Advance(asked_);
  }
  // Calls ask(row) for the rows that are on their way when `first`, this block's first one, is.
  template <typename AskRow>
  __device__ __forceinline__ void Fill(int first, AskRow ask) {
#pragma unroll
    for (int stage = 0; stage + 1 < kRingStages; ++stage) {
      ask(first + stage * static_cast<int>(gridDim.x));
    }
  }
  // Until the pieces of the oldest row are there.
  __device__ __forceinline__ void Wait() const { CopyAsyncWait<kRingStages - 2>(); }
  [[nodiscard]] __device__ __forceinline__ uint4 Take(int piece) const {
    return *Slot(taken_, piece);
  }
  // When the pieces of `row` have been taken: asks for the next that is not on its way.
  template <typename AskRow>
  __device__ __forceinline__ void Next(int row, AskRow ask) {
    Advance(taken_);
    ask(row + (kRingStages - 1) * static_cast<int>(gridDim.x));
  }

 private:
  static __device__ __forceinline__ void Advance(int& stage) {
    stage = stage + 1 == kRingStages ? 0 : stage + 1;
  }
  [[nodiscard]] __device__ __forceinline__ uint4* Slot(int stage, int piece) const {
    return memory_ + (stage * kPieces + piece) * blockDim.x;
  }

  uint4* const memory_;
  int asked_ = 0, taken_ = 0;
};

// Blocks of a kernel with a ring that the device holds at a time; 0 where none fits, or where
// `rows` are too few for a ring to fill.
template <typename... Params>
int RingBlocks(void (*kernel)(Params...), int threads, int pieces, int rows,
               std::atomic<uint64_t>& prepared) {
  constexpr int kStatic = 1024;  // more than such kernels have beside the ring
  const DeviceFacts& device = CurrentDeviceFacts();
  const auto* address = reinterpret_cast<const void*>(kernel);
  const int bytes = RingBytes(threads, pieces);
  if (rows <= kRingStages * device.multiprocessors || bytes > device.shared_bytes - kStatic ||
      PrepareKernel(address, device.shared_bytes - kStatic, prepared) != cudaSuccess) {
    return 0;
  }
  int blocks = 0;
  if (cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, address, threads, bytes) !=
      cudaSuccess) {
    return 0;
  }
  blocks *= device.multiprocessors;
  return rows >= kRingStages * blocks ? blocks : 0;
}

}  // namespace tessera::kernels::cuda
