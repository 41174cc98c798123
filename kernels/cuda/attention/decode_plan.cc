#include "kernels/cuda/attention/decode_plan.h"

#include <algorithm>
#include <vector>

#include "kernels/cuda/attention/decode_item.h"
#include "kernels/ops/kv_page.h"

namespace tessera::kernels::cuda {
namespace {

constexpr uint32_t kMinSequenceSplitPages = 8;
// What an item costs besides its pages: its queries, its merge, in pages.
constexpr double kItemPages = 3;
// Thread blocks that share a row and head meet at the end of all: rather than that a block may have
// so many pages more than its share, but no more than this part of it.
constexpr uint64_t kMeetingPages = 8;
constexpr uint64_t kUnevenPart = 8;
// Nor do all multiprocessors have to read for the memory to be busy: one of so many may be idle.
constexpr uint32_t kIdlePart = 16;

int32_t QueriesPerItem(const DecodePlanOptions& options) {
  return std::max(1, MaxDecodeColumns(options.head_dim) / (options.q_heads / options.kv_heads));
}

size_t Runs(uint32_t max_rows, int32_t max_q_rows, const DecodePlanOptions& options) {
  const int32_t queries = QueriesPerItem(options);
  return size_t{max_rows} * static_cast<size_t>((max_q_rows + queries - 1) / queries);
}

struct PageRange {
  uint32_t first = 0;
  uint32_t count = 0;
};

PageRange PagesOf(const DecodeRow& row, int32_t position, int32_t q_rows, int32_t window) {
  if (row.entries != nullptr) return {0, row.entry_count};
  const int32_t first_token = window == 0 ? 0 : std::max(0, position - window + 1);
  const auto first = static_cast<uint32_t>(first_token / kPageTokens);
  return {first, static_cast<uint32_t>((position + q_rows - 1) / kPageTokens) + 1 - first};
}

// Writes items, each into the list of a thread block.
class PlanWriter {
 public:
  PlanWriter(const DecodePlanOptions& options, uint64_t total_pages, void* out)
      : options_(options),
        total_(total_pages),
        items_(static_cast<DecodeItem*>(out)),
        end_(options.grid),
        places_(Places()) {
    bound_ = BoundOf(0);
    places_.reserve(std::max(options.grid, kMaxSequenceSplits));
  }

  // All items of one row and KV head, dealt to thread blocks in order, to each the same number of
  // pages; `row` is complete but for head, pages and splits.
  void Add(const DecodeItem& row, int32_t kv_head, PageRange range, size_t element_bytes) {
    const uint32_t whole = Take(range.count, range.count);
    if (whole == range.count) {
      Place(row, kv_head, {range.first, whole}, element_bytes);
      return;
    }
    places_.clear();
    uint32_t taken = 0;
    while (taken < range.count) {
      const uint32_t pages = Take(range.count, range.count - taken);
      places_.push_back(Place(row, kv_head, {range.first + taken, pages}, element_bytes));
      taken += pages;
    }
    for (size_t split = 0; split < places_.size(); ++split) {
      DecodeItem& item = items_[places_[split]];
      item.split = static_cast<uint16_t>(split);
      item.split_count = static_cast<uint16_t>(places_.size());
      item.partial = partials_;
    }
    partials_ += static_cast<uint32_t>(places_.size());
  }

  // The same, as `parts` items, each the only one of its thread block.
  void AddParts(const DecodeItem& row, int32_t kv_head, PageRange range, size_t element_bytes,
                uint32_t parts) {
    for (uint32_t part = 0; part < parts; ++part) {
      if (last_ != kNoItem) ++block_;
      last_ = kNoItem;
      const uint32_t begin = part * range.count / parts;
      const uint32_t end = (part + 1) * range.count / parts;
      DecodeItem& item =
          items_[Place(row, kv_head, {range.first + begin, end - begin}, element_bytes)];
      item.split = static_cast<uint16_t>(part);
      item.split_count = static_cast<uint16_t>(parts);
      item.partial = partials_;
    }
    if (parts > 1) partials_ += parts;
  }

  // The same, as one item of `block` of the `blocks` that BeginWhole was told of.
  void BeginWhole(uint32_t blocks) { places_.assign(blocks, kNoItem); }
  void AddWhole(const DecodeItem& row, int32_t kv_head, PageRange range, size_t element_bytes,
                uint32_t block) {
    block_ = block;
    last_ = places_[block];
    places_[block] = Place(row, kv_head, range, element_bytes);
    // For Finish: all of them have items.
    block_ = static_cast<uint32_t>(places_.size()) - 1;
  }

  DecodePlan Finish() {
    if (last_ == kNoItem) items_[block_] = DecodeItem{};
    while (block_ + 1 < options_.grid) items_[++block_] = DecodeItem{};
    return {size_t{end_} * sizeof(DecodeItem), count_, partials_};
  }

