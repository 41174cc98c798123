#include "kvcache/page_pool.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "config/foundation/check.h"
#include "kernels/ops/kv_page.h"

namespace tessera::kvcache {

RunShape RunShape::Choose(const SlabArena& arena, uint64_t page_bytes) {
  const auto run_pages = [&](int order) { return (arena.slab_bytes() << order) / page_bytes; };
  const auto capacity = [&](int order) { return (arena.slab_count() >> order) * run_pages(order); };
  uint64_t best = 0;
  for (int order = 0; arena.slab_count() >> order != 0; ++order) {
    best = std::max(best, capacity(order));
  }
  if (best == 0) {
    return {};
  }
  int order = 0;
  while (capacity(order) < best - best / 16) {
    ++order;
  }
  return {.order = order, .run_pages = static_cast<uint32_t>(run_pages(order))};
}

PageStore::PageStore(SlabArena* arena)
    : arena_(arena), runs_(arena->slab_count()), run_of_slab_(arena->slab_count()) {}

PagePool& PageStore::PoolFor(uint64_t page_bytes) {
  for (const auto& pool : pools_) {
    if (pool->page_bytes == page_bytes) {
      return *pool;
    }
  }
  TESSERA_CHECK(page_bytes != 0 && page_bytes % kernels::kPageUnitBytes == 0);
  auto pool = std::make_unique<PagePool>();
  pool->page_bytes = page_bytes;
  pool->shape = RunShape::Choose(*arena_, page_bytes);
  return *pools_.emplace_back(std::move(pool));
}

PageStore::Place PageStore::Locate(PageId page) const {
  const uint64_t offset = uint64_t{page.value} * kernels::kPageUnitBytes;
  PageRun* run = run_of_slab_[arena_->SlabOf(offset)];
  const uint64_t in_run = offset - run->first_slab * arena_->slab_bytes();
  return {run, static_cast<uint32_t>(in_run / run->pool->page_bytes)};
}

PageId PageStore::IdOf(const PageRun& run, uint32_t index) const {
  const uint64_t offset = run.first_slab * arena_->slab_bytes() + index * run.pool->page_bytes;
  return PageId(static_cast<uint32_t>(offset / kernels::kPageUnitBytes));
}

void PageStore::LinkPartial(PageRun* run) {
  run->previous = nullptr;
  run->next = run->pool->partial;
  if (run->next != nullptr) {
    run->next->previous = run;
  }
  run->pool->partial = run;
}

void PageStore::UnlinkPartial(PageRun* run) {
  (run->previous == nullptr ? run->pool->partial : run->previous->next) = run->next;
  if (run->next != nullptr) {
    run->next->previous = run->previous;
  }
}

PageRun* PageStore::BorrowRun(PagePool& pool) {
  if (pool.shape.run_pages == 0) {
    return nullptr;
  }
  const uint32_t first = arena_->Borrow(pool.shape.order);
  if (first == SlabArena::kNoSlab) {
    return nullptr;
  }
  auto run = std::make_unique<PageRun>();
  run->pool = &pool;
  run->first_slab = first;
  run->pages = std::make_unique<Page[]>(pool.shape.run_pages);
  for (uint32_t i = 0; i < pool.shape.run_pages; ++i) {
    run->pages[i].next_free = i + 1;
  }
  std::fill_n(run_of_slab_.begin() + first, size_t{1} << pool.shape.order, run.get());
  ++pool.runs;
  pool.free_pages += pool.shape.run_pages;
  LinkPartial(run.get());
  runs_[first] = std::move(run);
  return runs_[first].get();
}

void PageStore::ReturnRun(PageRun* run) {
  PagePool& pool = *run->pool;
  const uint32_t first = run->first_slab;
  UnlinkPartial(run);
  --pool.runs;
  pool.free_pages -= pool.shape.run_pages;
  std::fill_n(run_of_slab_.begin() + first, size_t{1} << pool.shape.order, nullptr);
  arena_->Return(first, pool.shape.order);
  runs_[first].reset();
}

PageId PageStore::Allocate(PagePool& pool) {
  PageRun* run = pool.partial != nullptr ? pool.partial : BorrowRun(pool);
  if (run == nullptr) {
    return PageId();
  }
  const uint32_t index = run->first_free;
  Page& page = run->pages[index];
  run->first_free = page.next_free;
  page.references = 1;
  ++run->used;
  --pool.free_pages;
  if (run->used == pool.shape.run_pages) {
    UnlinkPartial(run);
  }
  return IdOf(*run, index);
}

void PageStore::Free(PageId id) {
  const auto [run, index] = Locate(id);
  Page& page = run->pages[index];
  TESSERA_CHECK(page.references == 0 && page.node == nullptr && run->used != 0);
  page.next_free = run->first_free;
  run->first_free = index;
  ++run->pool->free_pages;
  if (run->used == run->pool->shape.run_pages) {
    LinkPartial(run);
  }
  if (--run->used == 0) {
    ReturnRun(run);
  }
}

uint64_t PageStore::FreeBytes() const {
  uint64_t free = 0;
  uint64_t yield = uint64_t{arena_->free_slabs()} * arena_->slab_bytes();
  for (const auto& pool : pools_) {
    free += pool->free_pages * pool->page_bytes;
    if (pool->runs != 0 || (pools_.size() == 1 && pool->shape.run_pages != 0)) {
      yield = std::min(
          yield, arena_->FreeRuns(pool->shape.order) * pool->shape.run_pages * pool->page_bytes);
    }
  }
  return free + yield;
}

uint64_t PageStore::CachedBytes() const {
  uint64_t bytes = 0;
  for (const auto& pool : pools_) {
    bytes += pool->cached_pages * pool->page_bytes;
  }
  return bytes;
}

uint64_t PageStore::UsedBytes() const {
  uint64_t bytes = 0;
  for (const auto& pool : pools_) {
    const uint64_t pages = pool->runs * pool->shape.run_pages;
    bytes += (pages - pool->free_pages - pool->cached_pages) * pool->page_bytes;
  }
  return bytes;
}

Status PageStore::CheckInvariants() const {
  TESSERA_RETURN_IF_ERROR(arena_->CheckInvariants());
  uint64_t lent = 0;
  for (const auto& pool : pools_) {
    uint64_t runs = 0;
    uint64_t free = 0;
    uint64_t cached = 0;
    for (const auto& run : runs_) {
      if (run == nullptr || run->pool != pool.get()) {
        continue;
      }
      ++runs;
      uint32_t listed = 0;
      for (uint32_t i = run->first_free; i < pool->shape.run_pages; ++listed) {
        if (run->pages[i].references != 0 || run->pages[i].node != nullptr) {
          return absl::InternalError("pool: a page in use is on the free list");
        }
        i = run->pages[i].next_free;
      }
      uint32_t unowned = 0;
      for (uint32_t i = 0; i < pool->shape.run_pages; ++i) {
        const Page& page = run->pages[i];
        unowned += page.references == 0 && page.node == nullptr;
        cached += page.references == 0 && page.node != nullptr;
      }
      if (listed != unowned || listed + run->used != pool->shape.run_pages || run->used == 0) {
        return absl::InternalError(
            absl::StrCat("pool: run at slab ", run->first_slab, " lost or kept a page"));
      }
      free += listed;
    }
    lent += runs << pool->shape.order;
    if (runs != pool->runs || free != pool->free_pages || cached != pool->cached_pages) {
      return absl::InternalError(
          absl::StrCat("pool of ", pool->page_bytes, " bytes: wrong counts"));
    }
  }
  return lent + arena_->free_slabs() == arena_->slab_count()
             ? absl::OkStatus()
             : absl::InternalError("pools: slabs lost");
}

}  // namespace tessera::kvcache
