// Deals tiles of queries, and parts of long contexts, to items.
#include "kernels/cuda/attention/prefill_plan.h"

#include <algorithm>
#include <functional>
#include <vector>

namespace tessera::kernels::cuda {
namespace {

// Keys and values that may be in use at one time: part of the L2 cache, whose halves hold lines
// twice.
constexpr uint64_t kCachedBytes = uint64_t{24} << 20;
// Of a token's key and value of one KV head; an estimate for the order of work only.
constexpr uint64_t kTokenBytes = 512;
// In kPrefillPartKeys: the shortest part that a context is cut for, what an item costs besides its
// keys, and what the second kernel costs.
constexpr uint32_t kLeastPart = 4;
constexpr uint32_t kItemCost = 2;
constexpr uint32_t kMergeCost = 3;
// Items of a plan that is cut, for each block that runs at a time.
constexpr uint32_t kPartsOfBlock = 4;

uint32_t CeilDivide(uint64_t a, uint64_t b) { return static_cast<uint32_t>((a + b - 1) / b); }

// Where the contexts of a run are cut, in kPrefillPartKeys: all its tiles at the same places, so
// that those which are in work together read the same keys.
struct Cuts {
  uint32_t from;
  uint32_t length;
};

// KV heads that are worked on together: as many as the cache holds, but enough that a group's
// longest item is a small part of what each block has to do in it.
uint32_t HeadsTogether(std::span<const PrefillRow> rows, const PrefillPlanOptions& options,
                       uint64_t keys_of_head, uint64_t longest) {
  uint64_t tokens = 0;
  for (const PrefillRow& row : rows) {
    if (row.q_rows > 0) tokens += static_cast<uint64_t>(row.position) + row.q_rows;
  }
  uint64_t heads =
      std::max<uint64_t>(1, kCachedBytes / std::max<uint64_t>(1, tokens * kTokenBytes));
  if (keys_of_head > 0) {
    heads = std::max(heads, (3 * options.blocks * longest + keys_of_head - 1) / keys_of_head);
  }
  return static_cast<uint32_t>(std::min<uint64_t>(heads, options.kv_heads));
}

class PlanWriter {
 public:
  PlanWriter(std::span<const PrefillRow> rows, const PrefillPlanOptions& options, std::byte* out)
      : rows_(rows),
        options_(options),
        group_(options.q_heads / options.kv_heads),
        out_(out),
        items_(reinterpret_cast<PrefillPlanItem*>(out + sizeof(PrefillPlanHeader) +
                                                  rows.size() * sizeof(PrefillPlanRun))),
        lengths_(Kept()) {}

  PrefillPlan Write() {
    auto* runs = reinterpret_cast<PrefillPlanRun*>(out_ + sizeof(PrefillPlanHeader));
    for (size_t r = 0; r < rows_.size(); ++r) {
      const PrefillRow& row = rows_[r];
      runs[r] = {row.page_table, row.table_stride, row.q_begin, row.q_rows, row.position};
      tiles_ += TilesOf(row);
    }
    // Tiles are sorted at the end of the items' room. Whatever is written is written in their
    // order, and each tile is read before its place is.
    merges_ = reinterpret_cast<PrefillPlanMerge*>(items_ + tiles_ * options_.kv_heads +
                                                  options_.partials);
    sorted_ = reinterpret_cast<PrefillPlanItem*>(merges_) - tiles_;
    SortTiles();
    const uint32_t part = options_.partials > 0 && tiles_ > 0 ? ChoosePart() : 0;
    if (part == 0) {
      WriteTiles();
    } else {
      WriteParts(part);
    }
    return Finish();
  }

 private:
  // Kept from plan to plan: a step allocates nothing.
  static std::vector<uint32_t>& Kept() {
    static thread_local std::vector<uint32_t> lengths;
    return lengths;
  }

  uint32_t TilesOf(const PrefillRow& row) const {
    return CeilDivide(static_cast<uint64_t>(row.q_rows) * group_, kPrefillTileRows);
  }

  PrefillPlanItem TileOf(uint32_t run, uint32_t tile) const {
    const PrefillRow& row = rows_[run];
    const uint32_t first = tile * kPrefillTileRows;
    const uint32_t last = std::min<uint32_t>(first + kPrefillTileRows, row.q_rows * group_) - 1;
    const int64_t seen = int64_t{row.position} + first / group_ + 1 - options_.window;
    return {.run = run,
            .tile = tile,
            .kv_head = 0,
            .first_key = options_.window > 0 && seen > 0 ? static_cast<uint32_t>(seen) : 0,
            .past_key = row.position + last / group_ + 1,
            .partial = PrefillPlanItem::kWhole};
  }