 private:
  // Kept from plan to plan: a step allocates nothing.
  static std::vector<uint32_t>& Places() {
    static thread_local std::vector<uint32_t> places;
    return places;
  }

  uint64_t BoundOf(uint32_t block) const { return (uint64_t{block} + 1) * total_ / options_.grid; }

  // Pages of the next item, of a row of `whole` pages with `left` to go.
  uint32_t Take(uint32_t whole, uint32_t left) {
    while (done_ >= bound_ && block_ + 1 < options_.grid) {
      if (last_ == kNoItem) items_[block_] = DecodeItem{};
      last_ = kNoItem;
      bound_ = BoundOf(++block_);
    }
    if (options_.splits == DecodeSplits::kBySequence) {
      const uint32_t fixed =
          std::max(kMinSequenceSplitPages, (whole + kMaxSequenceSplits - 1) / kMaxSequenceSplits);
      return std::min(left, fixed);
    }
    return static_cast<uint32_t>(std::min<uint64_t>(left, bound_ - std::min(bound_, done_)));
  }

  // Appends to the current block's items; returns the place.
  uint32_t Place(const DecodeItem& row, int32_t kv_head, PageRange range, size_t element_bytes) {
    const uint32_t place = last_ == kNoItem ? block_ : end_++;
    DecodeItem& item = items_[place];
    // Field by field: a copied struct with small changes stalls the processor's store forwarding.
    item.pages = static_cast<const std::byte*>(row.pages) + size_t{range.first} * element_bytes;
    item.table_stride = row.table_stride;
    item.q_begin = row.q_begin;
    item.position = row.position;
    item.first_page = range.first;
    item.page_count = range.count;
    item.kv_head = static_cast<uint16_t>(kv_head);
    item.q_rows = row.q_rows;
    item.listed = row.listed;
    item.split = 0;
    item.split_count = 1;
    item.partial = 0;
    item.next = kNoItem;
    if (last_ != kNoItem) items_[last_].next = place;
    last_ = place;
    done_ += range.count;
    ++count_;
    return place;
  }

  const DecodePlanOptions& options_;
  uint64_t total_;
  DecodeItem* items_;
  uint32_t end_;  // of the items that are not the first of a block
  uint64_t bound_ = 0;
  uint64_t done_ = 0;
  uint32_t block_ = 0;
  uint32_t last_ = kNoItem;  // of the current block
  uint32_t count_ = 0;
  uint32_t partials_ = 0;
  std::vector<uint32_t>&
      places_;  // of the current row and head; with whole heads each block's last
};

// Heads of one row that read the same pages.
struct HeadRun {
  uint32_t heads;
  uint32_t pages;  // of each
  uint32_t dealt;  // what DealParts or DealWhole says of it
};

struct Workload {
  std::vector<HeadRun>& runs = Kept();  // in the order of the rows
  uint32_t heads = 0;
  uint64_t pages = 0;  // of all heads

  Workload() { runs.clear(); }
  void Add(uint32_t run_heads, uint32_t run_pages) {
    runs.push_back({run_heads, run_pages, 1});
    heads += run_heads;
    pages += uint64_t{run_heads} * run_pages;
  }

