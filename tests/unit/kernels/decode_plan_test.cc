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

struct Row {
  int tokens;                         // up to its last query
  int queries = 1;                    // at most `tokens`
  int head = DecodeRow::kAllKvHeads;  // or the one that it is for
};
using Rows = std::vector<Row>;

Rows Alike(int count, int tokens) { return Rows(static_cast<size_t>(count), Row{tokens}); }

DecodePlanOptions OptionsOf(uint32_t grid, DecodeSplits splits, int window = 0) {
  return {.q_heads = 4 * kHeads,
          .kv_heads = kHeads,
          .head_dim = 256,
          .window = window,
          .grid = grid,
          .splits = splits};
}
// Of a run of a row: with four query heads a KV head.
constexpr int kMostQueries = MaxDecodeColumns(256) / 4;

// The items of a plan, by thread block.
class BuiltPlan {
 public:
  explicit BuiltPlan(const Rows& rows,
                     const DecodePlanOptions& options = OptionsOf(kGrid, DecodeSplits::kBalanced))
      : rows_(rows), options_(options) {
    std::vector<DecodeRow> planned;
    int32_t at = 0, most = 1;
    for (const Row& row : rows) {
      planned.push_back({.q_begin = at,
                         .q_rows = row.queries,
                         .position = row.tokens - row.queries,
                         .kv_head = row.head,
                         .page_table = table_});
      at += row.queries;
      most = std::max(most, row.queries);
    }
    const auto count = static_cast<uint32_t>(rows.size());
    bytes_.resize(DecodePlanBytes(count, most, options_) + 16);
    plan_ = BuildDecodePlan(planned, options_, Items());
    EXPECT_LE(plan_.bytes, bytes_.size() - 16);
    EXPECT_LE(plan_.partials, DecodePartials(count, most, options_));
    for (uint32_t block = 0; block < options_.grid; ++block) Follow(block);
  }

  // "" or what is wrong: every page of every run and head is read once, parts of a head are
  // numbered in the order of its pages, and no part waits for one of a later block.
  [[nodiscard]] std::string Fault() {
    int32_t at = 0;
    for (const Row& row : rows_) {
      for (int done = 0; done < row.queries; done += kMostQueries) {
        const int queries = std::min(kMostQueries, row.queries - done);
        const int position = row.tokens - row.queries + done;
        for (int head = std::max(row.head, 0); head < (row.head < 0 ? kHeads : row.head + 1);
             ++head) {
          const std::string fault = FaultOf(at + done, head, position, queries);
          if (!fault.empty()) return fault;
        }
      }
      at += row.queries;
    }
    if (items_ != plan_.items) return "items that belong to no row";
    return slots_ == plan_.partials ? "" : "a wrong number of slots";
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
  std::string FaultOf(int32_t q_begin, int head, int position, int queries) {
    auto& own = parts_[{q_begin, static_cast<uint16_t>(head)}];
    std::sort(own.begin(), own.end(), [](const auto& a, const auto& b) {
      return a.second.first_page < b.second.first_page;
    });
    const int window = options_.window;
    uint32_t page = window == 0 ? 0 : std::max(0, position - window + 1) / kPageTokens, block = 0;
    for (size_t i = 0; i < own.size(); ++i) {
      const DecodeItem& item = own[i].second;
      if (item.q_rows != queries || item.position != position) return "other queries";
      if (item.first_page != page) return "pages that no item has, or two";
      page += item.page_count;
      if (item.split != i || item.split_count != own.size()) return "a wrong number";
      if (item.partial != own[0].second.partial) return "slots apart";
      if (own[i].first < block) return "a part that waits for a later block";
      block = own[i].first;
    }
    items_ += static_cast<uint32_t>(own.size());
    if (own.size() > 1) slots_ += static_cast<uint32_t>(own.size());
    const int past = (position + queries - 1) / kPageTokens + 1;
    return page == static_cast<uint32_t>(past) ? "" : "pages that no item has";
  }

  const Rows rows_;
  const PageId* const table_ = reinterpret_cast<const PageId*>(uintptr_t{1} << 32);
  const DecodePlanOptions options_;
  std::vector<std::byte> bytes_;
  DecodePlan plan_;
  std::map<std::pair<int32_t, uint16_t>, std::vector<std::pair<uint32_t, DecodeItem>>> parts_;
  std::vector<uint64_t> loads_;
  uint32_t items_ = 0, slots_ = 0;  // of runs that were looked at
};

TEST(DecodePlan, ReadsEveryPageOnce) {
  std::mt19937 random(1);
  for (int round = 0; round < 400; ++round) {
    const int longest = 1 << (1 + random() % 14);
    const bool are_runs = random() % 3 == 0, are_for_heads = random() % 4 == 0;
    Rows rows(1 + random() % 80);
    for (Row& row : rows) {
      row.tokens = 1 + static_cast<int>(random() % static_cast<uint32_t>(longest));
      if (are_runs) row.queries = 1 + static_cast<int>(random() % 8) % row.tokens;
      if (are_for_heads) row.head = static_cast<int>(random() % kHeads);
    }
    const uint32_t grid = random() % 3 == 0 ? 1 + random() % 20 : kGrid;
    const auto splits = random() % 4 == 0 ? DecodeSplits::kBySequence : DecodeSplits::kBalanced;
    const int window = random() % 3 == 0 ? 1 + static_cast<int>(random() % 2000) : 0;
    ASSERT_EQ(BuiltPlan(rows, OptionsOf(grid, splits, window)).Fault(), "") << round;
  }
  EXPECT_EQ(BuiltPlan({}).blocks(), 0u);
}

TEST(DecodePlan, HeadsStayWholeWhereBlocksHaveSeveral) {
  for (const int rows : {32, 48, 64, 256}) {
    BuiltPlan plan(Alike(rows, 1056));
    EXPECT_EQ(plan.Fault(), "");
    EXPECT_EQ(plan.partials(), 0u) << rows;
    EXPECT_EQ(plan.blocks(), 128u) << rows;
    EXPECT_EQ(plan.Loads().first, plan.Loads().second) << rows;
  }
  // Of different lengths, too: the longest beside the shortest.
  std::mt19937 random(2);
  Rows rows(64);
  for (Row& row : rows) row.tokens = 1024 + static_cast<int>(random() % 256);
  BuiltPlan plan(rows);
  EXPECT_EQ(plan.Fault(), "");
  EXPECT_EQ(plan.partials(), 0u);
  EXPECT_LE(plan.Loads().second, plan.Loads().first + 1);
}

TEST(DecodePlan, HeadsAreCutWhereBlocksWouldBeIdle) {
  // Two and a half heads a block.
  for (const Rows& rows : {Alike(40, 1056), Alike(8, 16400), Alike(1, 131072)}) {
    BuiltPlan plan(rows);
    EXPECT_EQ(plan.Fault(), "");
    EXPECT_GT(plan.partials(), 0u);
    EXPECT_EQ(plan.blocks(), kGrid);
    EXPECT_LE(plan.Loads().second, plan.Loads().first + 1);
  }
  // One head that is longer than all others together.
  Rows rows = Alike(64, 64);
  rows[5].tokens = 64 * 4096;
  BuiltPlan plan(rows);
  EXPECT_EQ(plan.Fault(), "");
  EXPECT_LE(plan.Loads().second, plan.Loads().first + 1);
}

}  // namespace
}  // namespace tessera::kernels::cuda
