// The cache's face to the engine: page tables of sequences, transactional growth, prefix reuse,
// forks, eviction. One thread (the engine's) owns it; nothing here locks.
//
// Pages are owned by count: each table entry of a sequence and each prefix-index node holds one
// reference. A page is open while it has fewer than 64 committed tokens; it is sealed when the 64th
// is committed, and only then seen by the prefix index. A sealed page is never written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "config/foundation/fetching.h"
#include "config/foundation/ids.h"
#include "config/foundation/status.h"
#include "kernels/memory.h"
#include "kvcache/state_spec.h"

namespace tessera::kvcache {

struct IndexNode;

// The cache state of one sequence: filled and read through KvCache, read directly by the step
// planner. Movable, which leaves the source empty, but not between Begin and Keep or RollBack of a
// transaction that grew it; must be given back with KvCache::Release before it dies.
class SequenceCache {
 public:
  SequenceCache() = default;
  SequenceCache(SequenceCache&& other) noexcept { *this = std::move(other); }
  // The target must be empty.
  SequenceCache& operator=(SequenceCache&& other) noexcept;

  // Null when empty.
  [[nodiscard]] const CacheLayout* layout() const { return layout_.get(); }
  // Pages of table `table`, in position order: page p holds tokens [64 p, 64 p + 64).
  [[nodiscard]] const PageId* table(size_t table) const { return pages_.data() + table * stride_; }
  [[nodiscard]] uint32_t table_stride() const { return stride_; }  // pages to the next table
  [[nodiscard]] uint32_t page_count() const { return page_count_; }
  // Tokens of this table, from the start, that lie in sealed pages: computing them again must not
  // write. A multiple of 64, at least committed_tokens() rounded down; may exceed it (a partial
  // prefix hit).
  [[nodiscard]] uint32_t shared_tokens(size_t table) const { return shared_tokens_[table]; }
  [[nodiscard]] uint32_t committed_tokens() const { return committed_tokens_; }
  // First page whose entry has changed in some table since the last call; page_count() or more when
  // none has. For who keeps copies of the tables.
  [[nodiscard]] uint32_t TakeChangedFrom() { return std::exchange(changed_from_, UINT32_MAX); }
  // Begins to bring the tables near: for one who is about to read those of many sequences.
  TESSERA_FETCHING void Prefetch() const {
    __builtin_prefetch(pages_.data());
    __builtin_prefetch(shared_tokens_.data());
  }

 private:
  friend class KvCache;
  std::shared_ptr<const CacheLayout> layout_;
  std::vector<PageId> pages_;  // [tables, stride]; invalid where no page is
  uint32_t stride_ = 0;        // pages a table can hold: from max_tokens
  uint32_t page_count_ = 0;    // pages reserved, the same in every table
  std::vector<uint32_t> shared_tokens_;
  uint32_t committed_tokens_ = 0;
  uint32_t changed_from_ = 0;
  Digest scope_;
  bool publishes_ = true;
  uint32_t published_tokens_ = UINT32_MAX;  // pages past them stay the sequence's own
  // Index nodes of the pages that are published or were found; each is kept by a page of a table.
  std::vector<IndexNode*> path_;
};

// What a sequence wants when it opens.
struct OpenOptions {
  std::shared_ptr<const CacheLayout>
      layout;               // valid (CacheLayout::Validate); the sequence keeps it
  uint32_t max_tokens = 0;  // that the sequence may ever hold
  Digest scope;             // tenant's cache scope: no reuse across scopes
  std::span<const TokenId>
      tokens;  // known tokens: the prompt, or prompt and output after preemption
  // At most this many of `tokens` need no computing, that is, may be committed at once (the last
  // must be computed for its logits). Pages beyond it are still shared where they exist, see
  // shared_tokens().
  uint32_t max_reused_tokens = 0;
  // Pages that hold tokens past these are not published.
  uint32_t max_published_tokens = UINT32_MAX;
  enum class Reuse : uint8_t { kReadWrite, kPublishOnly, kNone } reuse = Reuse::kReadWrite;
};

struct CacheStats {
  uint64_t arena_bytes = 0;
  uint64_t used_bytes = 0;    // pages that a sequence references
  uint64_t cached_bytes = 0;  // pages that only the index references: evictable
  uint64_t free_bytes = 0;    // in free pages and slabs, less what no page can use
  uint64_t prefix_queries_tokens = 0;
  uint64_t prefix_hits_tokens = 0;
  uint64_t evicted_pages = 0;
  uint64_t index_nodes = 0;
};

class KvCache {
 public:
  struct Options {
    uint64_t arena_bytes = 0;
    // What a pool borrows at a time, rounded up to a power of two; runs of slabs for larger pages.
    uint64_t slab_bytes = 1 << 20;
    bool prefix_reuse = true;
    kernels::Memory* memory = nullptr;  // null: the host's
  };
  // RESOURCE_EXHAUSTED when the memory has no room, INVALID_ARGUMENT when it holds no
  // slab or passes 2 TiB.
  [[nodiscard]] static StatusOr<std::unique_ptr<KvCache>> Create(const Options& options);
  ~KvCache();

