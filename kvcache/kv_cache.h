// The cache's face to the engine: page tables of sequences, transactional growth, prefix reuse, forks,
// eviction. One thread (the engine's) owns it; nothing here locks.
//
// Pages are owned by count: each table entry of a sequence and each prefix-index node holds one
// reference. A page is open while it has fewer than 64 committed tokens; it is sealed when the 64th is
// committed, and only then seen by the prefix index. A sealed page is never written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "config/foundation/ids.h"
#include "config/foundation/status.h"
#include "kvcache/state_spec.h"

namespace tessera::kvcache {

struct IndexNode;

// The cache state of one sequence: filled and read through KvCache, read directly by the step planner.
// Movable; must be given back with KvCache::Release before it dies.
class SequenceCache {
 public:
  SequenceCache() = default;
  SequenceCache(SequenceCache&&) = default;
  SequenceCache& operator=(SequenceCache&&) = default;

  [[nodiscard]] const CacheLayout* layout() const { return layout_; }
  // Pages of table `table`, in position order: page p holds tokens [64 p, 64 p + 64).
  [[nodiscard]] const PageId* table(size_t table) const { return pages_.data() + table * stride_; }
  [[nodiscard]] uint32_t page_count() const { return page_count_; }
  // Tokens of this table that lie in pages shared with others: computing them again must not write.
  [[nodiscard]] uint32_t shared_tokens(size_t table) const { return shared_tokens_[table]; }
  [[nodiscard]] uint32_t committed_tokens() const { return committed_tokens_; }

 private:
  friend class KvCache;
  const CacheLayout* layout_ = nullptr;
  std::vector<PageId> pages_;  // [tables, stride]
  uint32_t stride_ = 0;        // pages a table can hold: from max_tokens
  uint32_t page_count_ = 0;    // pages reserved, the same in every table
  std::vector<uint32_t> shared_tokens_;
  uint32_t committed_tokens_ = 0;
  Digest scope_;
  bool publishes_ = true;
  std::vector<IndexNode*> path_;  // index nodes of the sealed prefix, referenced
};

// What a sequence wants when it opens.
struct OpenOptions {
  std::shared_ptr<const CacheLayout> layout;  // must outlive the sequence (the chain keeps it)
  uint32_t max_tokens = 0;                    // that the sequence may ever hold
  Digest scope;                               // tenant's cache scope: no reuse across scopes
  std::span<const TokenId> tokens;            // known tokens: the prompt, or prompt and output after preemption
  // At most this many of `tokens` may come from the cache (the last must be computed for its logits).
  uint32_t max_reused_tokens = 0;
  enum class Reuse : uint8_t { kReadWrite, kPublishOnly, kNone } reuse = Reuse::kReadWrite;
};

struct CacheStats {
  uint64_t arena_bytes = 0;
  uint64_t used_bytes = 0;    // pages that a sequence references
  uint64_t cached_bytes = 0;  // pages that only the index references: evictable
  uint64_t free_bytes = 0;
  uint64_t prefix_queries_tokens = 0;
  uint64_t prefix_hits_tokens = 0;
  uint64_t evicted_pages = 0;
  uint64_t index_nodes = 0;
};

class KvCache {
 public:
  struct Options {
    uint64_t arena_bytes = 0;      // address space; memory is taken as pages are first written
    uint64_t slab_bytes = 1 << 20; // what a pool borrows from the arena at a time
    bool prefix_reuse = true;
  };
  // RESOURCE_EXHAUSTED when the address space cannot be reserved.
  [[nodiscard]] static StatusOr<std::unique_ptr<KvCache>> Create(const Options& options);
  ~KvCache();

  [[nodiscard]] std::byte* arena() const;
  // Whether `tokens` of one sequence fit an empty cache.
  [[nodiscard]] bool CanEverFit(const CacheLayout& layout, uint64_t tokens) const;

  // Opens a sequence and takes its longest reusable prefix: whole pages that every table has (counted in
  // committed_tokens()), then pages that only a lower run of tables has (shared_tokens()). Allocates host
  // memory for the tables; no pages.
  [[nodiscard]] SequenceCache Open(const OpenOptions& options);

  // Makes room for `tokens` tokens in all tables, evicting unreferenced prefixes of least recent use.
  // All or nothing: RESOURCE_EXHAUSTED leaves the sequence as it was. Part of the current transaction.
  [[nodiscard]] Status Grow(SequenceCache& sequence, uint32_t tokens);
  // Whether Grow would succeed for this many more bytes, counting what could be evicted. Cheap bound.
  [[nodiscard]] uint64_t AvailableBytes() const;

  // A step's reservations: Begin, Grow..., then Keep, or RollBack which gives back every page that Grow
  // took since Begin. One transaction at a time.
  void Begin();
  void Keep();
  void RollBack();

  // `tokens` (all tokens of the sequence so far, prompt and output) are computed and accepted: seals full pages and
  // publishes them. Newly sealed pages are appended to `sealed` (table, page) for key statistics.
  struct SealedPage {
    uint32_t table;
    PageId page;
  };
  void Commit(SequenceCache& sequence, std::span<const TokenId> tokens,
              std::vector<SealedPage>* sealed);

  // A copy that shares sealed pages and copies open ones; `copy(from, to, bytes)` moves page bytes.
  // RESOURCE_EXHAUSTED without effect.
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
