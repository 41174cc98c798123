// Pages of each size, cut from runs of slabs. A pool borrows a run when it has no free page and
// returns it as soon as all of the run's pages are free. One thread.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "config/foundation/ids.h"
#include "config/foundation/status.h"
#include "kvcache/slab_arena.h"

namespace tessera::kvcache {

struct IndexNode;
struct PageRun;

// What the cache knows about a page. Free: no references and no node.
struct Page {
  uint32_t references = 0;    // table entries of sequences
  uint32_t next_free = 0;     // in its run, while free
  IndexNode* node = nullptr;  // that publishes it: keeps it alive without references
};

// How pages of one size lie in slabs.
struct RunShape {
  int order = 0;           // a run has 2^order slabs
  uint32_t run_pages = 0;  // pages in a run; 0 when a page does not fit the whole arena

  // The smallest run that wastes at most a sixteenth of what the best one makes of this arena.
  [[nodiscard]] static RunShape Choose(const SlabArena& arena, uint64_t page_bytes);
};

// The pages of one size. Made and changed by PageStore.
struct PagePool {
  uint64_t page_bytes = 0;
  RunShape shape;
  PageRun* partial = nullptr;  // runs with a free page
  uint64_t runs = 0;
  uint64_t free_pages = 0;    // in borrowed runs
  uint64_t cached_pages = 0;  // without references, kept by a node
};

// Slabs lent to a pool.
struct PageRun {
  PagePool* pool = nullptr;
  uint32_t first_slab = 0;
  uint32_t used = 0;
  uint32_t first_free = 0;  // index of a free page; run_pages when there is none
  PageRun* previous = nullptr;
  PageRun* next = nullptr;
  std::unique_ptr<Page[]> pages;
};

class PageStore {
 public:
  // `arena` outlives the store.
  explicit PageStore(SlabArena* arena);

  // The pool of pages of this size (a multiple of kPageUnitBytes, not 0), made on first use.
  [[nodiscard]] PagePool& PoolFor(uint64_t page_bytes);
  // A page with one reference and no node; invalid when the pool and the arena have none left.
  [[nodiscard]] PageId Allocate(PagePool& pool);
  // Takes back a page that has no references and no node.
  void Free(PageId page);

  [[nodiscard]] Page& Get(PageId page) {
    const Place place = Locate(page);
    return place.run->pages[place.index];
  }
  [[nodiscard]] const Page& Get(PageId page) const {
    return const_cast<PageStore*>(this)->Get(page);
  }
  [[nodiscard]] PagePool& PoolOf(PageId page) { return *Locate(page).run->pool; }

  [[nodiscard]] const std::vector<std::unique_ptr<PagePool>>& pools() const { return pools_; }
  [[nodiscard]] const std::vector<std::unique_ptr<PageRun>>& runs() const { return runs_; }
  // The page at `index` of `run`.
  [[nodiscard]] PageId IdOf(const PageRun& run, uint32_t index) const;

  // Bytes of free pages, and of pages that free slabs would make (of the page size that yields
  // least among those in use).
  [[nodiscard]] uint64_t FreeBytes() const;
  [[nodiscard]] uint64_t CachedBytes() const;
  [[nodiscard]] uint64_t UsedBytes() const;

  // Free lists and counts against the pages, by brute force; for tests.
  [[nodiscard]] Status CheckInvariants() const;

 private:
  struct Place {
    PageRun* run;
    uint32_t index;
  };
  [[nodiscard]] Place Locate(PageId page) const;
  [[nodiscard]] PageRun* BorrowRun(PagePool& pool);
  void ReturnRun(PageRun* run);
  static void LinkPartial(PageRun* run);
  static void UnlinkPartial(PageRun* run);

  SlabArena* arena_;
  std::vector<std::unique_ptr<PagePool>> pools_;  // few
  std::vector<std::unique_ptr<PageRun>> runs_;    // [slabs], set at a run's first slab
  std::vector<PageRun*> run_of_slab_;             // [slabs]
};

}  // namespace tessera::kvcache
