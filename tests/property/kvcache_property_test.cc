// The cache against a brute-force model: random operations of many sequences on a small cache.
//
// Every token that a sequence "computes" writes a tag of (table's digest, tokens up to it) into its
// page; later reads must find the tag that the sequence would have written itself, whoever wrote
// the page. While nothing was evicted, hit counts must be exactly the model's.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <vector>

#include "kvcache/kv_cache.h"

namespace tessera::kvcache {
namespace {

using kernels::kPageTokens;
using Tokens = std::vector<TokenId>;

constexpr uint32_t kMaxTokens = 8 * kPageTokens;

Digest DigestOf(uint64_t value) { return Hasher().AddU64(value).Finish(); }

// Pages of `units` * 512 bytes; 64 floats fit in each plane.
TableSpec TableOf(uint64_t state, uint32_t units) {
  return {{StateKind::kPaged, {.dtype = kernels::DType::kF32, .kv_heads = 1, .head_dim = units}},
          DigestOf(state)};
}

struct Live {
  SequenceCache cache;
  std::shared_ptr<const CacheLayout> layout;
  uint64_t scope = 0;
  Tokens tokens;          // known to the user of the sequence: committed, or the prompt
  uint32_t computed = 0;  // tokens whose tags are written
  bool reads = false;     // Reuse::kReadWrite
  bool publishes = false;
};

// One published page: which scope, state and tokens from the start.
struct Published {
  uint64_t scope;
  Digest state;
  Tokens prefix;
  auto operator<=>(const Published&) const = default;
};

class Simulation {
 public:
  explicit Simulation(uint32_t seed) : random_(seed), one_size_(seed % 2 == 0) {
    const uint64_t slabs = 4 + Random(40);
    cache_ = KvCache::Create({.arena_bytes = slabs * 4096, .slab_bytes = 4096}).value();
    // Chains that share lower blocks: digests are shared along common starts only.
    const std::vector<std::vector<uint64_t>> states = {{1, 2, 3},       {1, 2, 30}, {1, 20},
                                                       {1, 2, 3, 4, 5}, {7},        {1, 2}};
    for (const auto& chain : states) {
      auto layout = std::make_shared<CacheLayout>();
      for (const uint64_t state : chain) {
        // The page size goes with the state: 512, 1536 (runs of two slabs) or 4096 bytes.
        const uint32_t sizes[] = {1, 3, 8};
        layout->tables.push_back(TableOf(state, one_size_ ? 1 : sizes[state % 3]));
      }
      layouts_.push_back(std::move(layout));
    }
  }

  void Run(int operations) {
    for (int i = 0; i < operations && !::testing::Test::HasFailure(); ++i) {
      Operate();
      Check();
    }
    while (!live_.empty() && !::testing::Test::HasFailure()) {
      ReleaseAt(Random(live_.size()));
      Check();
    }
    cache_->DropUnusedPrefixes();
    const CacheStats stats = cache_->stats();
    EXPECT_EQ(stats.used_bytes + stats.cached_bytes + stats.index_nodes, 0u);
  }

  uint64_t exact_hits() const { return exact_hits_; }
  uint64_t failed_grows() const { return failed_grows_; }

 private:
  uint32_t Random(size_t bound) { return static_cast<uint32_t>(random_() % bound); }

  // Few distinct pages of tokens, so that prefixes meet.
  Tokens RandomTokens(Tokens tokens, size_t count) {
    while (tokens.size() < count) {
      const uint32_t branch = Random(8) == 0 ? 1 : 0;
      const size_t end = std::min(count, (tokens.size() / kPageTokens + 1) * kPageTokens);
      while (tokens.size() < end) {
        tokens.push_back(branch * 1000 + static_cast<TokenId>(tokens.size()));
      }
    }
    return tokens;
  }

