// Cuts the attention plan into units (row, KV head, some of its query heads, some queries) that
// threads take as they come; few units of long rows are cut into their runs of pages.
#include <algorithm>
#include <atomic>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/ops/append_row.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/registry.h"

namespace tessera::kernels::cpu {
namespace {

constexpr int32_t kMaxListedHeads = 8;  // bits of PageEntry::query_heads
static_assert(kMaxListedHeads <= kPartItems);
static_assert(kPageUnit == kPageUnitBytes);

// Bytes of a thread's scratch that a call works in; the parts of split launches lie behind them.
size_t AttentionWorkBytes(uint64_t head_dim) {
  const auto width = static_cast<int64_t>(head_dim);
  return sizeof(float) * static_cast<size_t>(std::max(AttentionScratchFloats(width),
                                                      TileAttentionScratchFloats(width)));
}
constexpr int64_t kPartsEach = 16;  // parts in the scratch of each thread

struct AttentionUnits {
  int32_t heads_each;
  int32_t head_parts;
  int32_t queries_each;
  int32_t query_parts;
  int32_t kv_heads;
  [[nodiscard]] int64_t count() const { return int64_t{kv_heads} * head_parts * query_parts; }
};

AttentionUnits AttentionUnitsOf(const AttentionOp::Params& p, const AttentionRow& row,
                                int32_t items) {
  AttentionUnits u;
  const int32_t group = p.q_heads / static_cast<int32_t>(p.kv.kv_heads);
  u.heads_each = std::min(group, kMaxListedHeads);
  u.head_parts = (group + u.heads_each - 1) / u.heads_each;
  u.queries_each = items / u.heads_each;
  u.query_parts = (row.q_rows + u.queries_each - 1) / u.queries_each;
  u.kv_heads = row.kv_head == AttentionRow::kAllKvHeads ? static_cast<int32_t>(p.kv.kv_heads) : 1;
  return u;
}

int64_t ElementBytes(DType kv) { return kv == DType::kF32 ? 4 : 2; }

// Rough costs of a row for one thread: its products, and, which counts where queries are few, the
// pages that it reads.
struct RowCost {
  double products_ns = 0, bytes_ns = 0;
  [[nodiscard]] double ns() const { return std::max(products_ns, bytes_ns); }
};
RowCost CostOf(const AttentionOp::Params& p, const AttentionRow& row) {
  constexpr double kProductsEachNs = 40, kBytesEachNs = 11;
  double tokens = row.page_table != nullptr ? row.position + 0.5 * row.q_rows
                                            : 64.0 * static_cast<double>(row.entries.size());
  if (p.window > 0) tokens = std::min<double>(tokens, p.window);
  const int64_t kv_heads = row.kv_head == AttentionRow::kAllKvHeads ? p.kv.kv_heads : 1;
  const int64_t planes = p.kv.latent ? 1 : 2;
  const int64_t token_bytes = planes * kv_heads * p.kv.head_dim * ElementBytes(p.kv.dtype);
  return {.products_ns = tokens * row.q_rows * p.q_heads * p.kv.head_dim / kProductsEachNs,
          .bytes_ns = tokens * static_cast<double>(token_bytes) / kBytesEachNs};
}

// The sinks of the first of the unit's heads; null: none.
const float* SinksOf(const AttentionOp::Params& p, const AttentionRow& row, int32_t head) {
  for (const AttentionSinks& of : p.sinks) {
    if (row.q_begin >= of.row_begin && row.q_begin < of.row_begin + of.row_count) {
      return of.sinks + head;
    }
  }
  return nullptr;
}

AttentionCall CallOf(const AttentionOp::Params& p, const AttentionRow& row, const AttentionUnits& u,
                     int64_t unit) {
  const int32_t head_dim = static_cast<int32_t>(p.kv.head_dim);
  const int32_t group = p.q_heads / static_cast<int32_t>(p.kv.kv_heads);
  const int32_t part = static_cast<int32_t>(unit % u.head_parts);
  const int32_t kv = static_cast<int32_t>(unit / u.head_parts % u.kv_heads);
  // Later queries read more: they go first.
  const int32_t block = u.query_parts - 1 - static_cast<int32_t>(unit / u.head_parts / u.kv_heads);
  const int32_t kv_head = row.kv_head == AttentionRow::kAllKvHeads ? kv : row.kv_head;
  const int32_t first = block * u.queries_each;
  const int64_t out_stride = int64_t{p.q_heads} * head_dim;
  const int32_t head = kv_head * group + part * u.heads_each;
  const int64_t q_row = int64_t{row.q_begin} + first;
  const int64_t plane = int64_t{kv_head} * head_dim * kPageTokens * ElementBytes(p.kv.dtype);
  AttentionCall call = {};
  call.arena = p.arena;
  call.q = static_cast<const float*>(p.q) + q_row * p.q_stride + int64_t{head} * head_dim;
  call.out = static_cast<float*>(p.out) + q_row * out_stride + int64_t{head} * head_dim;
  call.q_stride = p.q_stride;
  call.out_stride = out_stride;
  call.queries = std::min(u.queries_each, row.q_rows - first);
  call.heads = std::min(u.heads_each, group - part * u.heads_each);
  call.position = row.position + first;
  call.head_dim = head_dim;
  call.k_offset = plane;
  call.v_offset = static_cast<int64_t>(p.kv.v_offset()) + plane;
  // PageId is one uint32, PageEntry two.
  if (row.page_table != nullptr) {
    const PageId* table = row.page_table + uint64_t{p.table} * row.table_stride;
    call.table = reinterpret_cast<const uint32_t*>(table);
  }
  call.entries = reinterpret_cast<const uint32_t*>(row.entries.data());
  call.entry_count = static_cast<int32_t>(row.entries.size());
  call.first_head = part * u.heads_each;
  call.scale = p.scale;
  call.softcap = p.softcap;
  call.window = p.window;
  call.sinks = SinksOf(p, row, head);
  return call;
}

template <CpuIsa isa>
void Run(ExecContext& context, const AttentionOp::Params& p) {
  AttentionKernels kernels = Micro<isa>::kAttention;
  if constexpr (isa == CpuIsa::kAmx) {
    kernels.attend[static_cast<int>(DType::kBF16)] = AmxAttend;
    kernels.items[static_cast<int>(DType::kBF16)] = kTileItems;
  }
  RunAttention(context, p, kernels);
}

std::string Missing(const AttentionOp::Desc& desc) {
  const std::string kv = MissingKv(desc.kv);
  if (!kv.empty()) return kv;
  if (desc.q_heads <= 0 || desc.q_heads % desc.kv.kv_heads != 0) {
    return absl::StrCat("q_heads ", desc.q_heads, " (a multiple of kv_heads)");
  }
  if (desc.append.has_value()) {
    const std::string append = MissingAppend(*desc.append);
    if (!append.empty()) return append;
  }
  return desc.window >= 0 ? "" : absl::StrCat("window ", desc.window);
}

// The runs of pages that a decoding row reads.
struct Runs {
  int64_t begin;
  int64_t end;
};
Runs RunsOf(const AttentionOp::Params& p, const AttentionRow& row) {
  constexpr int64_t kTokens = kRunPages * static_cast<int64_t>(kPageTokens);
  const int64_t seen = int64_t{row.position} + 1;
  const int64_t before = p.window > 0 ? std::max<int64_t>(0, seen - p.window) : 0;
  return {before / kTokens, (seen + kTokens - 1) / kTokens};
}

// The units of a launch, in their order.
class Walk {
 public:
  Walk(const AttentionOp::Params& p, int32_t items) : p_(p), items_(items), row_(RowUnits()) {}