  void SortTiles() {
    PrefillPlanItem* end = sorted_;
    for (uint32_t r = 0; r < rows_.size(); ++r) {
      for (uint32_t tile = 0; tile < TilesOf(rows_[r]); ++tile) *end++ = TileOf(r, tile);
    }
    std::sort(sorted_, end, [](const PrefillPlanItem& a, const PrefillPlanItem& b) {
      return a.past_key != b.past_key ? a.past_key > b.past_key
             : a.run != b.run         ? a.run < b.run
                                      : a.tile > b.tile;
    });
  }

  // Of parts no longer than `most`, about equal for the run's last tile.
  Cuts CutsOf(uint32_t run, uint32_t most) const {
    const PrefillPlanItem last = TileOf(run, TilesOf(rows_[run]) - 1);
    const uint32_t length =
        CeilDivide(last.past_key, kPrefillPartKeys) - last.first_key / kPrefillPartKeys;
    return {TileOf(run, 0).first_key / kPrefillPartKeys,
            CeilDivide(length, CeilDivide(length, most))};
  }

  // Calls part(first_key, past_key) in order.
  template <typename Part>
  static void ForEachPart(const PrefillPlanItem& tile, const Cuts& cuts, const Part& part) {
    uint32_t first = tile.first_key;
    while (first < tile.past_key) {
      const uint64_t done = (first / kPrefillPartKeys - cuts.from) / cuts.length;
      const uint64_t past = (cuts.from + (done + 1) * cuts.length) * kPrefillPartKeys;
      const uint32_t end = static_cast<uint32_t>(std::min<uint64_t>(tile.past_key, past));
      part(first, end);
      first = end;
    }
  }

  void AddLength(uint32_t first_key, uint32_t past_key) {
    lengths_.push_back(CeilDivide(past_key, kPrefillPartKeys) - first_key / kPrefillPartKeys);
  }

  // How long the blocks take for items of `lengths_`, one for each KV head, if the longest are
  // taken first: no less than each wave's shortest item says.
  uint64_t Duration() {
    std::sort(lengths_.begin(), lengths_.end(), std::greater<>());
    uint64_t longest = Share();
    for (uint64_t wave = 0; wave * options_.blocks < lengths_.size() * options_.kv_heads; ++wave) {
      const uint64_t length = lengths_[wave * options_.blocks / options_.kv_heads];
      longest = std::max(longest, (wave + 1) * (length + kItemCost));
    }
    return longest;
  }
  // What each block would have to do if all had the same.
  uint64_t Share() const {
    uint64_t total = 0;
    for (const uint32_t length : lengths_) total += length + kItemCost;
    return CeilDivide(total * options_.kv_heads, options_.blocks);
  }

  // The longest that a part should be, or 0 if nothing is to be cut.
  uint32_t ChoosePart() {
    lengths_.clear();
    for (size_t i = 0; i < tiles_; ++i) AddLength(sorted_[i].first_key, sorted_[i].past_key);
    uint64_t shortest = Duration() * 7 / 8;
    if (Share() + kMergeCost >= shortest) return 0;
    const uint32_t longest = lengths_.front();
    uint32_t chosen = 0;
    uint32_t tried = longest;
    for (uint32_t parts = 2; tried > kLeastPart; ++parts) {
      const uint32_t most = std::max(kLeastPart, CeilDivide(longest, parts));
      if (most == tried) continue;
      tried = most;
      if (CutTiles(most) * options_.kv_heads > options_.partials) break;
      const uint64_t duration = Duration() + kMergeCost;
      if (duration >= shortest) continue;
      shortest = duration;
      chosen = most;
    }
    return chosen;
  }
  // Makes `lengths_` of parts no longer than `most`; returns how many of them are not whole tiles.
  uint64_t CutTiles(uint32_t most) {
    lengths_.clear();
    uint64_t partials = 0;
    for (size_t i = 0; i < tiles_; ++i) {
      const size_t before = lengths_.size();
      ForEachPart(sorted_[i], CutsOf(sorted_[i].run, most),
                  [&](uint32_t first, uint32_t past) { AddLength(first, past); });
      const size_t parts = lengths_.size() - before;
      if (parts > 1) partials += parts;
    }
    return partials;
  }