  void Operate() {
    const uint32_t choice = Random(100);
    if (live_.empty() || (choice < 25 && live_.size() < 12)) {
      OpenOne();
    } else if (choice < 65) {
      Advance(*live_[Random(live_.size())]);
    } else if (choice < 75) {
      Transaction();
    } else if (choice < 83 && live_.size() < 12) {
      ForkOne();
    } else if (choice < 98) {
      ReleaseAt(Random(live_.size()));
    } else {
      Drop();
    }
  }

  void OpenOne() {
    auto live = std::make_unique<Live>();
    live->layout = layouts_[Random(layouts_.size())];
    live->scope = Random(4) == 0;
    live->tokens = RandomTokens({}, 1 + Random(kMaxTokens));
    const uint32_t mode = Random(10);
    live->reads = mode < 8;
    live->publishes = mode < 9;
    const uint32_t limit = Random(3) == 0 ? Random(kMaxTokens) : live->tokens.size() - 1;
    using Reuse = OpenOptions::Reuse;
    live->cache = cache_->Open({.layout = live->layout,
                                .max_tokens = kMaxTokens,
                                .scope = DigestOf(100 + live->scope),
                                .tokens = live->tokens,
                                .max_reused_tokens = limit,
                                .reuse = live->reads       ? Reuse::kReadWrite
                                         : live->publishes ? Reuse::kPublishOnly
                                                           : Reuse::kNone});
    CheckHits(*live, limit);
    live->computed = live->cache.committed_tokens();
    live_.push_back(std::move(live));
  }

  void CheckHits(const Live& live, uint32_t limit) {
    const size_t tables = live.layout->tables.size();
    size_t run = live.reads ? tables : 0;
    std::vector<uint32_t> shared(tables);
    uint32_t whole = 0;
    for (uint32_t end = kPageTokens; end <= live.tokens.size(); end += kPageTokens) {
      const Tokens prefix(live.tokens.begin(), live.tokens.begin() + end);
      size_t found = 0;
      while (found < run &&
             published_.contains({live.scope, live.layout->tables[found].state_digest, prefix})) {
        shared[found++] = end;
      }
      run = found;
      whole += run == tables && end <= limit ? kPageTokens : 0;
    }
    const bool exact = cache_->stats().evicted_pages == forgotten_;
    for (size_t t = 0; t < tables; ++t) {
      const uint32_t have = live.cache.shared_tokens(t);
      ASSERT_TRUE(exact ? have == shared[t] : have <= shared[t]) << have << " " << shared[t];
    }
    ASSERT_TRUE(exact ? live.cache.committed_tokens() == whole
                      : live.cache.committed_tokens() <= whole);
    exact_hits_ += exact ? whole : 0;
  }

  // Grows, computes and commits some more tokens.
  void Advance(Live& live) {
    const uint32_t from = live.cache.committed_tokens();
    const uint32_t to = std::min(kMaxTokens, from + 1 + Random(3 * kPageTokens));
    if (!TryGrow(live, to)) {
      return;
    }
    live.tokens = RandomTokens(std::move(live.tokens), to);
    Compute(live, to);
    std::vector<KvCache::SealedPage> sealed;
    cache_->Commit(live.cache, {live.tokens.data(), to}, &sealed);
    ASSERT_EQ(live.cache.committed_tokens(), to);
    for (const KvCache::SealedPage& page : sealed) {
      const PageId* table = live.cache.table(page.table);
      ASSERT_NE(std::find(table, table + live.cache.page_count(), page.page),
                table + live.cache.page_count());
    }
    Publish(live);
  }

  void Publish(const Live& live) {
    const uint32_t committed = live.cache.committed_tokens();
    for (uint32_t end = kPageTokens; live.publishes && end <= committed; end += kPageTokens) {
      for (const TableSpec& table : live.layout->tables) {
        published_.insert(
            {live.scope, table.state_digest, {live.tokens.begin(), live.tokens.begin() + end}});
      }
    }
  }