  // No unit before the last one that was asked for.
  AttentionCall To(int64_t unit) {
    while (unit - before_ >= row_.count()) {
      before_ += row_.count();
      ++at_;
      row_ = RowUnits();
    }
    index_ = unit - before_;
    return CallOf(p_, p_.plan.rows[at_], row_, index_);
  }
  // Of the unit asked for, where the rows decode: its row of the launch, and its KV head.
  [[nodiscard]] int32_t row() const { return p_.plan.rows[at_].q_begin; }
  [[nodiscard]] int64_t kv_head() const { return index_ / row_.head_parts; }

 private:
  [[nodiscard]] AttentionUnits RowUnits() const {
    return AttentionUnitsOf(p_, p_.plan.rows[at_], items_);
  }

  const AttentionOp::Params& p_;
  const int32_t items_;
  int64_t before_ = 0;  // units of rows before at_
  int64_t index_ = 0;   // of the row's units
  size_t at_ = 0;
  AttentionUnits row_;
};

// Whether units append what they read last: each row decodes, and a unit has all heads that read
// its keys.
bool AppendsByUnit(const AttentionOp::Params& p, int32_t items) {
  if (static_cast<int64_t>(p.plan.rows.size()) != p.append->rows) return false;
  return std::all_of(p.plan.rows.begin(), p.plan.rows.end(), [&](const AttentionRow& row) {
    return row.page_table != nullptr && row.q_rows == 1 &&
           row.kv_head == AttentionRow::kAllKvHeads &&
           AttentionUnitsOf(p, row, items).head_parts == 1;
  });
}

// Neighbours that one thread takes at a time, so that it can fetch what it needs next: where units
// are short, so that their beginnings count, and enough are left to share.
int64_t Together(int64_t units, double products_ns, int64_t threads) {
  constexpr int64_t kParts = 4;  // of a thread, at least
  constexpr int64_t kMost = 4;
  constexpr double kShortNs = 10'000;
  if (products_ns > kShortNs * static_cast<double>(units)) return 1;
  return std::clamp<int64_t>(units / (threads * kParts), 1, kMost);
}

// What `call` fetches is what `next` reads first.
void Precede(AttentionCall& call, const AttentionCall& next) {
  constexpr int64_t kTokens = kPageTokens;
  uint32_t page = 0;
  int64_t tokens = kTokens;
  if (next.table != nullptr) {
    const int64_t before = int64_t{next.position} + 1 - next.window;
    const int64_t first = next.window > 0 && before > 0 ? before / kTokens : 0;
    page = next.table[first];
    tokens = std::min(tokens, int64_t{next.position} + next.queries - first * kTokens);
  } else {
    if (next.entry_count == 0) return;
    page = next.entries[0];
  }
  call.after = next.arena + uint64_t{page} * kPageUnit + next.k_offset;
  call.after_tokens = static_cast<int32_t>(tokens);
}

// A launch of few units, each cut into runs. The first slots of the pool keep each unit's total,
// the others are parts of the runs that are under way.
class SplitLaunch {
 public:
  SplitLaunch(ExecContext& context, const AttentionOp::Params& p, const AttentionKernels& kernels)
      : context_(context),
        p_(p),
        kernels_(kernels),
        type_(static_cast<size_t>(p.kv.dtype)),
        slots_(context.pool().threads() * kPartsEach) {
    for (const AttentionRow& row : p.plan.rows) {
      if (row.page_table == nullptr || row.q_rows != 1) return;
      const int64_t count = AttentionUnitsOf(p, row, kPartItems).count();
      // With more of them than this the threads are busy anyway.
      if (units_ + count > std::min<int64_t>(kMost, 4 * context.pool().threads() - 1)) return;
      for (int64_t i = 0; i < count; ++i) row_[units_++] = {&row, i};
      const Runs runs = RunsOf(p, row);
      begin_ = std::min(begin_, runs.begin);
      end_ = std::max(end_, runs.end);
    }
    worth_ = context.pool().threads() > 1 && end_ > begin_ + 1 && 4 * units_ <= slots_;
  }
  [[nodiscard]] bool worth() const { return worth_; }

