#include "kvcache/kv_cache.h"

#include <gtest/gtest.h>

#include "tests/unit/kvcache/cache_fixture.h"

namespace tessera::kvcache {
namespace {

class KvCacheTest : public ::testing::Test {
 protected:
  SequenceCache Open(std::shared_ptr<const CacheLayout> layout, const std::vector<TokenId>& tokens,
                     uint32_t max_reused = UINT32_MAX) {
    return cache_->Open({.layout = std::move(layout),
                         .max_tokens = 1024,
                         .scope = scope_,
                         .tokens = tokens,
                         .max_reused_tokens = max_reused});
  }
  // Opens, computes all tokens and commits them.
  SequenceCache Run(std::shared_ptr<const CacheLayout> layout, const std::vector<TokenId>& tokens) {
    SequenceCache sequence = Open(std::move(layout), tokens);
    EXPECT_TRUE(cache_->Grow(sequence, tokens.size()).ok());
    cache_->Commit(sequence, tokens, nullptr);
    return sequence;
  }
  void RunAndRelease(std::shared_ptr<const CacheLayout> layout,
                     const std::vector<TokenId>& tokens) {
    SequenceCache sequence = Run(std::move(layout), tokens);
    cache_->Release(sequence);
  }
  // Tokens that a new sequence of `layout` would find; leaves nothing behind.
  uint32_t Hits(std::shared_ptr<const CacheLayout> layout, const std::vector<TokenId>& tokens) {
    SequenceCache sequence = Open(std::move(layout), tokens);
    const uint32_t hits = sequence.committed_tokens();
    cache_->Release(sequence);
    return hits;
  }
  void ExpectSound(std::vector<const SequenceCache*> sequences = {}) {
    const Status status = cache_->CheckInvariants(sequences);
    EXPECT_TRUE(status.ok()) << status;
  }
  uint64_t UsedPages() const { return cache_->stats().used_bytes / 512; }
  uint64_t CachedPages() const { return cache_->stats().cached_bytes / 512; }

