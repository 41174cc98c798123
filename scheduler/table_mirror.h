// Page tables as kernels read them: the cache's own where kernels share the host's memory, copies
// that follow them where not.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "config/foundation/status.h"
#include "kernels/memory.h"
#include "kernels/ops/step_tables.h"
#include "kvcache/kv_cache.h"

namespace tessera::scheduler {

// Engine thread. A sequence has a slot while it runs (Sequence::slot).
class TableMirror {
 public:
  explicit TableMirror(kernels::Memory& memory) : memory_(memory) {}

  // Room for `slots` sequences whose tables hold `entries` pages in all. Forgets what it had when
  // that grows. RESOURCE_EXHAUSTED when the memory is short.
  [[nodiscard]] Status Prepare(uint32_t slots, uint64_t entries);
  [[nodiscard]] bool copies() const { return copies_ != nullptr; }
  // Entry 0 of all slots; null without copies.
  [[nodiscard]] PageId* base() const {
    return copies_ == nullptr ? nullptr : reinterpret_cast<PageId*>(copies_->data());
  }

  // Where kernels find table 0 of `cache`, once `updates` have been applied to base(): appends what
  // changed since the last call for this sequence. More than `room` entries are written at once
  // instead.
  [[nodiscard]] StatusOr<const PageId*> Follow(kvcache::SequenceCache& cache, int32_t slot,
                                               size_t room,
                                               std::vector<kernels::TableUpdate>& updates);

 private:
  Status WriteAll(const kvcache::SequenceCache& cache, uint64_t begin);

  kernels::Memory& memory_;
  std::shared_ptr<kernels::Buffer> copies_;
  uint64_t entries_ = 0;       // of a slot
  std::vector<bool> follows_;  // [slots] since the copies were made
};

}  // namespace tessera::scheduler
