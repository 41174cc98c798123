#include "kvcache/kv_cache.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "config/foundation/check.h"
#include "kvcache/kv_cache_impl.h"

namespace tessera::kvcache {
namespace {

using kernels::kPageTokens;

// Enough for every sequence of a step; more only cost a reallocation.
constexpr size_t kUsualGrowths = 1024;

uint32_t PagesFor(uint64_t tokens) {
  return static_cast<uint32_t>((tokens + kPageTokens - 1) / kPageTokens);
}

Status OutOfPages(uint64_t wanted, uint64_t available) {
  return absl::ResourceExhaustedError(
      absl::StrCat("the cache has ", available, " bytes for ", wanted, " bytes of pages"));
}

}  // namespace

SequenceCache& SequenceCache::operator=(SequenceCache&& other) noexcept {
  TESSERA_CHECK(layout_ == nullptr || this == &other);
  layout_ = std::move(other.layout_);
  pages_ = std::move(other.pages_);
  stride_ = std::exchange(other.stride_, 0);
  page_count_ = std::exchange(other.page_count_, 0);
  shared_tokens_ = std::move(other.shared_tokens_);
  committed_tokens_ = std::exchange(other.committed_tokens_, 0);
  changed_from_ = other.changed_from_;
  scope_ = other.scope_;
  publishes_ = other.publishes_;
  published_tokens_ = other.published_tokens_;
  path_ = std::move(other.path_);
  return *this;
}

KvCache::KvCache(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
KvCache::~KvCache() = default;

StatusOr<std::unique_ptr<KvCache>> KvCache::Create(const Options& options) {
  kernels::Memory& memory = options.memory != nullptr ? *options.memory : kernels::HostMemory();
  TESSERA_ASSIGN_OR_RETURN(auto arena,
                           SlabArena::Create(options.arena_bytes, options.slab_bytes, memory));
  auto impl = std::make_unique<Impl>(std::move(arena), options.prefix_reuse);
  impl->growths.reserve(kUsualGrowths);
  return std::unique_ptr<KvCache>(new KvCache(std::move(impl)));
}

std::byte* KvCache::arena() const { return impl_->arena->base(); }

bool KvCache::CanEverFit(const CacheLayout& layout, uint64_t tokens) const {
  const SlabArena& arena = *impl_->arena;
  // Rules out overflow below: no page is smaller than a unit.
  if (tokens / kPageTokens > arena.bytes() / kernels::kPageUnitBytes) {
    return tokens == 0 || layout.tables.empty();
  }
  std::vector<std::pair<uint64_t, uint64_t>> pages_of_size;
  for (const TableSpec& table : layout.tables) {
    const uint64_t size = table.state.format.page_bytes();
    auto found = std::find_if(pages_of_size.begin(), pages_of_size.end(),
                              [size](const auto& entry) { return entry.first == size; });
    if (found == pages_of_size.end()) {
      found = pages_of_size.insert(found, {size, 0});
    }
    found->second += PagesFor(tokens);
  }
  uint64_t slabs = 0;
  for (const auto& [size, pages] : pages_of_size) {
    const RunShape shape = RunShape::Choose(arena, size);
    if (pages != 0 && shape.run_pages == 0) {
      return false;
    }
    slabs += pages == 0 ? 0 : ((pages + shape.run_pages - 1) / shape.run_pages) << shape.order;
  }
  return slabs <= arena.slab_count();
}

SequenceCache KvCache::Open(const OpenOptions& options) {
  TESSERA_CHECK(options.layout != nullptr);
  TESSERA_DCHECK(options.layout->Validate().ok());
  const size_t tables = options.layout->tables.size();
  SequenceCache sequence;
  sequence.layout_ = options.layout;
  sequence.stride_ = PagesFor(options.max_tokens);
  sequence.pages_.resize(tables * sequence.stride_);
  sequence.shared_tokens_.resize(tables);
  sequence.scope_ = options.scope;
  sequence.published_tokens_ = options.max_published_tokens;
  sequence.publishes_ =
      impl_->prefix_reuse && tables != 0 && options.reuse != OpenOptions::Reuse::kNone;
  if (sequence.publishes_) {
    sequence.path_.reserve(sequence.stride_);
    if (options.reuse == OpenOptions::Reuse::kReadWrite) {
      impl_->TakePrefix(sequence, options.tokens, options.max_reused_tokens);
    }
  }
  return sequence;
}

void KvCache::Impl::TakePrefix(SequenceCache& sequence, std::span<const TokenId> tokens,
                               uint32_t max_reused) {
  const std::vector<TableSpec>& tables = sequence.layout_->tables;
  const size_t pages = std::min<size_t>(tokens.size() / kPageTokens, sequence.stride_);
  size_t run = tables.size();  // tables, from the first, that have every page so far
  uint32_t whole = 0;
  IndexNode* node = nullptr;
  for (uint32_t page = 0; page < pages; ++page) {
    node = index.Find(sequence.scope_, node, tokens.subspan(page * kPageTokens, kPageTokens));
    size_t found = 0;
    for (; node != nullptr && found < run; ++found) {
      const PageId id = node->Find(tables[found].state_digest);
      if (!id.valid()) {
        break;
      }
      this->index.AddReference(id);
      sequence.pages_[found * sequence.stride_ + page] = id;
      sequence.shared_tokens_[found] = (page + 1) * kPageTokens;
    }
    run = found;
    if (run == 0) {
      break;
    }
    sequence.path_.push_back(node);
    whole += run == tables.size() && (page + 1) * kPageTokens <= max_reused;
  }
  for (size_t i = sequence.path_.size(); i-- > 0;) {
    index.Touch(sequence.path_[i]);
  }
  sequence.page_count_ = whole;
  sequence.committed_tokens_ = whole * kPageTokens;
  queried_tokens += tokens.size();
  hit_tokens += sequence.committed_tokens_;
}

PageId KvCache::Impl::Take(PagePool& pool) {
  PageId page = pages.Allocate(pool);
  while (!page.valid() && index.EvictOldest()) {
    page = pages.Allocate(pool);
  }
  return page;
}

uint64_t KvCache::Impl::MissingBytes(const SequenceCache& sequence, uint32_t page_count) {
  uint64_t bytes = 0;
  for (size_t t = 0; t < sequence.shared_tokens_.size(); ++t) {
    const uint32_t have = std::max(sequence.page_count_, sequence.shared_tokens_[t] / kPageTokens);
    if (page_count > have) {
      bytes += (page_count - have) * sequence.layout_->tables[t].state.format.page_bytes();
    }
  }
  return bytes;
}

bool KvCache::Impl::AddPages(SequenceCache& sequence, uint32_t page_count) {
  const std::vector<TableSpec>& tables = sequence.layout_->tables;
  const uint32_t before = sequence.page_count_;
  sequence.page_count_ = page_count;
  sequence.changed_from_ = std::min(sequence.changed_from_, before);
  for (uint32_t page = before; page < page_count; ++page) {
    for (size_t t = 0; t < tables.size(); ++t) {
      if (Sealed(sequence, t, page)) {
        continue;
      }
      const PageId id = Take(pages.PoolFor(tables[t].state.format.page_bytes()));
      if (!id.valid()) {
        DropPages(sequence, before);
        return false;
      }
      sequence.pages_[t * sequence.stride_ + page] = id;
    }
  }
  return true;
}

void KvCache::Impl::DropPages(SequenceCache& sequence, uint32_t page_count) {
  for (uint32_t page = page_count; page < sequence.page_count_; ++page) {
    for (size_t t = 0; t < sequence.shared_tokens_.size(); ++t) {
      PageId& id = sequence.pages_[t * sequence.stride_ + page];
      if (id.valid() && !Sealed(sequence, t, page)) {
        index.DropReference(std::exchange(id, PageId()));
      }
    }
  }
  sequence.page_count_ = page_count;
}

Status KvCache::Grow(SequenceCache& sequence, uint32_t tokens) {
  const uint32_t page_count = PagesFor(tokens);
  if (page_count <= sequence.page_count_) {
    return absl::OkStatus();
  }
  TESSERA_CHECK(page_count <= sequence.stride_);
  const uint64_t wanted = Impl::MissingBytes(sequence, page_count);
  const uint64_t available = impl_->AvailableBytes();
  const uint32_t before = sequence.page_count_;
  // Asked first, so that a request which cannot succeed evicts nothing.
  if (wanted > available || !impl_->AddPages(sequence, page_count)) {
    return OutOfPages(wanted, available);
  }
  if (impl_->in_transaction) {
    impl_->growths.push_back({&sequence, before});
  }
  return absl::OkStatus();
}

uint64_t KvCache::AvailableBytes() const { return impl_->AvailableBytes(); }

void KvCache::Begin() {
  TESSERA_CHECK(!impl_->in_transaction);
  impl_->in_transaction = true;
}

void KvCache::Keep() {
  TESSERA_CHECK(impl_->in_transaction);
  impl_->in_transaction = false;
  impl_->growths.clear();
}

void KvCache::RollBack() {
  TESSERA_CHECK(impl_->in_transaction);
  for (auto growth = impl_->growths.rbegin(); growth != impl_->growths.rend(); ++growth) {
    TESSERA_CHECK(PagesFor(growth->sequence->committed_tokens_) <= growth->pages_before);
    impl_->DropPages(*growth->sequence, growth->pages_before);
  }
  Keep();
}

void KvCache::Commit(SequenceCache& sequence, std::span<const TokenId> tokens,
                     std::vector<SealedPage>* sealed) {
  TESSERA_CHECK(tokens.size() >= sequence.committed_tokens_);
  TESSERA_CHECK(PagesFor(tokens.size()) <= sequence.page_count_);
  const uint32_t first = sequence.committed_tokens_ / kPageTokens;
  sequence.committed_tokens_ = static_cast<uint32_t>(tokens.size());
  const uint32_t end = sequence.committed_tokens_ / kPageTokens;
  for (uint32_t page = first; page < end; ++page) {
    impl_->Publish(sequence, page, tokens.subspan(size_t{page} * kPageTokens, kPageTokens), sealed);
  }
}

void KvCache::Impl::Publish(SequenceCache& sequence, uint32_t page, std::span<const TokenId> tokens,
                            std::vector<SealedPage>* sealed) {
  if (page < sequence.path_.size()) {
    // Another page of tokens than the one found at Open would poison the index.
    TESSERA_CHECK(std::equal(tokens.begin(), tokens.end(), sequence.path_[page]->tokens.begin()));
  } else if (sequence.publishes_ && (page + 1) * kPageTokens <= sequence.published_tokens_) {
    IndexNode* parent = page == 0 ? nullptr : sequence.path_[page - 1];
    IndexNode* node = index.FindOrCreate(sequence.scope_, parent, tokens);
    // After a key that another prefix has, the rest of this sequence stays private.
    sequence.publishes_ = node != nullptr;
    if (node != nullptr) {
      sequence.path_.push_back(node);
    }
  }
  for (uint32_t t = 0; t < sequence.shared_tokens_.size(); ++t) {
    if (Sealed(sequence, t, page)) {
      continue;
    }
    PageId& id = sequence.pages_[t * sequence.stride_ + page];
    const PageId own = id;
    if (page < sequence.path_.size()) {
      id = index.Publish(sequence.path_[page], sequence.layout_->tables[t].state_digest, own);
    }
    if (id != own) {
      sequence.changed_from_ = std::min(sequence.changed_from_, page);
    } else if (sealed != nullptr) {
      sealed->push_back({t, own});
    }
    sequence.shared_tokens_[t] = (page + 1) * kPageTokens;
  }
}

StatusOr<SequenceCache> KvCache::Fork(const SequenceCache& sequence, const CopyPage& copy) {
  TESSERA_CHECK(sequence.layout_ != nullptr);
  SequenceCache fork;
  fork.layout_ = sequence.layout_;
  fork.stride_ = sequence.stride_;
  fork.pages_.resize(sequence.pages_.size());
  fork.shared_tokens_ = sequence.shared_tokens_;
  fork.scope_ = sequence.scope_;
  fork.publishes_ = sequence.publishes_;
  fork.published_tokens_ = sequence.published_tokens_;
  fork.path_.reserve(sequence.stride_);
  fork.path_ = sequence.path_;
  const uint64_t wanted = Impl::MissingBytes(fork, sequence.page_count_);
  const uint64_t available = impl_->AvailableBytes();
  if (wanted > available || !impl_->AddPages(fork, sequence.page_count_)) {
    fork.layout_ = nullptr;
    return OutOfPages(wanted, available);
  }
  for (size_t t = 0; t < fork.shared_tokens_.size(); ++t) {
    const uint64_t bytes = fork.layout_->tables[t].state.format.page_bytes();
    const size_t row = t * fork.stride_;
    const uint32_t sealed = fork.shared_tokens_[t] / kPageTokens;
    for (uint32_t page = 0; page < sealed; ++page) {
      fork.pages_[row + page] = sequence.pages_[row + page];
      impl_->index.AddReference(fork.pages_[row + page]);
    }
    for (uint32_t page = sealed; page < PagesFor(sequence.committed_tokens_); ++page) {
      copy(sequence.pages_[row + page], fork.pages_[row + page], bytes);
    }
  }
  fork.committed_tokens_ = sequence.committed_tokens_;
  return fork;
}

void KvCache::Release(SequenceCache& sequence) {
  if (sequence.layout_ == nullptr) {
    return;
  }
  if (impl_->in_transaction) {
    std::erase_if(impl_->growths,
                  [&](const Impl::Growth& growth) { return growth.sequence == &sequence; });
  }
  // From the end to the start, so that a child is always evicted before its parent.
  const size_t found = sequence.path_.size();
  for (size_t page = std::max<size_t>(sequence.page_count_, found); page-- > 0;) {
    for (size_t t = 0; t < sequence.shared_tokens_.size(); ++t) {
      const PageId id = sequence.pages_[t * sequence.stride_ + page];
      if (id.valid()) {
        impl_->index.DropReference(id);
      }
    }
    if (page < found) {
      impl_->index.Touch(sequence.path_[page]);
    }
  }
  const SequenceCache emptied(std::move(sequence));
}

void KvCache::DropUnusedPrefixes() {
  while (impl_->index.EvictOldest()) {
  }
}

CacheStats KvCache::stats() const {
  return {.arena_bytes = impl_->arena->bytes(),
          .used_bytes = impl_->pages.UsedBytes(),
          .cached_bytes = impl_->pages.CachedBytes(),
          .free_bytes = impl_->pages.FreeBytes(),
          .prefix_queries_tokens = impl_->queried_tokens,
          .prefix_hits_tokens = impl_->hit_tokens,
          .evicted_pages = impl_->index.evicted_pages(),
          .index_nodes = impl_->index.nodes()};
}

}  // namespace tessera::kvcache