  Digest scope_ = TestDigest(77);
  std::unique_ptr<KvCache> cache_ = CacheOf(64);
  std::shared_ptr<CacheLayout> two_ = LayoutOf({1, 2});
};

TEST_F(KvCacheTest, GrowReservesWholePagesInEveryTable) {
  SequenceCache sequence = Open(two_, TokensOf(10));
  EXPECT_EQ(sequence.page_count(), 0u);
  ASSERT_TRUE(cache_->Grow(sequence, 65).ok());
  EXPECT_EQ(sequence.page_count(), 2u);
  EXPECT_EQ(UsedPages(), 4u);
  ASSERT_TRUE(cache_->Grow(sequence, 128).ok());
  EXPECT_EQ(UsedPages(), 4u);
  EXPECT_EQ(cache_->AvailableBytes(), 60 * 512u);
  ExpectSound({&sequence});
  cache_->Release(sequence);
  EXPECT_EQ(sequence.layout(), nullptr);
  EXPECT_EQ(UsedPages(), 0u);
  EXPECT_EQ(CachedPages(), 0u) << "nothing was committed";
  ExpectSound();
}

TEST_F(KvCacheTest, WholePagesAreFoundAgain) {
  const std::vector<TokenId> tokens = TokensOf(200);
  RunAndRelease(two_, tokens);
  EXPECT_EQ(UsedPages(), 0u);
  EXPECT_EQ(CachedPages(), 6u) << "three full pages in two tables; the open ones are gone";
  SequenceCache again = Open(two_, tokens);
  EXPECT_EQ(again.committed_tokens(), 192u);
  EXPECT_EQ(again.page_count(), 3u);
  EXPECT_EQ(again.shared_tokens(0), 192u);
  EXPECT_EQ(CachedPages(), 0u);
  std::vector<TokenId> other = tokens;
  other[130] += 1;
  SequenceCache partly = Open(two_, other);
  EXPECT_EQ(partly.committed_tokens(), 128u);
  EXPECT_EQ(partly.table(1)[1], again.table(1)[1]);
  const CacheStats stats = cache_->stats();
  EXPECT_EQ(stats.prefix_queries_tokens, 600u);
  EXPECT_EQ(stats.prefix_hits_tokens, 320u);
  EXPECT_EQ(stats.index_nodes, 3u);
  ExpectSound({&again, &partly});
  cache_->Release(again);
  cache_->Release(partly);
  ExpectSound();
}

TEST_F(KvCacheTest, ReuseStopsAtTheLimitButPagesAreStillShared) {
  const std::vector<TokenId> tokens = TokensOf(128);
  RunAndRelease(two_, tokens);
  SequenceCache sequence = Open(two_, tokens, 127);
  EXPECT_EQ(sequence.committed_tokens(), 64u);
  EXPECT_EQ(sequence.page_count(), 1u);
  EXPECT_EQ(sequence.shared_tokens(0), 128u);
  ASSERT_TRUE(cache_->Grow(sequence, 128).ok());
  EXPECT_EQ(UsedPages(), 4u) << "the second pages were found, not taken";
  std::vector<KvCache::SealedPage> sealed;
  cache_->Commit(sequence, tokens, &sealed);
  EXPECT_TRUE(sealed.empty());
  ExpectSound({&sequence});
  cache_->Release(sequence);
  SequenceCache none = Open(two_, tokens, 0);
  EXPECT_EQ(none.committed_tokens(), 0u);
  cache_->Release(none);
}

TEST_F(KvCacheTest, ALowerRunOfTablesIsShared) {
  const auto base = LayoutOf({1, 2, 3});
  const auto variant = LayoutOf({1, 2, 30, 40});  // deeper, with the same two lowest blocks
  const std::vector<TokenId> tokens = TokensOf(150);
  SequenceCache first = Run(base, tokens);
  SequenceCache second = Open(variant, tokens);
  EXPECT_EQ(second.committed_tokens(), 0u);
  EXPECT_EQ(second.page_count(), 0u);
  EXPECT_EQ(second.shared_tokens(0), 128u);
  EXPECT_EQ(second.shared_tokens(1), 128u);
  EXPECT_EQ(second.shared_tokens(2), 0u);
  EXPECT_EQ(second.table(1)[1], first.table(1)[1]);
  const uint64_t before = UsedPages();
  ASSERT_TRUE(cache_->Grow(second, 150).ok());
  EXPECT_EQ(UsedPages() - before, 4u * 3 - 4);
  std::vector<KvCache::SealedPage> sealed;
  cache_->Commit(second, tokens, &sealed);
  ASSERT_EQ(sealed.size(), 4u) << "two pages of the two upper tables";
  EXPECT_EQ(sealed[0].table, 2u);
  EXPECT_EQ(sealed[0].page, second.table(2)[0]);
  EXPECT_EQ(second.shared_tokens(3), 128u);
  ExpectSound({&first, &second});
  cache_->Release(first);
  ExpectSound({&second});
  EXPECT_EQ(Hits(base, tokens), 128u);
  EXPECT_EQ(Hits(variant, tokens), 128u);
  EXPECT_EQ(Hits(LayoutOf({1, 2}), tokens), 128u) << "a chain that is only the common part";
  EXPECT_EQ(Hits(LayoutOf({2, 1}), tokens), 128u) << "digests decide, not table numbers";
  EXPECT_EQ(Hits(LayoutOf({5, 2}), tokens), 0u);
  cache_->Release(second);
  ExpectSound();
}

TEST_F(KvCacheTest, FullHitsMayGoOnAsALowerRun) {
  const auto base = LayoutOf({1, 2});
  const auto variant = LayoutOf({1, 20});
  const std::vector<TokenId> tokens = TokensOf(256);
  RunAndRelease(variant, {tokens.begin(), tokens.begin() + 64});
  RunAndRelease(base, tokens);
  SequenceCache sequence = Open(variant, tokens);
  EXPECT_EQ(sequence.committed_tokens(), 64u);
  EXPECT_EQ(sequence.shared_tokens(0), 256u);
  EXPECT_EQ(sequence.shared_tokens(1), 64u);
  ExpectSound({&sequence});
  cache_->Release(sequence);
  ExpectSound();
}

TEST_F(KvCacheTest, ScopesNeverShare) {
  const std::vector<TokenId> tokens = TokensOf(128);
  RunAndRelease(two_, tokens);
  scope_ = TestDigest(78);
  EXPECT_EQ(Hits(two_, tokens), 0u);
  SequenceCache other = Run(two_, tokens);
  EXPECT_EQ(UsedPages(), 4u);
  EXPECT_EQ(CachedPages(), 4u);
  ExpectSound({&other});
  cache_->Release(other);
}

TEST_F(KvCacheTest, ReuseModes) {
  const std::vector<TokenId> tokens = TokensOf(64);
  OpenOptions options{.layout = two_, .max_tokens = 64, .scope = scope_, .tokens = tokens};
  options.max_reused_tokens = 64;
  options.reuse = OpenOptions::Reuse::kNone;
  SequenceCache none = cache_->Open(options);
  ASSERT_TRUE(cache_->Grow(none, 64).ok());
  std::vector<KvCache::SealedPage> sealed;
  cache_->Commit(none, tokens, &sealed);
  EXPECT_EQ(sealed.size(), 2u);
  EXPECT_EQ(none.shared_tokens(0), 64u);
  cache_->Release(none);
  EXPECT_EQ(CachedPages(), 0u);
  options.reuse = OpenOptions::Reuse::kPublishOnly;
  for (int i = 0; i < 2; ++i) {
    SequenceCache publisher = cache_->Open(options);
    EXPECT_EQ(publisher.committed_tokens(), 0u);
    EXPECT_EQ(publisher.shared_tokens(0), 0u);
    ASSERT_TRUE(cache_->Grow(publisher, 64).ok());
    cache_->Commit(publisher, tokens, nullptr);
    ExpectSound({&publisher});
    cache_->Release(publisher);
    EXPECT_EQ(CachedPages(), 2u);
  }
  const auto off =
      KvCache::Create({.arena_bytes = 1 << 16, .slab_bytes = 4096, .prefix_reuse = false}).value();
  options.reuse = OpenOptions::Reuse::kReadWrite;
  SequenceCache sequence = off->Open(options);
  ASSERT_TRUE(off->Grow(sequence, 64).ok());
  off->Commit(sequence, tokens, nullptr);
  off->Release(sequence);
  EXPECT_EQ(off->stats().cached_bytes, 0u);
}

TEST_F(KvCacheTest, CommitKeepsOnePageOfEachPrefix) {
  const std::vector<TokenId> tokens = TokensOf(130);
  SequenceCache first = Open(two_, tokens);
  SequenceCache second = Open(two_, tokens);
  ASSERT_TRUE(cache_->Grow(first, 130).ok());
  ASSERT_TRUE(cache_->Grow(second, 130).ok());
  EXPECT_EQ(UsedPages(), 12u);
  std::vector<KvCache::SealedPage> sealed;
  cache_->Commit(first, {tokens.data(), 63}, &sealed);
  EXPECT_TRUE(sealed.empty());
  cache_->Commit(first, tokens, &sealed);
  EXPECT_EQ(sealed.size(), 4u);
  sealed.clear();
  cache_->Commit(second, tokens, &sealed);
  EXPECT_TRUE(sealed.empty()) << "the pages it now has were sealed by the first";
  EXPECT_EQ(second.table(0)[1], first.table(0)[1]);
  EXPECT_NE(second.table(0)[2], first.table(0)[2]);
  EXPECT_EQ(UsedPages(), 8u);
  ExpectSound({&first, &second});
  cache_->Release(first);
  cache_->Release(second);
  EXPECT_EQ(CachedPages(), 4u);
  ExpectSound();
}

TEST_F(KvCacheTest, EvictsTheLeastRecentlyUsedAndChildrenFirst) {
  const auto one = LayoutOf({1});
  const auto a = TokensOf(20 * 64, 1);
  const auto b = TokensOf(20 * 64, 2);
  cache_ = CacheOf(48);
  for (const auto& tokens : {a, b}) {
    SequenceCache sequence =
        cache_->Open({.layout = one, .max_tokens = 20 * 64, .scope = scope_, .tokens = tokens});
    ASSERT_TRUE(cache_->Grow(sequence, 20 * 64).ok());
    cache_->Commit(sequence, tokens, nullptr);
    cache_->Release(sequence);
  }
  SequenceCache again = cache_->Open({.layout = one,
                                      .max_tokens = 20 * 64,
                                      .scope = scope_,
                                      .tokens = a,
                                      .max_reused_tokens = UINT32_MAX});
  EXPECT_EQ(again.committed_tokens(), 20 * 64u);
  cache_->Release(again);  // now b is older
  EXPECT_EQ(cache_->AvailableBytes(), 48 * 512u);
  SequenceCache grown = cache_->Open({.layout = one, .max_tokens = 4096, .scope = scope_});
  ASSERT_TRUE(cache_->Grow(grown, 13 * 64).ok());  // 8 free, 5 of b
  EXPECT_EQ(cache_->stats().evicted_pages, 5u);
  ExpectSound({&grown});
  const auto hits = [&](const std::vector<TokenId>& tokens) {
    SequenceCache probe = cache_->Open({.layout = one,
                                        .max_tokens = 4096,
                                        .scope = scope_,
                                        .tokens = tokens,
                                        .max_reused_tokens = UINT32_MAX});
    const uint32_t found = probe.committed_tokens() / 64;
    cache_->Release(probe);
    return found;
  };
  EXPECT_EQ(hits(a), 20u);
  EXPECT_EQ(hits(b), 15u) << "its end went first";
  EXPECT_EQ(hits(a), 20u);
  ASSERT_TRUE(cache_->Grow(grown, 28 * 64).ok());
  EXPECT_EQ(hits(b), 0u);
  EXPECT_EQ(hits(a), 20u);
  const uint64_t evicted = cache_->stats().evicted_pages;
  EXPECT_EQ(cache_->Grow(grown, 49 * 64).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(cache_->stats().evicted_pages, evicted) << "what cannot succeed evicts nothing";
  ASSERT_TRUE(cache_->Grow(grown, 48 * 64).ok());
  EXPECT_EQ(hits(a), 0u);
  EXPECT_EQ(cache_->AvailableBytes(), 0u);
  ExpectSound({&grown});
  cache_->Release(grown);
}

TEST_F(KvCacheTest, PagesInUseAreNeverEvicted) {
  cache_ = CacheOf(16);
  const auto base = LayoutOf({1, 2});
  const auto variant = LayoutOf({1, 20});
  const std::vector<TokenId> tokens = TokensOf(128);
  RunAndRelease(variant, tokens);
  SequenceCache running = Run(base, tokens);  // shares table 0; the variant's table 1 is unused
  EXPECT_EQ(CachedPages(), 2u);
  SequenceCache greedy = Open(LayoutOf({9}), {});
  EXPECT_EQ(cache_->Grow(greedy, 13 * 64).code(), absl::StatusCode::kResourceExhausted);
  ASSERT_TRUE(cache_->Grow(greedy, 12 * 64).ok()) << "a shared node's unused pages can go";
  EXPECT_EQ(CachedPages(), 0u);
  ExpectSound({&running, &greedy});
  cache_->Release(greedy);
  EXPECT_EQ(Hits(base, tokens), 128u);
  EXPECT_EQ(Hits(variant, tokens), 0u);
  cache_->Release(running);
}

TEST_F(KvCacheTest, RollBackIsExact) {
  const std::vector<TokenId> tokens = TokensOf(192);
  RunAndRelease(LayoutOf({1, 9}), tokens);
  SequenceCache a = Open(two_, tokens);  // table 0 has three found pages, table 1 none
  SequenceCache b = Open(two_, TokensOf(64, 5));
  ASSERT_TRUE(cache_->Grow(b, 64).ok());
  const PageId kept = b.table(1)[0];
  const PageId found = a.table(0)[2];
  const uint64_t used = UsedPages();
  cache_->Begin();
  ASSERT_TRUE(cache_->Grow(a, 100).ok());
  ASSERT_TRUE(cache_->Grow(b, 128).ok());
  ASSERT_TRUE(cache_->Grow(a, 300).ok());
  EXPECT_EQ(UsedPages(), used + (2 * 5 - 3) + 2);
  cache_->RollBack();
  EXPECT_EQ(UsedPages(), used);
  EXPECT_EQ(a.page_count(), 0u);
  EXPECT_EQ(b.page_count(), 1u);
  EXPECT_EQ(b.table(1)[0], kept);
  EXPECT_EQ(a.table(0)[2], found);
  EXPECT_FALSE(a.table(1)[0].valid());
  ExpectSound({&a, &b});
  cache_->Begin();
  ASSERT_TRUE(cache_->Grow(a, 100).ok());
  cache_->Keep();
  EXPECT_EQ(a.page_count(), 2u);
  cache_->Begin();
  cache_->RollBack();
  EXPECT_EQ(a.page_count(), 2u);
  ExpectSound({&a, &b});
  cache_->Release(a);
  cache_->Release(b);
}

TEST_F(KvCacheTest, AReleasedSequenceLeavesTheTransaction) {
  SequenceCache a = Open(two_, {});
  SequenceCache b = Open(two_, {});
  ASSERT_TRUE(cache_->Grow(a, 64).ok());
  cache_->Begin();
  ASSERT_TRUE(cache_->Grow(a, 640).ok());
  ASSERT_TRUE(cache_->Grow(b, 640).ok());
  cache_->Release(a);
  cache_->RollBack();
  EXPECT_EQ(a.page_count(), 0u);
  EXPECT_EQ(b.page_count(), 0u);
  EXPECT_EQ(UsedPages(), 0u);
  ExpectSound({&b});
  cache_->Release(b);
}

TEST_F(KvCacheTest, AFailedGrowChangesNothing) {
  cache_ = CacheOf(16);
  SequenceCache a = Open(two_, {});
  ASSERT_TRUE(cache_->Grow(a, 64 * 7).ok());
  SequenceCache b = Open(two_, {});
  const Status status = cache_->Grow(b, 128);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(b.page_count(), 0u);
  EXPECT_EQ(cache_->AvailableBytes(), 2 * 512u);
  ASSERT_TRUE(cache_->Grow(b, 64).ok());
  ExpectSound({&a, &b});
  cache_->Release(a);
  cache_->Release(b);
}

TEST_F(KvCacheTest, AFailedGrowOfSeveralPageSizesChangesNothing) {
  cache_ = CacheOf(16);  // two slabs
  auto mixed = LayoutOf({1}, 1);
  mixed->tables.push_back({{StateKind::kPaged, FormatOf(8)}, TestDigest(2)});
  SequenceCache a = Open(mixed, {});
  ASSERT_TRUE(cache_->Grow(a, 64).ok()) << "one slab for each size";
  // 7 small pages are free, so the bytes would do, but no large page is.
  EXPECT_EQ(cache_->Grow(a, 128).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(a.page_count(), 1u);
  ExpectSound({&a});
  cache_->Release(a);
  ExpectSound();
}

TEST_F(KvCacheTest, ForkSharesSealedPagesAndCopiesOpenOnes) {
  const std::vector<TokenId> tokens = TokensOf(100);
  SequenceCache parent = Run(two_, tokens);
  ASSERT_TRUE(cache_->Grow(parent, 200).ok());  // page 1 open, pages 2 and 3 only reserved
  std::vector<std::pair<PageId, PageId>> copies;
  const auto copy = [&](PageId from, PageId to, uint64_t bytes) {
    EXPECT_EQ(bytes, 512u);
    copies.emplace_back(from, to);
  };
  SequenceCache fork = cache_->Fork(parent, copy).value();
  EXPECT_EQ(fork.committed_tokens(), 100u);
  EXPECT_EQ(fork.page_count(), 4u);
  EXPECT_EQ(fork.table(1)[0], parent.table(1)[0]);
  ASSERT_EQ(copies.size(), 2u);
  EXPECT_EQ(copies[1], std::make_pair(parent.table(1)[1], fork.table(1)[1]));
  EXPECT_EQ(UsedPages(), 8u + 6u);
  ExpectSound({&parent, &fork});
  std::vector<TokenId> longer = TokensOf(128);
  cache_->Commit(parent, longer, nullptr);
  longer[110] = 5;
  cache_->Commit(fork, longer, nullptr);
  EXPECT_NE(fork.table(0)[1], parent.table(0)[1]);
  ExpectSound({&parent, &fork});
  cache_->Release(parent);
  ExpectSound({&fork});
  EXPECT_EQ(Hits(two_, longer), 128u);
  cache_->Release(fork);
  ExpectSound();
}

TEST_F(KvCacheTest, AForkWithoutRoomHasNoEffect) {
  cache_ = CacheOf(8);
  const auto one = LayoutOf({1});
  SequenceCache parent = Run(one, TokensOf(100));
  ASSERT_TRUE(cache_->Grow(parent, 5 * 64).ok());
  const auto copy = [](PageId, PageId, uint64_t) { ADD_FAILURE() << "nothing to copy to"; };
  EXPECT_EQ(cache_->Fork(parent, copy).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(UsedPages(), 5u);
  ExpectSound({&parent});
  cache_->Release(parent);
}

TEST_F(KvCacheTest, APreemptedSequenceFindsItsPagesAgain) {
  std::vector<TokenId> tokens = TokensOf(100);
  SequenceCache sequence = Run(two_, tokens);
  tokens = TokensOf(170);
  ASSERT_TRUE(cache_->Grow(sequence, 170).ok());
  cache_->Commit(sequence, tokens, nullptr);
  cache_->Release(sequence);
  sequence = Open(two_, tokens, 169);
  EXPECT_EQ(sequence.committed_tokens(), 128u);
  cache_->Release(sequence);
}

TEST_F(KvCacheTest, CanEverFitIsExact) {
  EXPECT_TRUE(cache_->CanEverFit(*two_, 32 * 64));
  EXPECT_FALSE(cache_->CanEverFit(*two_, 32 * 64 + 1));
  EXPECT_FALSE(cache_->CanEverFit(*two_, UINT64_MAX));
  EXPECT_TRUE(cache_->CanEverFit(*two_, 0));
  EXPECT_FALSE(cache_->CanEverFit(*LayoutOf({1}, 65), 1)) << "one page is larger than the arena";
  // Of 8 slabs: pages of 5 slabs in runs of 8.
  EXPECT_TRUE(cache_->CanEverFit(*LayoutOf({1}, 40), 64));
  EXPECT_FALSE(cache_->CanEverFit(*LayoutOf({1}, 40), 65));
  auto mixed = LayoutOf({1}, 8);  // a slab a page
  mixed->tables.push_back({{StateKind::kPaged, FormatOf(1)}, TestDigest(2)});
  for (uint64_t pages = 1; pages < 10; ++pages) {
    SequenceCache sequence = Open(mixed, {});
    EXPECT_EQ(cache_->CanEverFit(*mixed, pages * 64), cache_->Grow(sequence, pages * 64).ok());
    cache_->Release(sequence);
  }
}

TEST_F(KvCacheTest, DropUnusedPrefixesKeepsWhatIsUsed) {
  RunAndRelease(two_, TokensOf(128, 1));
  SequenceCache sequence = Run(two_, TokensOf(128, 2));
  cache_->DropUnusedPrefixes();
  EXPECT_EQ(cache_->stats().cached_bytes, 0u);
  EXPECT_EQ(cache_->stats().index_nodes, 2u);
  EXPECT_EQ(Hits(two_, TokensOf(128, 1)), 0u);
  EXPECT_EQ(Hits(two_, TokensOf(128, 2)), 128u);
  cache_->Release(sequence);
}

TEST_F(KvCacheTest, ALayoutWithoutTablesKeepsNothing) {
  SequenceCache sequence = Run(LayoutOf({}), TokensOf(200));
  EXPECT_EQ(sequence.committed_tokens(), 200u);
  EXPECT_EQ(UsedPages(), 0u);
  EXPECT_EQ(cache_->stats().index_nodes, 0u);
  ExpectSound({&sequence});
  cache_->Release(sequence);
}

TEST_F(KvCacheTest, MovingLeavesTheSourceEmpty) {
  SequenceCache sequence = Run(two_, TokensOf(70));
  SequenceCache moved = std::move(sequence);
  EXPECT_EQ(sequence.layout(), nullptr);
  EXPECT_EQ(sequence.page_count(), 0u);
  cache_->Release(sequence);
  EXPECT_EQ(moved.committed_tokens(), 70u);
  ExpectSound({&moved, &sequence});
  cache_->Release(moved);
  ExpectSound();
}

}  // namespace
}  // namespace tessera::kvcache
