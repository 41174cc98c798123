#include "kvcache/slab_arena.h"

#include <gtest/gtest.h>

#include <random>

namespace tessera::kvcache {
namespace {

std::unique_ptr<SlabArena> ArenaOf(uint64_t slabs) {
  return SlabArena::Create(slabs * 4096 + 100, 4096).value();
}

TEST(SlabArena, RoundsSlabsUpAndTheArenaDown) {
  const auto arena = SlabArena::Create(100000, 5000).value();
  EXPECT_EQ(arena->slab_bytes(), 8192u);
  EXPECT_EQ(arena->slab_count(), 12u);
  EXPECT_EQ(arena->free_slabs(), 12u);
  EXPECT_EQ(arena->SlabOf(8191), 0u);
  EXPECT_EQ(arena->SlabOf(8192), 1u);
}

TEST(SlabArena, RefusesWhatItCannotHold) {
  EXPECT_EQ(SlabArena::Create(0, 4096).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(SlabArena::Create(4095, 1).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(SlabArena::Create(UINT64_MAX, 4096).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(SlabArena::Create(4096, UINT64_MAX).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(SlabArena, RunsAreAlignedAndJoinAgain) {
  const auto arena = ArenaOf(11);
  EXPECT_EQ(arena->FreeRuns(0), 11u);
  EXPECT_EQ(arena->FreeRuns(1), 5u);
  EXPECT_EQ(arena->FreeRuns(3), 1u);
  EXPECT_EQ(arena->FreeRuns(4), 0u);
  const uint32_t one = arena->Borrow(0);
  EXPECT_EQ(one, 10u) << "best fit takes the run of one";
  const uint32_t four = arena->Borrow(2);
  EXPECT_EQ(four % 4, 0u);
  EXPECT_EQ(arena->free_slabs(), 6u);
  ASSERT_TRUE(arena->CheckInvariants().ok());
  arena->Return(four, 2);
  arena->Return(one, 0);
  EXPECT_EQ(arena->FreeRuns(3), 1u);
  EXPECT_EQ(arena->Borrow(4), SlabArena::kNoSlab);
  EXPECT_TRUE(arena->CheckInvariants().ok());
}

TEST(SlabArena, BorrowingOnlyNeverFragments) {
  for (uint32_t seed = 0; seed < 300; ++seed) {
    std::mt19937 random(seed);
    const auto arena = ArenaOf(1 + random() % 200);
    for (int i = 0; i < 60; ++i) {
      const int order = static_cast<int>(random() % 6);
      const bool fits = arena->free_slabs() >= (1u << order);
      ASSERT_EQ(arena->Borrow(order) != SlabArena::kNoSlab, fits) << "seed " << seed;
    }
    ASSERT_TRUE(arena->CheckInvariants().ok());
  }
}

TEST(SlabArena, RandomBorrowAndReturnEndsWhole) {
  for (uint32_t seed = 0; seed < 50; ++seed) {
    std::mt19937 random(seed);
    const auto arena = ArenaOf(77);
    std::vector<std::pair<uint32_t, int>> lent;
    for (int i = 0; i < 400; ++i) {
      if (random() % 2 == 0 || lent.empty()) {
        const int order = static_cast<int>(random() % 4);
        const uint64_t runs = arena->FreeRuns(order);
        const uint32_t first = arena->Borrow(order);
        ASSERT_EQ(first != SlabArena::kNoSlab, runs != 0);
        if (first != SlabArena::kNoSlab) {
          lent.emplace_back(first, order);
        }
      } else {
        std::swap(lent[random() % lent.size()], lent.back());
        arena->Return(lent.back().first, lent.back().second);
        lent.pop_back();
      }
      const Status status = arena->CheckInvariants();
      ASSERT_TRUE(status.ok()) << status << " seed " << seed;
    }
    for (const auto& [first, order] : lent) {
      arena->Return(first, order);
    }
    EXPECT_EQ(arena->FreeRuns(6), 1u);
    EXPECT_EQ(arena->free_slabs(), 77u);
  }
}

TEST(SlabArena, MemoryIsWritableToTheLastByte) {
  const auto arena = ArenaOf(4);
  arena->base()[0] = std::byte{1};
  arena->base()[arena->bytes() - 1] = std::byte{2};
  EXPECT_EQ(arena->base()[arena->bytes() - 1], std::byte{2});
}

}  // namespace
}  // namespace tessera::kvcache