  [[nodiscard]] std::byte* arena() const;
  // Whether `tokens` of one sequence fit an empty cache. Exact. A sequence whose tables have one
  // page size can then always grow that far when no other sequence holds pages; with several sizes
  // its own pages may be spread over slabs, and releasing and opening it again gathers them.
  [[nodiscard]] bool CanEverFit(const CacheLayout& layout, uint64_t tokens) const;

  // Opens a sequence and takes its longest reusable prefix: whole pages that every table has
  // (counted in committed_tokens()), then pages that only a lower run of tables has
  // (shared_tokens()). Allocates host memory for the tables; no pages.
  [[nodiscard]] SequenceCache Open(const OpenOptions& options);

  // Makes room for `tokens` tokens in all tables, evicting unreferenced prefixes of least recent
  // use. `tokens` must not exceed max_tokens. All or nothing: RESOURCE_EXHAUSTED leaves the
  // sequence as it was. Part of the current transaction, if one is open. Within the last page:
  // O(1), no allocation.
  [[nodiscard]] Status Grow(SequenceCache& sequence, uint32_t tokens);
  // How many bytes of pages could be taken, counting what could be evicted. Cheap. Exact while
  // pages have one size; with several sizes in use it counts every pool's free pages, which only
  // that size can use.
  [[nodiscard]] uint64_t AvailableBytes() const;

  // A step's reservations: Begin, Grow..., then Keep, or RollBack which gives back every page that
  // Grow took since Begin. One transaction at a time. What was evicted stays so. A sequence
  // released meanwhile leaves the transaction; Open and Fork are not part of it.
  void Begin();
  void Keep();
  void RollBack();

  // `tokens` (all tokens of the sequence so far, prompt and output) are computed and accepted:
  // seals full pages and publishes them. Where an equal page is published already the table takes
  // that one, so page ids of a sealed page may change here. Newly sealed pages are appended to
  // `sealed` (may be null) for key statistics. Without a newly full page: O(1), no allocation.
  struct SealedPage {
    uint32_t table;
    PageId page;
  };
  void Commit(SequenceCache& sequence, std::span<const TokenId> tokens,
              std::vector<SealedPage>* sealed);

  // A copy that shares sealed pages and copies open ones; `copy(from, to, bytes)` moves page bytes.
  // Open pages without committed tokens are only reserved. RESOURCE_EXHAUSTED without effect.
  using CopyPage = std::function<void(PageId from, PageId to, uint64_t bytes)>;
  [[nodiscard]] StatusOr<SequenceCache> Fork(const SequenceCache& sequence, const CopyPage& copy);

  // Gives back everything; published pages stay reusable until evicted. The sequence becomes empty.
  void Release(SequenceCache& sequence);

  // Forgets every cached prefix that no sequence uses.
  void DropUnusedPrefixes();

  [[nodiscard]] CacheStats stats() const;
  // Checks every invariant (page counts, free lists, index links) by brute force; for tests.
  [[nodiscard]] Status CheckInvariants(std::span<const SequenceCache* const> sequences) const;

 private:
  struct Impl;
  explicit KvCache(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tessera::kvcache
