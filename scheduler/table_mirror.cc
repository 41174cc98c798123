#include "scheduler/table_mirror.h"

#include <algorithm>
#include <span>

namespace tessera::scheduler {

Status TableMirror::Prepare(uint32_t slots, uint64_t entries) {
  if (memory_.host_addressable()) return absl::OkStatus();
  if (slots <= follows_.size() && entries <= entries_) return absl::OkStatus();
  entries_ = std::max(entries, entries_);
  const uint64_t count = entries_ * std::max<uint64_t>(slots, follows_.size());
  copies_.reset();
  TESSERA_ASSIGN_OR_RETURN(copies_, memory_.Allocate(count * sizeof(PageId), "page tables"));
  follows_.assign(std::max<size_t>(slots, follows_.size()), false);
  return absl::OkStatus();
}

StatusOr<const PageId*> TableMirror::Follow(kvcache::SequenceCache& cache, int32_t slot,
                                            size_t room,
                                            std::vector<kernels::TableUpdate>& updates) {
  if (copies_ == nullptr) return cache.table(0);
  uint32_t from = cache.TakeChangedFrom();
  if (!follows_[static_cast<size_t>(slot)]) from = 0;
  follows_[static_cast<size_t>(slot)] = true;
  const uint64_t begin = entries_ * static_cast<uint64_t>(slot);
  const uint32_t pages = cache.page_count();
  if (from < pages) {
    const size_t tables = cache.layout()->tables.size();
    if (updates.size() + tables * (pages - from) > room) {
      TESSERA_RETURN_IF_ERROR(WriteAll(cache, begin));
    } else {
      for (size_t table = 0; table < tables; ++table) {
        const PageId* own = cache.table(table);
        const uint64_t row = begin + table * cache.table_stride();
        for (uint32_t page = from; page < pages; ++page) {
          updates.push_back({.index = static_cast<uint32_t>(row + page), .page = own[page]});
        }
      }
    }
  }
  return base() + begin;
}

Status TableMirror::WriteAll(const kvcache::SequenceCache& cache, uint64_t begin) {
  const uint64_t count = cache.layout()->tables.size() * uint64_t{cache.table_stride()};
  return memory_.Write(std::as_bytes(std::span(cache.table(0), count)),
                       copies_->data() + begin * sizeof(PageId));
}

}  // namespace tessera::scheduler
