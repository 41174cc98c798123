#include "kernels/cuda/attention/prefill_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <random>
#include <span>
#include <string>
#include <tuple>
#include <vector>

namespace tessera::kernels::cuda {
namespace {

// The items and merges of a plan, by run, tile and KV head.
struct PlanParts {
  using Item = PrefillPlanItem;
  using Merge = PrefillPlanMerge;
  using Key = std::tuple<uint32_t, uint32_t, uint32_t>;

  explicit PlanParts(const std::byte* plan) {
    const auto& header = *reinterpret_cast<const PrefillPlanHeader*>(plan);
    const std::span items(reinterpret_cast<const Item*>(plan + header.items_offset), header.items);
    const std::span found(reinterpret_cast<const Merge*>(plan + header.merges_offset),
                          header.merges);
    for (const Item& item : items) parts[{item.run, item.tile, item.kv_head}].push_back(item);
    for (const Merge& merge : found) merges[{merge.run, merge.tile, merge.kv_head}] = merge;
  }

  // "" or what is wrong with those of a tile that sees keys [first, past).
  std::string FaultOf(const Key& key, int first, int past) {
    std::vector<Item>& own = parts[key];
    std::sort(own.begin(), own.end(),
              [](const Item& a, const Item& b) { return a.first_key < b.first_key; });
    const bool whole = own.size() == 1;
    int at = first;
    for (size_t i = 0; i < own.size(); ++i) {
      if (static_cast<int>(own[i].first_key) != at || own[i].past_key <= own[i].first_key) {
        return "keys that no item has, or two";
      }
      if (i > 0 && at % 128 != 0) return "a part that begins inside a tile";
      at = static_cast<int>(own[i].past_key);
      if (whole != (own[i].partial == Item::kWhole)) return "a wrong slot";
      if (!whole && own[i].partial != static_cast<int>(merges[key].partial + i)) {
        return "slots out of order";
      }
    }
    if (at != past) return "keys that no item has";
    if (!whole && merges[key].parts != own.size()) return "a wrong merge";
    if (!whole) slots += own.size();
    return "";
  }

  std::map<Key, std::vector<Item>> parts;
  std::map<Key, Merge> merges;
  size_t slots = 0;  // of tiles that were looked at
};

// "" or what is wrong with a plan of `rows`: each tile's keys must be in items once, in parts that
// begin where both kernels' tiles of keys do, with slots in order for those that are merged.
std::string FaultOf(std::span<const PrefillRow> rows, const PrefillPlanOptions& options,
                    PrefillPlan& plan) {
  constexpr size_t kGuard = 256;
  size_t queries = 0;
  for (const PrefillRow& row : rows) queries += row.q_rows;
  const size_t room = PrefillPlanBytes(rows.size(), queries, options);
  std::vector<std::byte> bytes(room + kGuard, std::byte{0xab});
  plan = BuildPrefillPlan(rows, options, bytes.data());
  if (plan.bytes > room) return "more bytes than it may have";
  if (std::any_of(bytes.end() - kGuard, bytes.end(), [](auto b) { return b != std::byte{0xab}; })) {
    return "it wrote behind its room";
  }
  if (plan.partials > options.partials) return "more slots than there are";
  PlanParts parts(bytes.data());
  const int group = static_cast<int>(options.q_heads / options.kv_heads);
  size_t tiles = 0;
  for (uint32_t r = 0; r < rows.size(); ++r) {
    const int pairs = rows[r].q_rows * group;
    for (int tile = 0; tile * kPrefillTileRows < pairs; ++tile) {
      const int last = std::min((tile + 1) * kPrefillTileRows, pairs) - 1;
      const int query = tile * kPrefillTileRows / group;
      const int first =
          options.window > 0 ? std::max(0, rows[r].position + query + 1 - options.window) : 0;
      for (uint32_t head = 0; head < options.kv_heads; ++head, ++tiles) {
        const std::string fault = parts.FaultOf({r, static_cast<uint32_t>(tile), head}, first,
                                                rows[r].position + last / group + 1);
        if (!fault.empty()) return fault;
      }
    }
  }
  if (parts.parts.size() != tiles) return "items of no tile";
  if (parts.slots != plan.partials) return "slots of no part";
  return "";
}

TEST(PrefillPlanTest, EveryKeyOfATileIsInOneItem) {
  std::mt19937 random(99);
  const auto below = [&](uint32_t bound) { return static_cast<uint32_t>(random() % bound); };
  const std::vector<uint32_t> kv_heads = {1, 2, 8, 32}, groups = {1, 3, 4, 8, 128};
  const std::vector<int32_t> windows = {0, 0, 100, 1000, 5000};
  const std::vector<uint32_t> blocks = {1, 7, 132, 264};
  int cut = 0;
  constexpr int kPlans = 500;
  for (int i = 0; i < kPlans; ++i) {
    PrefillPlanOptions options;
    options.kv_heads = kv_heads[below(4)];
    options.q_heads = options.kv_heads * groups[below(5)];
    options.window = windows[below(5)];
    options.blocks = blocks[below(4)];
    options.partials = below(8) == 0 ? 0 : PrefillPartials(options.blocks);
    std::vector<PrefillRow> rows(1 + below(5));
    for (PrefillRow& row : rows) {
      row.q_rows = static_cast<int32_t>(below(1u << below(10)));
      row.position = static_cast<int32_t>(below(1u << below(18)));
    }
    PrefillPlan plan;
    ASSERT_EQ("", FaultOf(rows, options, plan)) << "plan " << i;
    EXPECT_TRUE(options.partials > 0 || plan.merges == 0) << "plan " << i;
    cut += plan.merges > 0 ? 1 : 0;
  }
  EXPECT_GT(cut, kPlans / 10);
}

TEST(PrefillPlanTest, WhatFillsADeviceStaysWhole) {
  for (const int32_t position : {0, 16384, 57344}) {
    for (const int32_t queries : {4096, 8192}) {
      const PrefillRow row = {nullptr, 0, 0, queries, position};
      PrefillPlan plan;
      EXPECT_EQ("", FaultOf({&row, 1}, {32, 8, 0, 132, 528}, plan));
      EXPECT_EQ(plan.merges, 0u) << queries << " queries at " << position;
    }
  }
}

TEST(PrefillPlanTest, FewRowsOfALongContextAreCut) {
  const PrefillRow row = {nullptr, 0, 0, 60, 16324};
  PrefillPlan plan;
  EXPECT_EQ("", FaultOf({&row, 1}, {32, 8, 0, 132, PrefillPartials(132)}, plan));
  // 2 tiles of 8 heads: parts for most of the 132 blocks, and no more than one wave of them.
  EXPECT_EQ(plan.merges, 16u);
  EXPECT_GT(plan.partials, 100u);
  EXPECT_LE(plan.partials, 132u);
}

}  // namespace
}  // namespace tessera::kernels::cuda
