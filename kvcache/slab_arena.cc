#include "kvcache/slab_arena.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "absl/strings/str_cat.h"
#include "config/foundation/check.h"
#include "kernels/ops/kv_page.h"

namespace tessera::kvcache {
namespace {

constexpr uint64_t kMinSlabBytes = 4096;
// Page ids are 32 bits wide and the last value means "none".
constexpr uint64_t kMaxArenaBytes = (uint64_t{1} << 32) * kernels::kPageUnitBytes;

}  // namespace

StatusOr<std::unique_ptr<SlabArena>> SlabArena::Create(uint64_t arena_bytes, uint64_t slab_bytes,
                                                       kernels::Memory& memory) {
  if (arena_bytes > kMaxArenaBytes || slab_bytes > kMaxArenaBytes) {
    return Error(absl::StatusCode::kInvalidArgument,
                 {.what = absl::StrCat("a cache of ", arena_bytes, " bytes in slabs of ",
                                       slab_bytes, " is too large"),
                  .why = absl::StrCat("page ids reach ", kMaxArenaBytes, " bytes"),
                  .fix = "give the cache less memory"});
  }
  const uint64_t slab = std::bit_ceil(std::max(slab_bytes, kMinSlabBytes));
  const uint64_t slabs = arena_bytes / slab;
  if (slabs == 0) {
    return Error(absl::StatusCode::kInvalidArgument,
                 {.what = absl::StrCat("a cache of ", arena_bytes, " bytes holds nothing"),
                  .why = absl::StrCat("a slab has ", slab, " bytes"),
                  .fix = "give the cache more memory or smaller slabs"});
  }
  TESSERA_ASSIGN_OR_RETURN(std::shared_ptr<kernels::Buffer> buffer,
                           memory.Allocate(slabs * slab, "KV cache"));
  return std::unique_ptr<SlabArena>(
      new SlabArena(std::move(buffer), std::countr_zero(slab), static_cast<uint32_t>(slabs)));
}

SlabArena::SlabArena(std::shared_ptr<kernels::Buffer> buffer, uint32_t slab_shift, uint32_t slabs)
    : buffer_(std::move(buffer)), slab_shift_(slab_shift), slabs_(slabs) {
  heads_.fill(kNoSlab);
  for (uint32_t first = 0; first < slabs;) {
    const int order = std::bit_width(slabs - first) - 1;
    Link(first, order);
    first += uint32_t{1} << order;
  }
}

void SlabArena::Link(uint32_t first, int order) {
  Slab& slab = slabs_[first];
  slab.free_order = static_cast<int8_t>(order);
  slab.previous = kNoSlab;
  slab.next = heads_[order];
  if (slab.next != kNoSlab) {
    slabs_[slab.next].previous = first;
  }
  heads_[order] = first;
  ++free_runs_[order];
  free_slabs_ += uint32_t{1} << order;
}

void SlabArena::Unlink(uint32_t first) {
  Slab& slab = slabs_[first];
  const int order = slab.free_order;
  (slab.previous == kNoSlab ? heads_[order] : slabs_[slab.previous].next) = slab.next;
  if (slab.next != kNoSlab) {
    slabs_[slab.next].previous = slab.previous;
  }
  slab.free_order = -1;
  --free_runs_[order];
  free_slabs_ -= uint32_t{1} << order;
}

uint32_t SlabArena::Borrow(int order) {
  int from = order;
  while (from < kOrders && heads_[from] == kNoSlab) {
    ++from;
  }
  if (from == kOrders) {
    return kNoSlab;
  }
  const uint32_t first = heads_[from];
  Unlink(first);
  while (from > order) {
    --from;
    Link(first + (uint32_t{1} << from), from);
  }
  return first;
}

void SlabArena::Return(uint32_t first, int order) {
  TESSERA_CHECK(first < slab_count() && slabs_[first].free_order == -1);
  for (;;) {
    const uint32_t buddy = first ^ (uint32_t{1} << order);
    if (buddy >= slab_count() || slabs_[buddy].free_order != order) {
      break;
    }
    Unlink(buddy);
    first = std::min(first, buddy);
    ++order;
  }
  Link(first, order);
}

uint64_t SlabArena::FreeRuns(int order) const {
  uint64_t runs = 0;
  for (int i = order; i < kOrders; ++i) {
    runs += uint64_t{free_runs_[i]} << (i - order);
  }
  return runs;
}

Status SlabArena::CheckInvariants() const {
  uint64_t free = 0;
  std::vector<bool> covered(slab_count());
  for (int order = 0; order < kOrders; ++order) {
    uint32_t runs = 0;
    for (uint32_t first = heads_[order]; first != kNoSlab; first = slabs_[first].next) {
      const uint64_t size = uint64_t{1} << order;
      if (slabs_[first].free_order != order || first % size != 0 || first + size > slab_count()) {
        return absl::InternalError(absl::StrCat("arena: bad free run at slab ", first));
      }
      const uint64_t buddy = first ^ size;
      if (buddy < slab_count() && slabs_[buddy].free_order == order) {
        return absl::InternalError(absl::StrCat("arena: buddies not joined at slab ", first));
      }
      for (uint64_t i = first; i < first + size; ++i) {
        if (covered[i]) {
          return absl::InternalError(absl::StrCat("arena: slab ", i, " is free twice"));
        }
        covered[i] = true;
      }
      free += size;
      ++runs;
    }
    if (runs != free_runs_[order]) {
      return absl::InternalError(absl::StrCat("arena: wrong count of runs of order ", order));
    }
  }
  return free == free_slabs_ ? absl::OkStatus() : absl::InternalError("arena: wrong free_slabs");
}

}  // namespace tessera::kvcache
