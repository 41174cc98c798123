#include "kvcache/page_pool.h"

#include <gtest/gtest.h>

#include <set>

#include "kernels/ops/kv_page.h"

namespace tessera::kvcache {
namespace {

class PageStoreTest : public ::testing::Test {
 protected:
  void Drop(PageId page) {
    store_.Get(page).references = 0;
    store_.Free(page);
  }
  void ExpectSound() {
    const Status status = store_.CheckInvariants();
    EXPECT_TRUE(status.ok()) << status;
  }

  std::unique_ptr<SlabArena> arena_ = SlabArena::Create(16 * 4096, 4096).value();
  PageStore store_{arena_.get()};
};

TEST_F(PageStoreTest, ShapesWasteLittle) {
  const auto expect_shape = [&](uint64_t bytes, int order, uint32_t pages) {
    const RunShape shape = RunShape::Choose(*arena_, bytes);
    EXPECT_EQ(shape.order, order) << bytes;
    EXPECT_EQ(shape.run_pages, pages) << bytes;
  };
  expect_shape(512, 0, 8);
  expect_shape(1536, 1, 5);  // two in a slab would waste a quarter
  expect_shape(4096, 0, 1);
  expect_shape(8192, 1, 1);
  expect_shape(16 * 4096, 4, 1);        // the whole arena
  expect_shape(16 * 4096 + 512, 0, 0);  // never fits
}

TEST_F(PageStoreTest, PagesAreDistinctAndSlabsComeBack) {
  PagePool& small = store_.PoolFor(512);
  PagePool& large = store_.PoolFor(8192);
  EXPECT_EQ(&store_.PoolFor(512), &small);
  std::set<PageId> ids;
  for (int i = 0; i < 9; ++i) {
    const PageId page = store_.Allocate(small);
    ASSERT_TRUE(page.valid());
    EXPECT_EQ(store_.Get(page).references, 1u);
    EXPECT_EQ(&store_.PoolOf(page), &small);
    EXPECT_TRUE(ids.insert(page).second);
  }
  EXPECT_EQ(arena_->free_slabs(), 14u) << "nine pages need two slabs";
  const PageId big = store_.Allocate(large);
  EXPECT_EQ(big.value * kernels::kPageUnitBytes % 8192, 0u);
  EXPECT_EQ(arena_->free_slabs(), 12u);
  EXPECT_EQ(store_.UsedBytes(), 9 * 512u + 8192u);
  ExpectSound();
  Drop(big);
  for (const PageId page : ids) {
    Drop(page);
  }
  EXPECT_EQ(arena_->free_slabs(), 16u);
  EXPECT_EQ(store_.UsedBytes(), 0u);
  ExpectSound();
}

TEST_F(PageStoreTest, OnePoolCanTakeTheWholeArenaAndThenTheOther) {
  for (const uint64_t bytes : {uint64_t{1536}, uint64_t{512}, uint64_t{16 * 4096}}) {
    PagePool& pool = store_.PoolFor(bytes);
    std::vector<PageId> pages;
    for (PageId page = store_.Allocate(pool); page.valid(); page = store_.Allocate(pool)) {
      pages.push_back(page);
    }
    EXPECT_EQ(pages.size(), (16u >> pool.shape.order) * pool.shape.run_pages);
    EXPECT_EQ(store_.FreeBytes(), 0u);
    ExpectSound();
    for (const PageId page : pages) {
      Drop(page);
    }
  }
}

TEST_F(PageStoreTest, FreeBytesAreExactForOneSize) {
  PagePool& pool = store_.PoolFor(1536);
  uint64_t free = store_.FreeBytes();
  EXPECT_EQ(free, 8 * 5 * 1536u);
  while (store_.Allocate(pool).valid()) {
    free -= 1536;
    ASSERT_EQ(store_.FreeBytes(), free);
  }
  EXPECT_EQ(free, 0u);
}

TEST_F(PageStoreTest, APageLargerThanTheArenaIsNeverHad) {
  PagePool& pool = store_.PoolFor(17 * 4096);
  EXPECT_FALSE(store_.Allocate(pool).valid());
  EXPECT_EQ(arena_->free_slabs(), 16u);
}

}  // namespace
}  // namespace tessera::kvcache
