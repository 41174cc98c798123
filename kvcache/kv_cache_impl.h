// What KvCache keeps. Seen by its own .cc files only.
#pragma once

#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "kvcache/kv_cache.h"
#include "kvcache/page_pool.h"
#include "kvcache/prefix_index.h"
#include "kvcache/slab_arena.h"

namespace tessera::kvcache {

struct KvCache::Impl {
  Impl(std::unique_ptr<SlabArena> slabs, bool reuse)
      : arena(std::move(slabs)), pages(arena.get()), index(&pages), prefix_reuse(reuse) {}

  std::unique_ptr<SlabArena> arena;
  PageStore pages;
  PrefixIndex index;
  bool prefix_reuse;

  // The open transaction: sequences that grew, and how many pages each had before.
  struct Growth {
    SequenceCache* sequence;
    uint32_t pages_before;
  };
  bool in_transaction = false;
  std::vector<Growth> growths;

  uint64_t queried_tokens = 0;
  uint64_t hit_tokens = 0;

  [[nodiscard]] uint64_t AvailableBytes() const { return pages.FreeBytes() + pages.CachedBytes(); }
  // A page of the pool with one reference, evicting for it; invalid when there is none.
  [[nodiscard]] PageId Take(PagePool& pool);
  // Bytes of pages that `sequence` lacks to have `page_count` in every table.
  [[nodiscard]] static uint64_t MissingBytes(const SequenceCache& sequence, uint32_t page_count);
  // Gives `sequence` its pages from page_count() to `page_count`; false, without effect on it, when
  // pages run out.
  [[nodiscard]] bool AddPages(SequenceCache& sequence, uint32_t page_count);
  // Gives back the pages from `page_count` on that AddPages took.
  void DropPages(SequenceCache& sequence, uint32_t page_count);
  // Takes the longest run of found prefix pages.
  void TakePrefix(SequenceCache& sequence, std::span<const TokenId> tokens, uint32_t max_reused);
  // Publishes page `page` of every table, which holds `tokens`.
  void Publish(SequenceCache& sequence, uint32_t page, std::span<const TokenId> tokens,
               std::vector<SealedPage>* sealed);
  // Part of CheckInvariants.
  [[nodiscard]] Status CountReferences(const SequenceCache& sequence,
                                       absl::flat_hash_map<PageId, uint32_t>* references) const;
  // Whether page `page` of the table is sealed, so that AddPages does not provide it.
  [[nodiscard]] static bool Sealed(const SequenceCache& sequence, size_t table, uint32_t page) {
    return page < sequence.shared_tokens_[table] / kernels::kPageTokens;
  }
};

}  // namespace tessera::kvcache
