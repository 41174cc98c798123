// One region of address space, cut into slabs of equal size that page pools borrow and return.
//
// Slabs are lent in runs of a power of two, aligned to their size (a buddy scheme, best fit). From
// an empty arena, borrowing without returning fails only when fewer slabs are free than asked for:
// the free runs then always have distinct sizes. One thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "config/foundation/status.h"
#include "kernels/memory.h"

namespace tessera::kvcache {

class SlabArena {
 public:
  static constexpr uint32_t kNoSlab = UINT32_MAX;
  static constexpr int kOrders = 32;

  // `slab_bytes` is rounded up to a power of two of at least 4 KiB; the arena is the whole slabs of
  // `arena_bytes`, taken from `memory`. INVALID_ARGUMENT when no slab fits or page ids cannot count
  // that far, RESOURCE_EXHAUSTED when the memory has no room.
  [[nodiscard]] static StatusOr<std::unique_ptr<SlabArena>> Create(
      uint64_t arena_bytes, uint64_t slab_bytes, kernels::Memory& memory = kernels::HostMemory());
  SlabArena(const SlabArena&) = delete;
  SlabArena& operator=(const SlabArena&) = delete;

  // An address in `memory`.
  [[nodiscard]] std::byte* base() const { return buffer_->data(); }
  [[nodiscard]] uint64_t slab_bytes() const { return uint64_t{1} << slab_shift_; }
  [[nodiscard]] uint32_t slab_count() const { return static_cast<uint32_t>(slabs_.size()); }
  [[nodiscard]] uint64_t bytes() const { return uint64_t{slab_count()} << slab_shift_; }
  [[nodiscard]] uint32_t SlabOf(uint64_t byte_offset) const {
    return static_cast<uint32_t>(byte_offset >> slab_shift_);
  }

  // The first slab of a run of 2^order slabs, or kNoSlab.
  [[nodiscard]] uint32_t Borrow(int order);
  // Gives back the run that `Borrow(order)` returned as `first`.
  void Return(uint32_t first, int order);

  [[nodiscard]] uint32_t free_slabs() const { return free_slabs_; }
  // How many runs of 2^order slabs could be borrowed one after the other.
  [[nodiscard]] uint64_t FreeRuns(int order) const;

  // Free lists, counts and coalescing, by brute force; for tests.
  [[nodiscard]] Status CheckInvariants() const;

 private:
  struct Slab {
    int8_t free_order = -1;  // of the free run that starts here; -1 elsewhere
    uint32_t next = kNoSlab;
    uint32_t previous = kNoSlab;
  };

  SlabArena(std::shared_ptr<kernels::Buffer> buffer, uint32_t slab_shift, uint32_t slabs);
  void Link(uint32_t first, int order);
  void Unlink(uint32_t first);

  std::shared_ptr<kernels::Buffer> buffer_;
  uint32_t slab_shift_;
  uint32_t free_slabs_ = 0;
  std::vector<Slab> slabs_;
  std::array<uint32_t, kOrders> heads_;
  std::array<uint32_t, kOrders> free_runs_{};
};

}  // namespace tessera::kvcache
