#include "kernels/cuda/attention/decode_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/attention/decode_item.h"
#include "kernels/ops/kv_page.h"

namespace tessera::kernels::cuda {
namespace {

constexpr uint32_t kGrid = 132;
constexpr int32_t kHeads = 8;

// The items of a plan of rows of one query each, by thread block.
class BuiltPlan {
 public:
  explicit BuiltPlan(const std::vector<int>& tokens, uint32_t grid = kGrid,
                     DecodeSplits splits = DecodeSplits::kBalanced)
      : tokens_(tokens),
        options_{.q_heads = 4 * kHeads,
                 .kv_heads = kHeads,
                 .head_dim = 128,
                 .grid = grid,
                 .splits = splits},
        bytes_(DecodePlanBytes(static_cast<uint32_t>(tokens.size()), 1, options_) + 16) {
    std::vector<DecodeRow> rows;
    for (const int count : tokens) {
      rows.push_back({.q_begin = static_cast<int32_t>(rows.size()),
                      .q_rows = 1,
                      .position = count - 1,
                      .page_table = table_});
    }
    plan_ = BuildDecodePlan(rows, options_, Items());
    EXPECT_LE(plan_.bytes, bytes_.size() - 16);
    EXPECT_LE(plan_.partials, DecodePartials(static_cast<uint32_t>(tokens.size()), 1, options_));
    for (uint32_t block = 0; block < grid; ++block) Follow(block);
  }

  // "" or what is wrong: every page of every row and head is read once, parts of a head are
  // numbered in the order of its pages, and no part waits for one of a later block.
  [[nodiscard]] std::string Fault() const {
    uint32_t items = 0, partials = 0;
    for (int32_t row = 0; row < static_cast<int32_t>(tokens_.size()); ++row) {
      const auto pages = static_cast<uint32_t>(
          (tokens_[static_cast<size_t>(row)] + kPageTokens - 1) / kPageTokens);
      for (uint16_t head = 0; head < kHeads; ++head) {
        const auto found = parts_.find({row, head});
        if (found == parts_.end()) return "a head that nobody reads";
        std::vector<std::pair<uint32_t, DecodeItem>> own = found->second;
        std::sort(own.begin(), own.end(), [](const auto& a, const auto& b) {
          return a.second.first_page < b.second.first_page;
        });
        uint32_t at = 0, block = 0;
        for (size_t i = 0; i < own.size(); ++i) {
          const DecodeItem& item = own[i].second;
          if (item.first_page != at) return "pages that no item has, or two";
          at += item.page_count;
          if (item.split != i || item.split_count != own.size()) return "a wrong number";
          if (item.partial != own[0].second.partial) return "slots apart";
          if (own[i].first < block) return "a part that waits for a later block";
          block = own[i].first;
        }
        if (at != pages) return "pages that no item has";
        items += static_cast<uint32_t>(own.size());
        if (own.size() > 1) partials += static_cast<uint32_t>(own.size());
      }
    }
    if (items != plan_.items) return "items that belong to no row";
    return partials == plan_.partials ? "" : "a wrong number of slots";
  }
  // Pages of the blocks that have some: the fewest and the most.
  [[nodiscard]] std::pair<uint64_t, uint64_t> Loads() const {
    const auto [least, most] = std::minmax_element(loads_.begin(), loads_.end());
    return {*least, *most};
  }
  [[nodiscard]] size_t blocks() const { return loads_.size(); }
  [[nodiscard]] uint32_t partials() const { return plan_.partials; }

 private:
  DecodeItem* Items() {
    return reinterpret_cast<DecodeItem*>((reinterpret_cast<uintptr_t>(bytes_.data()) + 15) / 16 *
                                         16);
  }
  void Follow(uint32_t block) {
    const DecodeItem* const items = Items();
    if (items[block].q_rows == 0) return;
    uint64_t pages = 0;
    for (uint32_t i = block; i != kNoItem; i = items[i].next) {
      ASSERT_LT(i * sizeof(DecodeItem), plan_.bytes);
      parts_[{items[i].q_begin, items[i].kv_head}].push_back({block, items[i]});
      pages += items[i].page_count;
    }
    loads_.push_back(pages);
  }

  const std::vector<int> tokens_;
  const PageId* const table_ = reinterpret_cast<const PageId*>(uintptr_t{1} << 32);
  DecodePlanOptions options_;
  std::vector<std::byte> bytes_;
  DecodePlan plan_;
  std::map<std::pair<int32_t, uint16_t>, std::vector<std::pair<uint32_t, DecodeItem>>> parts_;
  std::vector<uint64_t> loads_;
};

TEST(DecodePlan, ReadsEveryPageOnce) {
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    std::vector<int> tokens(1 + random() % 80);
    const uint32_t longest = 1u << (1 + random() % 14);
    for (int& count : tokens) count = 1 + static_cast<int>(random() % longest);
    const uint32_t grid = random() % 3 == 0 ? 1 + random() % 20 : kGrid;
    const auto splits = random() % 4 == 0 ? DecodeSplits::kBySequence : DecodeSplits::kBalanced;
    ASSERT_EQ(BuiltPlan(tokens, grid, splits).Fault(), "") << round;
  }
  EXPECT_EQ(BuiltPlan({}).blocks(), 0u);
}

TEST(DecodePlan, HeadsStayWholeWhereBlocksHaveSeveral) {
  for (const int rows : {32, 48, 64, 256}) {
    const BuiltPlan plan(std::vector<int>(static_cast<size_t>(rows), 1056));
    EXPECT_EQ(plan.Fault(), "");
    EXPECT_EQ(plan.partials(), 0u) << rows;
    EXPECT_EQ(plan.blocks(), 128u) << rows;
    EXPECT_EQ(plan.Loads().first, plan.Loads().second) << rows;
  }
  // Of different lengths, too: the longest beside the shortest.
  std::mt19937 random(2);
  std::vector<int> tokens(64);
  for (int& count : tokens) count = 1024 + static_cast<int>(random() % 256);
  const BuiltPlan plan(tokens);
  EXPECT_EQ(plan.Fault(), "");
  EXPECT_EQ(plan.partials(), 0u);
  EXPECT_LE(plan.Loads().second, plan.Loads().first + 4);
}

TEST(DecodePlan, HeadsAreCutWhereBlocksWouldBeIdle) {
  // Two and a half heads a block.
  for (const std::vector<int>& tokens :
       {std::vector<int>(40, 1056), std::vector<int>(8, 16400), std::vector<int>(1, 131072)}) {
    const BuiltPlan plan(tokens);
    EXPECT_EQ(plan.Fault(), "");
    EXPECT_GT(plan.partials(), 0u);
    EXPECT_EQ(plan.blocks(), kGrid);
    EXPECT_LE(plan.Loads().second, plan.Loads().first + 1);
  }
  // One head that is longer than all others together.
  std::vector<int> tokens(64, 64);
  tokens[5] = 64 * 4096;
  const BuiltPlan plan(tokens);
  EXPECT_EQ(plan.Fault(), "");
  EXPECT_LE(plan.Loads().second, plan.Loads().first + 1);
}

}  // namespace
}  // namespace tessera::kernels::cuda