  void Run(double ns) {
    const int64_t each = std::min((slots_ - units_) / units_, end_ - begin_);
    for (int64_t wave = begin_; wave < end_; wave += each) {
      for (int64_t i = 0; i < units_; ++i) left_[i].store(each, std::memory_order_relaxed);
      ForEachTaken(context_, units_ * each, ns, [&](auto next, int thread) {
        for (int64_t piece = next(); piece < units_ * each; piece = next()) {
          Piece(piece % units_, wave, piece / units_, each, thread);
        }
      });
    }
  }

 private:
  static constexpr int64_t kMost = 64;

  float* Slot(int64_t slot) {
    std::byte* at =
        context_.scratch(static_cast<int>(slot / kPartsEach)) + AttentionWorkBytes(p_.kv.head_dim);
    return reinterpret_cast<float*>(at) +
           slot % kPartsEach * AttentionPartFloats(static_cast<int64_t>(p_.kv.head_dim));
  }

  // The unit's run `wave + index`; who ends the last one of a wave adds them up.
  void Piece(int64_t unit, int64_t wave, int64_t index, int64_t each, int thread) {
    const AttentionRow& row = *row_[unit].row;
    AttentionCall call = CallOf(p_, row, AttentionUnitsOf(p_, row, kPartItems), row_[unit].index);
    call.scratch = reinterpret_cast<float*>(context_.scratch(thread));
    call.run = wave + index;
    const Runs runs = RunsOf(p_, row);
    const auto part_of = [&](int64_t i) { return Slot(units_ + unit * each + i); };
    if (call.run >= runs.begin && call.run < runs.end) {
      call.part = part_of(index);
      kernels_.attend[type_](call);
    }
    if (left_[unit].fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    const int64_t begin = std::max(wave, runs.begin);
    const int64_t end = std::min(wave + each, runs.end);
    for (int64_t run = begin; run < end; ++run) {
      kernels_.fold[type_](call, {.total = Slot(unit),
                                  .part = part_of(run - wave),
                                  .begin = run == runs.begin ? 1 : 0,
                                  .finish = run + 1 == runs.end ? 1 : 0});
    }
  }

  struct Unit {
    const AttentionRow* row;
    int64_t index;  // of the row's units
  };
  ExecContext& context_;
  const AttentionOp::Params& p_;
  const AttentionKernels& kernels_;
  const size_t type_;
  const int64_t slots_;
  Unit row_[kMost];
  std::atomic<int64_t> left_[kMost];  // pieces of a wave that are not done
  int64_t units_ = 0;
  int64_t begin_ = INT64_MAX, end_ = 0;  // runs of all units
  bool worth_ = false;
};

}  // namespace

size_t AttentionScratchBytes(uint64_t head_dim) {
  return AttentionWorkBytes(head_dim) +
         kPartsEach * sizeof(float) *
             static_cast<size_t>(AttentionPartFloats(static_cast<int64_t>(head_dim)));
}

void RunAttention(ExecContext& context, const AttentionOp::Params& p,
                  const AttentionKernels& kernels) {
  const auto type = static_cast<size_t>(p.kv.dtype);
  const int32_t items = kernels.items[type];
  int64_t units = 0;
  double ns = 0, products_ns = 0;
  for (const AttentionRow& row : p.plan.rows) {
    units += AttentionUnitsOf(p, row, items).count();
    const RowCost cost = CostOf(p, row);
    ns += cost.ns();
    products_ns += cost.products_ns;
  }
  SplitLaunch split(context, p, kernels);
  const bool appends = p.append != nullptr && !split.worth() && AppendsByUnit(p, items);
  if (p.append != nullptr && !appends) AppendRows(context, *p.append, kernels);
  if (split.worth()) return split.Run(ns);
  const int64_t each = Together(units, products_ns, context.pool().threads());
  const int64_t parts = (units + each - 1) / each;
  const int32_t group = p.q_heads / static_cast<int32_t>(p.kv.kv_heads);
  ForEachTaken(context, parts, ns, [&](auto next, int thread) {
    Walk walk(p, items);
    float* const scratch = reinterpret_cast<float*>(context.scratch(thread));
    const auto append = [&] {
      AppendRow row(kernels, *p.append, walk.row());
      row.RotateQueries(walk.kv_head() * group, group);
      row.Store(walk.kv_head(), scratch);
    };
    for (int64_t part = next(); part < parts; part = next()) {
      const int64_t end = std::min(units, (part + 1) * each);
      AttentionCall call = walk.To(part * each);
      if (appends) {
        AppendRow(kernels, *p.append, walk.row()).AskForKeys(walk.kv_head(), 1);
        append();
      }
      for (int64_t unit = part * each; unit < end; ++unit) {
        AttentionCall after = {};
        if (unit + 1 < end) {
          after = walk.To(unit + 1);
          Precede(call, after);
          if (appends) AppendRow(kernels, *p.append, walk.row()).AskForKeys(walk.kv_head(), 1);
        }
        call.scratch = scratch;
        kernels.attend[type](call);
        if (appends && unit + 1 < end) append();
        call = after;
      }
    }
  });
}

void Register_attention(Registry& registry) {
  registry.Add<AttentionOp>("attention", Missing, Run<CpuIsa::kAvx512>, Run<CpuIsa::kAvx2>,
                            Run<CpuIsa::kAmx>);
}

}  // namespace tessera::kernels::cpu