 private:
  // Kept from plan to plan: a step allocates nothing.
  static std::vector<HeadRun>& Kept() {
    static thread_local std::vector<HeadRun> kept;
    return kept;
  }
};

// Into how many parts each run's heads are cut where every part is a thread block's only item: a
// block that is full a little longer but begins and merges once is done earlier, where pages are
// few. False where dealing pages evenly, whatever items they belong to, is better.
bool DealParts(Workload& load, uint32_t grid) {
  if (load.runs.empty() || load.heads > grid) return false;
  const auto each = [](const HeadRun& run) { return (run.pages + run.dealt - 1) / run.dealt; };
  const auto longest = [&]() -> HeadRun& {
    return *std::max_element(load.runs.begin(), load.runs.end(),
                             [&](const HeadRun& a, const HeadRun& b) { return each(a) < each(b); });
  };
  uint32_t blocks = load.heads;
  while (true) {
    HeadRun& run = longest();
    if (run.pages <= run.dealt || blocks + run.heads > grid) break;
    ++run.dealt;
    blocks += run.heads;
  }
  const uint32_t most = each(longest());
  // No more parts than that takes.
  for (HeadRun& run : load.runs) {
    run.dealt = std::max(1u, (run.pages + most - 1) / std::max(most, 1u));
  }
  return most + kItemPages <= static_cast<double>(load.pages) / grid + 2 * kItemPages;
}

// The block of the head at `place` in DealWhole's order: from the first block to the last and back.
uint32_t WholeBlockOf(uint32_t place, uint32_t blocks) {
  const uint32_t column = place % blocks;
  return place / blocks % 2 == 0 ? column : blocks - 1 - column;
}

// Gives each of several blocks several whole heads, the longest first: each run the place of its
// first head. Returns how many blocks have some; 0 where some block would have too much.
uint32_t DealWhole(Workload& load, uint32_t grid) {
  if (load.heads <= grid) return 0;
  const uint32_t each = (load.heads + grid - 1) / grid;
  const uint32_t blocks = (load.heads + each - 1) / each;
  if (blocks < grid - grid / kIdlePart) return 0;
  static thread_local std::vector<HeadRun*> order;
  static thread_local std::vector<uint64_t> pages;  // of each block
  order.clear();
  for (HeadRun& run : load.runs) order.push_back(&run);
  std::sort(order.begin(), order.end(), [](const HeadRun* a, const HeadRun* b) {
    return a->pages != b->pages ? a->pages > b->pages : a < b;
  });
  pages.assign(blocks, 0);
  uint32_t place = 0;
  for (HeadRun* run : order) {
    run->dealt = place;
    for (const uint32_t end = place + run->heads; place < end; ++place) {
      pages[WholeBlockOf(place, blocks)] += run->pages;
    }
  }
  const uint64_t share = load.pages / blocks;
  const uint64_t most = *std::max_element(pages.begin(), pages.end());
  return most <= share + std::min(kMeetingPages, share / kUnevenPart) ? blocks : 0;
}

// Calls `visit(position, queries, q_begin)` for the runs that a row is cut into.
template <typename Visit>
void ForEachRun(const DecodeRow& row, int32_t queries_per_item, const Visit& visit) {
  for (int32_t done = 0; done < row.q_rows; done += queries_per_item) {
    visit(row.position + done, std::min(queries_per_item, row.q_rows - done), row.q_begin + done);
  }
}

}  // namespace

size_t DecodePlanBytes(uint32_t max_rows, int32_t max_q_rows, const DecodePlanOptions& options) {
  const size_t heads = Runs(max_rows, max_q_rows, options) * static_cast<size_t>(options.kv_heads);
  const size_t items = options.splits == DecodeSplits::kBySequence ? heads * kMaxSequenceSplits
                                                                   : heads + options.grid;
  return (items + options.grid) * sizeof(DecodeItem);
}

size_t DecodePartials(uint32_t max_rows, int32_t max_q_rows, const DecodePlanOptions& options) {
  if (options.splits == DecodeSplits::kBalanced) return size_t{2} * options.grid;
  return Runs(max_rows, max_q_rows, options) * static_cast<size_t>(options.kv_heads) *
         kMaxSequenceSplits;
}

DecodePlan BuildDecodePlan(std::span<const DecodeRow> rows, const DecodePlanOptions& options,
                           void* host_out) {
  const int32_t queries = QueriesPerItem(options);
  Workload load;
  for (const DecodeRow& row : rows) {
    const uint32_t heads = row.kv_head < 0 ? static_cast<uint32_t>(options.kv_heads) : 1;
    ForEachRun(row, queries, [&](int32_t position, int32_t q_rows, int32_t) {
      load.Add(heads, PagesOf(row, position, q_rows, options.window).count);
    });
  }
  const bool balanced = options.splits == DecodeSplits::kBalanced;
  const bool apart = balanced && DealParts(load, options.grid);
  const uint32_t whole_blocks = balanced && !apart ? DealWhole(load, options.grid) : 0;
  PlanWriter writer(options, load.pages, host_out);
  if (whole_blocks > 0) writer.BeginWhole(whole_blocks);
  size_t next = 0;
  for (const DecodeRow& row : rows) {
    const bool listed = row.entries != nullptr;
    const int32_t first_head = std::max(row.kv_head, 0);
    const int32_t end_head = row.kv_head < 0 ? options.kv_heads : row.kv_head + 1;
    ForEachRun(row, queries, [&](int32_t position, int32_t q_rows, int32_t q_begin) {
      const PageRange range = PagesOf(row, position, q_rows, options.window);
      DecodeItem item{};
      item.table_stride = row.table_stride;
      item.q_begin = q_begin;
      item.position = position;
      item.q_rows = static_cast<uint8_t>(q_rows);
      item.listed = listed ? 1 : 0;
      item.pages = listed ? static_cast<const void*>(row.entries) : row.page_table;
      const size_t element = listed ? sizeof(PageEntry) : sizeof(PageId);
      const uint32_t dealt = load.runs[next++].dealt;
      for (int32_t head = first_head; head < end_head; ++head) {
        if (apart) {
          writer.AddParts(item, head, range, element, dealt);
        } else if (whole_blocks > 0) {
          const uint32_t place = dealt + static_cast<uint32_t>(head - first_head);
          writer.AddWhole(item, head, range, element, WholeBlockOf(place, whole_blocks));
        } else {
          writer.Add(item, head, range, element);
        }
      }
    });
  }
  return writer.Finish();
}

}  // namespace tessera::kernels::cuda
