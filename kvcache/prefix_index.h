// Which published pages hold which prefix: a tree of pages of tokens for each scope.
//
// A node stands for 64 tokens after its parent's. Its key is SHA-256(parent's key, tokens), the
// root's key being the scope, so tokens are hashed once however many blocks publish; a match also
// compares parent and tokens, so equal keys alone never share. A node maps state digests to pages.
//
// Invariants: a node has at least one page; every digest of a node is also in its parent (a prefix
// that ends is never resumed further on), so evicting in order of last use, children before
// parents, never strands a page. A node is listed for eviction while it has a page that no sequence
// references. One thread.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "config/foundation/digest.h"
#include "config/foundation/ids.h"
#include "config/foundation/status.h"
#include "kernels/ops/kv_page.h"
#include "kvcache/page_pool.h"

namespace tessera::kvcache {

struct IndexNode {
  struct Entry {
    Digest state;
    PageId page;
  };

  IndexNode* parent = nullptr;  // null for the root of a scope, which has no tokens and no pages
  Digest key;
  std::array<TokenId, kernels::kPageTokens> tokens{};
  std::vector<Entry> entries;  // ascending by state
  uint32_t children = 0;
  uint32_t cached_pages = 0;   // of entries, that no sequence references
  IndexNode* older = nullptr;  // eviction order, while cached_pages != 0
  IndexNode* newer = nullptr;

  // The page of this state, or an invalid id.
  [[nodiscard]] PageId Find(const Digest& state) const;
};

class PrefixIndex {
 public:
  // Key of the node that has `tokens` (64 of them) after the node with key `parent`.
  using KeyFunction = std::function<Digest(const Digest& parent, std::span<const TokenId> tokens)>;

  // `pages` outlives the index. An empty `key` means SHA-256.
  explicit PrefixIndex(PageStore* pages, KeyFunction key = nullptr);

  // The node of `tokens` (64 of them) after `parent` (null: at the start of `scope`), or null.
  [[nodiscard]] IndexNode* Find(const Digest& scope, IndexNode* parent,
                                std::span<const TokenId> tokens) const;
  // The same, made when missing; the caller publishes into it at once. Null when another prefix has
  // the key.
  [[nodiscard]] IndexNode* FindOrCreate(const Digest& scope, IndexNode* parent,
                                        std::span<const TokenId> tokens);

  // Trades the caller's reference on `page` (private) for one on the page which `node` holds for
  // `state`, and returns that page: `page` itself when the node had none, else the node's, and
  // `page` is freed.
  [[nodiscard]] PageId Publish(IndexNode* node, const Digest& state, PageId page);

  // A sequence's table entry takes or leaves a page. A page without references stays cached if
  // published, most recently used, and is freed otherwise.
  void AddReference(PageId page);
  void DropReference(PageId page);
  // Marks a node as used now. Callers touch a path from its end to its start.
  void Touch(IndexNode* node);

  // Frees the unreferenced pages of the least recently used node; false when there is none.
  bool EvictOldest();

  [[nodiscard]] uint64_t evicted_pages() const { return evicted_pages_; }
  [[nodiscard]] uint64_t nodes() const { return nodes_.size(); }
  // Links, order, counts and the header's invariants, by brute force; for tests.
  [[nodiscard]] Status CheckInvariants() const;

 private:
  [[nodiscard]] static bool Matches(const IndexNode& node, const IndexNode* parent,
                                    std::span<const TokenId> tokens);
  void Link(IndexNode* node);
  void Unlink(IndexNode* node);
  void Remove(IndexNode* node);
  [[nodiscard]] Status CheckNode(const IndexNode& node) const;
  [[nodiscard]] Status CheckOrder() const;

  PageStore* pages_;
  KeyFunction key_;
  absl::flat_hash_map<Digest, std::unique_ptr<IndexNode>> roots_;  // by scope
  absl::flat_hash_map<Digest, std::unique_ptr<IndexNode>> nodes_;  // by key
  IndexNode* oldest_ = nullptr;
  IndexNode* newest_ = nullptr;
  uint64_t evicted_pages_ = 0;
};

}  // namespace tessera::kvcache
