#include "kvcache/prefix_index.h"

#include <gtest/gtest.h>

#include "tests/unit/kvcache/cache_fixture.h"

namespace tessera::kvcache {
namespace {

class PrefixIndexTest : public ::testing::Test {
 protected:
  PageId NewPage() { return store_.Allocate(store_.PoolFor(512)); }
  // A node below `parent` with one page of `state`, which the caller references.
  IndexNode* Add(PrefixIndex& index, IndexNode* parent, uint32_t salt, uint64_t state = 1) {
    IndexNode* node = index.FindOrCreate(scope_, parent, TokensOf(64, salt));
    last_page_ = index.Publish(node, TestDigest(state), NewPage());
    return node;
  }
  void ExpectSound(const PrefixIndex& index) {
    Status status = index.CheckInvariants();
    EXPECT_TRUE(status.ok()) << status;
    status = store_.CheckInvariants();
    EXPECT_TRUE(status.ok()) << status;
  }

  const Digest scope_ = TestDigest(1000);
  std::unique_ptr<SlabArena> arena_ = SlabArena::Create(1 << 16, 4096).value();
  PageStore store_{arena_.get()};
  PageId last_page_;
};

TEST_F(PrefixIndexTest, FindsByScopeParentAndTokens) {
  PrefixIndex index(&store_);
  IndexNode* a = Add(index, nullptr, 1);
  IndexNode* b = Add(index, a, 2);
  EXPECT_EQ(index.Find(scope_, nullptr, TokensOf(64, 1)), a);
  EXPECT_EQ(index.Find(scope_, a, TokensOf(64, 2)), b);
  EXPECT_EQ(index.Find(scope_, nullptr, TokensOf(64, 2)), nullptr);
  EXPECT_EQ(index.Find(scope_, b, TokensOf(64, 2)), nullptr);
  EXPECT_EQ(index.Find(TestDigest(2000), nullptr, TokensOf(64, 1)), nullptr);
  EXPECT_EQ(a->Find(TestDigest(9)).valid(), false);
  EXPECT_EQ(b->Find(TestDigest(1)), last_page_);
  ExpectSound(index);
}

TEST_F(PrefixIndexTest, PublishKeepsTheFirstPage) {
  PrefixIndex index(&store_);
  IndexNode* node = Add(index, nullptr, 1);
  const PageId first = last_page_;
  const uint64_t used = store_.UsedBytes();
  EXPECT_EQ(index.Publish(node, TestDigest(1), NewPage()), first);
  EXPECT_EQ(store_.UsedBytes(), used) << "the second page is free again";
  EXPECT_EQ(store_.Get(first).references, 2u);
  EXPECT_EQ(index.Publish(node, TestDigest(1), first), first);
  EXPECT_EQ(store_.Get(first).references, 2u);
  ExpectSound(index);
}

TEST_F(PrefixIndexTest, EqualKeysDoNotMakeAMatch) {
  PrefixIndex index(&store_, [](const Digest&, std::span<const TokenId>) { return Digest(); });
  IndexNode* a = Add(index, nullptr, 1);
  EXPECT_EQ(index.Find(scope_, nullptr, TokensOf(64, 1)), a);
  EXPECT_EQ(index.Find(scope_, nullptr, TokensOf(64, 2)), nullptr) << "other tokens";
  EXPECT_EQ(index.Find(scope_, a, TokensOf(64, 1)), nullptr) << "other parent";
  EXPECT_EQ(index.FindOrCreate(scope_, nullptr, TokensOf(64, 2)), nullptr);
  EXPECT_EQ(index.FindOrCreate(scope_, a, TokensOf(64, 1)), nullptr);
  EXPECT_EQ(index.FindOrCreate(TestDigest(2000), nullptr, TokensOf(64, 1)), nullptr)
      << "other scope";
  ExpectSound(index);
}

TEST_F(PrefixIndexTest, EvictsInOrderOfLastUse) {
  PrefixIndex index(&store_);
  std::vector<PageId> pages;
  std::vector<IndexNode*> nodes;
  for (uint32_t i = 0; i < 3; ++i) {
    nodes.push_back(Add(index, nullptr, i));
    pages.push_back(last_page_);
  }
  EXPECT_FALSE(index.EvictOldest()) << "all are referenced";
  for (const size_t i : {1, 0, 2}) {
    index.DropReference(pages[i]);
  }
  index.Touch(nodes[1]);  // order now 0, 2, 1
  index.AddReference(pages[2]);
  EXPECT_EQ(store_.CachedBytes(), 2 * 512u);
  ExpectSound(index);
  EXPECT_TRUE(index.EvictOldest());
  EXPECT_EQ(index.Find(scope_, nullptr, TokensOf(64, 0)), nullptr);
  EXPECT_EQ(index.Find(scope_, nullptr, TokensOf(64, 1)), nodes[1]);
  EXPECT_TRUE(index.EvictOldest());
  EXPECT_EQ(index.Find(scope_, nullptr, TokensOf(64, 1)), nullptr);
  EXPECT_FALSE(index.EvictOldest());
  EXPECT_EQ(index.Find(scope_, nullptr, TokensOf(64, 2)), nodes[2]);
  EXPECT_EQ(index.evicted_pages(), 2u);
  ExpectSound(index);
}

TEST_F(PrefixIndexTest, OnlyUnreferencedPagesOfANodeGo) {
  PrefixIndex index(&store_);
  IndexNode* node = Add(index, nullptr, 1, 1);
  const PageId kept = last_page_;
  Add(index, nullptr, 1, 2);
  index.DropReference(last_page_);
  EXPECT_TRUE(index.EvictOldest());
  EXPECT_EQ(index.Find(scope_, nullptr, TokensOf(64, 1)), node);
  EXPECT_EQ(node->Find(TestDigest(1)), kept);
  EXPECT_FALSE(node->Find(TestDigest(2)).valid());
  ExpectSound(index);
}

}  // namespace
}  // namespace tessera::kvcache