  void WriteTiles() {
    uint64_t keys_of_head = 0;
    for (size_t i = 0; i < tiles_; ++i) keys_of_head += sorted_[i].past_key;
    const uint64_t longest = tiles_ > 0 ? sorted_->past_key : 0;
    const uint32_t together = HeadsTogether(rows_, options_, keys_of_head, longest);
    for (uint32_t first = 0; first < options_.kv_heads; first += together) {
      const uint32_t past = std::min(first + together, options_.kv_heads);
      for (size_t i = 0; i < tiles_; ++i) {
        PrefillPlanItem item = sorted_[i];
        for (item.kv_head = first; item.kv_head < past; ++item.kv_head)
          items_[plan_.items++] = item;
      }
    }
  }

  void WriteParts(uint32_t most) {
    for (size_t i = 0; i < tiles_; ++i) {
      const PrefillPlanItem tile = sorted_[i];
      const Cuts cuts = CutsOf(tile.run, most);
      uint32_t parts = 0;
      ForEachPart(tile, cuts, [&](uint32_t, uint32_t) { ++parts; });
      for (uint32_t head = 0; head < options_.kv_heads; ++head) {
        if (parts > 1) {
          merges_[plan_.merges++] = {tile.run, tile.tile, head, plan_.partials, parts};
        }
        ForEachPart(tile, cuts, [&](uint32_t first, uint32_t past) {
          PrefillPlanItem item = tile;
          item.kv_head = head;
          item.first_key = first;
          item.past_key = past;
          if (parts > 1) item.partial = static_cast<int32_t>(plan_.partials++);
          items_[plan_.items++] = item;
        });
      }
    }
    // The longest first; of equal ones those that read the same keys together.
    std::sort(items_, items_ + plan_.items, [](const PrefillPlanItem& a, const PrefillPlanItem& b) {
      const uint32_t a_keys = a.past_key - a.first_key;
      const uint32_t b_keys = b.past_key - b.first_key;
      return a_keys != b_keys             ? a_keys > b_keys
             : a.run != b.run             ? a.run < b.run
             : a.kv_head != b.kv_head     ? a.kv_head < b.kv_head
             : a.first_key != b.first_key ? a.first_key < b.first_key
                                          : a.tile < b.tile;
    });
  }

  PrefillPlan Finish() {
    const auto offset_of = [&](const void* place) {
      return static_cast<uint32_t>(static_cast<const std::byte*>(place) - out_);
    };
    *reinterpret_cast<PrefillPlanHeader*>(out_) = {.items = plan_.items,
                                                   .items_offset = offset_of(items_),
                                                   .next = 0,
                                                   .done = 0,
                                                   .merges = plan_.merges,
                                                   .merges_offset = offset_of(merges_)};
    plan_.bytes =
        plan_.merges > 0 ? offset_of(merges_ + plan_.merges) : offset_of(items_ + plan_.items);
    return plan_;
  }

  std::span<const PrefillRow> rows_;
  const PrefillPlanOptions& options_;
  uint32_t group_;
  std::byte* out_;
  PrefillPlanItem* items_;
  PrefillPlanMerge* merges_ = nullptr;
  PrefillPlanItem* sorted_ = nullptr;
  size_t tiles_ = 0;  // of one KV head
  PrefillPlan plan_;
  std::vector<uint32_t>& lengths_;  // in kPrefillPartKeys
};

}  // namespace

uint32_t PrefillPartials(uint32_t blocks) { return kPartsOfBlock * blocks; }

size_t PrefillWorkspaceBytes(uint32_t partials, uint32_t head_dim) {
  return size_t{partials} * kPrefillTileRows * (head_dim * sizeof(float) + 2 * sizeof(float));
}

size_t PrefillPlanBytes(size_t runs, size_t queries, const PrefillPlanOptions& options) {
  // Each run may end in a tile that is not full.
  const size_t tiles = queries * (options.q_heads / options.kv_heads) / kPrefillTileRows + runs;
  // A tile that is cut has two parts or more.
  return sizeof(PrefillPlanHeader) + runs * sizeof(PrefillPlanRun) +
         (tiles * options.kv_heads + options.partials) * sizeof(PrefillPlanItem) +
         options.partials / 2 * sizeof(PrefillPlanMerge);
}

PrefillPlan BuildPrefillPlan(std::span<const PrefillRow> rows, const PrefillPlanOptions& options,
                             std::byte* host_out) {
  return PlanWriter(rows, options, host_out).Write();
}

}  // namespace tessera::kernels::cuda