  bool TryGrow(Live& live, uint32_t tokens) {
    const uint64_t available = cache_->AvailableBytes();
    const uint32_t before = live.cache.page_count();
    const uint64_t missing = MissingBytes(live, tokens);
    const Status status = cache_->Grow(live.cache, tokens);
    if (one_size_) {
      EXPECT_EQ(status.ok(), missing <= available);
    }
    if (!status.ok()) {
      ++failed_grows_;
      EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
      EXPECT_EQ(live.cache.page_count(), before);
      if (live_.size() == 1 && one_size_) {
        EXPECT_FALSE(cache_->CanEverFit(*live.layout, tokens));
      }
    }
    return status.ok();
  }

  static uint64_t MissingBytes(const Live& live, uint32_t tokens) {
    uint64_t bytes = 0;
    for (uint32_t page = live.cache.page_count(); page * kPageTokens < tokens; ++page) {
      for (size_t t = 0; t < live.layout->tables.size(); ++t) {
        bytes += live.cache.shared_tokens(t) > page * kPageTokens
                     ? 0
                     : live.layout->tables[t].state.format.page_bytes();
      }
    }
    return bytes;
  }

  void Transaction() {
    const auto table_of = [](const Live& live, size_t t) {
      const PageId* pages = live.cache.table(t);
      return std::vector<PageId>(pages, pages + kMaxTokens / kPageTokens);
    };
    std::vector<std::vector<std::vector<PageId>>> before;
    std::vector<uint32_t> counts;
    for (const auto& live : live_) {
      counts.push_back(live->cache.page_count());
      before.emplace_back();
      for (size_t t = 0; t < live->layout->tables.size(); ++t) {
        before.back().push_back(table_of(*live, t));
      }
    }
    const uint64_t used = cache_->stats().used_bytes;
    cache_->Begin();
    for (int i = 0; i < 4; ++i) {
      (void)TryGrow(*live_[Random(live_.size())], 1 + Random(kMaxTokens));
    }
    if (Random(3) == 0) {
      cache_->Keep();
      return;
    }
    if (Random(3) == 0) {
      ReleaseAt(live_.size() - 1);
      cache_->RollBack();
      counts.pop_back();
    } else {
      cache_->RollBack();
      ASSERT_EQ(cache_->stats().used_bytes, used);
    }
    for (size_t i = 0; i < counts.size(); ++i) {
      ASSERT_EQ(live_[i]->cache.page_count(), counts[i]);
      for (size_t t = 0; t < before[i].size(); ++t) {
        ASSERT_EQ(table_of(*live_[i], t), before[i][t]);
      }
    }
  }

  void ForkOne() {
    Live& parent = *live_[Random(live_.size())];
    const auto copy = [this](PageId from, PageId to, uint64_t bytes) {
      std::memcpy(kernels::PageAddress(cache_->arena(), to),
                  kernels::PageAddress(cache_->arena(), from), bytes);
    };
    const uint64_t used = cache_->stats().used_bytes;
    auto forked = cache_->Fork(parent.cache, copy);
    if (!forked.ok()) {
      ASSERT_EQ(cache_->stats().used_bytes, used);
      return;
    }
    auto live = std::make_unique<Live>();
    live->cache = std::move(*forked);
    live->layout = parent.layout;
    live->scope = parent.scope;
    live->reads = parent.reads;
    live->publishes = parent.publishes;
    // Tokens found beyond the committed ones stay as they are; the rest may go another way.
    size_t kept = parent.cache.committed_tokens();
    for (size_t t = 0; t < live->layout->tables.size(); ++t) {
      kept = std::max<size_t>(kept, parent.cache.shared_tokens(t));
    }
    live->tokens.assign(parent.tokens.begin(), parent.tokens.begin() + kept);
    live->computed = live->cache.committed_tokens();
    live_.push_back(std::move(live));
  }

  void ReleaseAt(size_t index) {
    cache_->Release(live_[index]->cache);
    live_.erase(live_.begin() + index);
  }

