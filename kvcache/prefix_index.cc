#include "kvcache/prefix_index.h"

#include <algorithm>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "config/foundation/check.h"

namespace tessera::kvcache {
namespace {

auto LowerBound(const std::vector<IndexNode::Entry>& entries, const Digest& state) {
  return std::lower_bound(
      entries.begin(), entries.end(), state,
      [](const IndexNode::Entry& entry, const Digest& key) { return entry.state < key; });
}

PrefixIndex::KeyFunction Sha256Key() {
  return
      [hasher = std::make_shared<Hasher>()](const Digest& parent, std::span<const TokenId> tokens) {
        hasher->AddDigest(parent);
        hasher->AddBytes({reinterpret_cast<const uint8_t*>(tokens.data()), tokens.size_bytes()});
        return hasher->Finish();
      };
}

}  // namespace

PageId IndexNode::Find(const Digest& state) const {
  const auto found = LowerBound(entries, state);
  return found != entries.end() && found->state == state ? found->page : PageId();
}

PrefixIndex::PrefixIndex(PageStore* pages, KeyFunction key)
    : pages_(pages), key_(key != nullptr ? std::move(key) : Sha256Key()) {}

bool PrefixIndex::Matches(const IndexNode& node, const IndexNode* parent,
                          std::span<const TokenId> tokens) {
  return node.parent == parent && std::equal(tokens.begin(), tokens.end(), node.tokens.begin());
}

IndexNode* PrefixIndex::Find(const Digest& scope, IndexNode* parent,
                             std::span<const TokenId> tokens) const {
  TESSERA_CHECK(tokens.size() == kernels::kPageTokens);
  if (parent == nullptr) {
    const auto root = roots_.find(scope);
    if (root == roots_.end()) {
      return nullptr;
    }
    parent = root->second.get();
  }
  const auto found = nodes_.find(key_(parent->key, tokens));
  return found != nodes_.end() && Matches(*found->second, parent, tokens) ? found->second.get()
                                                                          : nullptr;
}

IndexNode* PrefixIndex::FindOrCreate(const Digest& scope, IndexNode* parent,
                                     std::span<const TokenId> tokens) {
  TESSERA_CHECK(tokens.size() == kernels::kPageTokens);
  const auto root = parent == nullptr ? roots_.find(scope) : roots_.end();
  if (root != roots_.end()) {
    parent = root->second.get();
  }
  const Digest key = key_(parent == nullptr ? scope : parent->key, tokens);
  const auto found = nodes_.find(key);
  if (found != nodes_.end()) {
    return Matches(*found->second, parent, tokens) ? found->second.get() : nullptr;
  }
  if (parent == nullptr) {
    auto made = std::make_unique<IndexNode>();
    made->key = scope;
    parent = made.get();
    roots_.emplace(scope, std::move(made));
  }
  auto node = std::make_unique<IndexNode>();
  node->parent = parent;
  node->key = key;
  std::copy(tokens.begin(), tokens.end(), node->tokens.begin());
  ++parent->children;
  return nodes_.emplace(key, std::move(node)).first->second.get();
}

PageId PrefixIndex::Publish(IndexNode* node, const Digest& state, PageId page) {
  const auto found = LowerBound(node->entries, state);
  if (found != node->entries.end() && found->state == state) {
    const PageId held = found->page;
    if (held != page) {
      AddReference(held);
      DropReference(page);
    }
    return held;
  }
  Page& own = pages_->Get(page);
  TESSERA_CHECK(own.node == nullptr && own.references != 0);
  own.node = node;
  node->entries.insert(found, {state, page});
  return page;
}

void PrefixIndex::AddReference(PageId id) {
  Page& page = pages_->Get(id);
  if (page.references++ == 0) {
    TESSERA_CHECK(page.node != nullptr);
    --pages_->PoolOf(id).cached_pages;
    if (--page.node->cached_pages == 0) {
      Unlink(page.node);
    }
  }
}

void PrefixIndex::DropReference(PageId id) {
  Page& page = pages_->Get(id);
  TESSERA_CHECK(page.references != 0);
  if (--page.references != 0) {
    return;
  }
  if (page.node == nullptr) {
    pages_->Free(id);
    return;
  }
  ++pages_->PoolOf(id).cached_pages;
  if (page.node->cached_pages++ == 0) {
    Link(page.node);
  }
}

void PrefixIndex::Touch(IndexNode* node) {
  if (node->cached_pages != 0 && node != newest_) {
    Unlink(node);
    Link(node);
  }
}

void PrefixIndex::Link(IndexNode* node) {
  node->newer = nullptr;
  node->older = newest_;
  (newest_ == nullptr ? oldest_ : newest_->newer) = node;
  newest_ = node;
}

void PrefixIndex::Unlink(IndexNode* node) {
  (node->older == nullptr ? oldest_ : node->older->newer) = node->newer;
  (node->newer == nullptr ? newest_ : node->newer->older) = node->older;
  node->older = nullptr;
  node->newer = nullptr;
}

bool PrefixIndex::EvictOldest() {
  IndexNode* node = oldest_;
  if (node == nullptr) {
    return false;
  }
  Unlink(node);
  evicted_pages_ += node->cached_pages;
  node->cached_pages = 0;
  std::erase_if(node->entries, [this](const IndexNode::Entry& entry) {
    Page& page = pages_->Get(entry.page);
    if (page.references != 0) {
      return false;
    }
    page.node = nullptr;
    --pages_->PoolOf(entry.page).cached_pages;
    pages_->Free(entry.page);
    return true;
  });
  if (node->entries.empty()) {
    Remove(node);
  }
  return true;
}

void PrefixIndex::Remove(IndexNode* node) {
  TESSERA_CHECK(node->children == 0);
  IndexNode* parent = node->parent;
  nodes_.erase(Digest(node->key));
  if (--parent->children == 0 && parent->parent == nullptr) {
    roots_.erase(Digest(parent->key));
  }
}

Status PrefixIndex::CheckNode(const IndexNode& node) const {
  uint32_t cached = 0;
  const Digest* previous = nullptr;
  for (const IndexNode::Entry& entry : node.entries) {
    const Page& page = pages_->Get(entry.page);
    if (page.node != &node || (previous != nullptr && !(*previous < entry.state))) {
      return absl::InternalError("index: an entry is out of order or its page is not the node's");
    }
    if (node.parent->parent != nullptr && !node.parent->Find(entry.state).valid()) {
      return absl::InternalError("index: a node has a state that its parent lacks");
    }
    cached += page.references == 0;
    previous = &entry.state;
  }
  if (cached != node.cached_pages || node.entries.empty()) {
    return absl::InternalError("index: a node is empty or miscounts its cached pages");
  }
  return absl::OkStatus();
}

Status PrefixIndex::CheckOrder() const {
  uint64_t with_cached = 0;
  for (const auto& [key, node] : nodes_) {
    with_cached += node->cached_pages != 0;
  }
  absl::flat_hash_set<const IndexNode*> seen;
  const IndexNode* previous = nullptr;
  for (const IndexNode* node = oldest_; node != nullptr; node = node->newer) {
    if (node->cached_pages == 0 || node->older != previous || !seen.insert(node).second) {
      return absl::InternalError("index: the eviction list is broken");
    }
    if (seen.contains(node->parent)) {
      return absl::InternalError("index: a parent would be evicted before its child");
    }
    previous = node;
  }
  return previous == newest_ && seen.size() == with_cached
             ? absl::OkStatus()
             : absl::InternalError("index: the eviction list misses a node");
}

Status PrefixIndex::CheckInvariants() const {
  absl::flat_hash_map<const IndexNode*, uint32_t> children;
  uint64_t entries = 0;
  for (const auto& [key, node] : nodes_) {
    if (node->key != key || node->parent == nullptr) {
      return absl::InternalError("index: a node is filed under another key");
    }
    TESSERA_RETURN_IF_ERROR(CheckNode(*node));
    ++children[node->parent];
    entries += node->entries.size();
  }
  for (const auto* map : {&roots_, &nodes_}) {
    for (const auto& [key, node] : *map) {
      if (node->children != children[node.get()] || (map == &roots_ && node->children == 0)) {
        return absl::InternalError("index: a node miscounts its children");
      }
    }
  }
  uint64_t published = 0;
  for (const auto& run : pages_->runs()) {
    for (uint32_t i = 0; run != nullptr && i < run->pool->shape.run_pages; ++i) {
      published += run->pages[i].node != nullptr;
    }
  }
  return published == entries ? CheckOrder()
                              : absl::InternalError("index: a published page is lost");
}

}  // namespace tessera::kvcache