  // Nothing unused is left; the model knows what is used.
  void Drop() {
    cache_->DropUnusedPrefixes();
    ASSERT_EQ(cache_->stats().cached_bytes, 0u);
    std::set<Published> kept;
    for (const auto& live : live_) {
      for (size_t t = 0; live->publishes && t < live->layout->tables.size(); ++t) {
        for (uint32_t end = kPageTokens; end <= live->cache.shared_tokens(t); end += kPageTokens) {
          kept.insert({live->scope,
                       live->layout->tables[t].state_digest,
                       {live->tokens.begin(), live->tokens.begin() + end}});
        }
      }
    }
    published_ = std::move(kept);
    forgotten_ = cache_->stats().evicted_pages;
  }

  // What the table's block would keep for the last token of `prefix_hash`'s tokens.
  static uint32_t TagOf(const Digest& state, uint64_t scope, uint64_t prefix_hash) {
    uint64_t word = 0;
    std::memcpy(&word, state.bytes.data(), sizeof(word));
    word = (word ^ prefix_hash ^ (scope << 60)) * 0x9e3779b97f4a7c15;
    return static_cast<uint32_t>(word >> 32);
  }

  uint32_t* Slot(const Live& live, size_t table, uint32_t token) {
    const PageId page = live.cache.table(table)[token / kPageTokens];
    return reinterpret_cast<uint32_t*>(kernels::PageAddress(cache_->arena(), page)) +
           token % kPageTokens;
  }

  // Writes the tags of tokens [committed, to), masked where pages are shared.
  void Compute(Live& live, uint32_t to) {
    for (size_t t = 0; t < live.layout->tables.size(); ++t) {
      uint64_t hash = 1;
      for (uint32_t i = 0; i < to; ++i) {
        hash = hash * 6364136223846793005 + live.tokens[i] + 1;
        if (i >= live.cache.committed_tokens() && i >= live.cache.shared_tokens(t)) {
          *Slot(live, t, i) = TagOf(live.layout->tables[t].state_digest, live.scope, hash);
        }
      }
    }
    live.computed = to;
  }

  void CheckContent(const Live& live) {
    for (size_t t = 0; t < live.layout->tables.size(); ++t) {
      uint64_t hash = 1;
      const uint32_t readable = std::max(live.computed, live.cache.shared_tokens(t));
      for (uint32_t i = 0; i < readable; ++i) {
        hash = hash * 6364136223846793005 + live.tokens[i] + 1;
        ASSERT_EQ(*Slot(live, t, i), TagOf(live.layout->tables[t].state_digest, live.scope, hash))
            << "table " << t << " token " << i;
      }
    }
  }

  void Check() {
    std::vector<const SequenceCache*> sequences;
    for (const auto& live : live_) {
      sequences.push_back(&live->cache);
      CheckContent(*live);
    }
    const Status status = cache_->CheckInvariants(sequences);
    ASSERT_TRUE(status.ok()) << status;
  }

  std::mt19937 random_;
  bool one_size_;
  std::unique_ptr<KvCache> cache_;
  std::vector<std::shared_ptr<const CacheLayout>> layouts_;
  std::vector<std::unique_ptr<Live>> live_;
  std::set<Published> published_;  // since the last drop; evicted ones included
  uint64_t forgotten_ = 0;         // evictions that the model knows of
  uint64_t exact_hits_ = 0;
  uint64_t failed_grows_ = 0;
};

TEST(KvCacheProperty, AgreesWithTheModel) {
  uint64_t exact_hits = 0;
  uint64_t failed_grows = 0;
  for (uint32_t seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    Simulation simulation(seed);
    simulation.Run(150);
    if (HasFailure()) {
      return;
    }
    exact_hits += simulation.exact_hits();
    failed_grows += simulation.failed_grows();
  }
  EXPECT_GT(exact_hits, 10000u) << "the model was hardly asked";
  EXPECT_GT(failed_grows, 100u) << "the cache was hardly full";
}

}  // namespace
}  // namespace tessera::kvcache
