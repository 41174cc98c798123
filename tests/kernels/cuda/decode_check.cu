// Checks paged decode attention against float64 (decode_support.cuh) and times it with --bench
// (decode_bench.cuh).
#include <cstdio>
#include <cstring>
#include <thread>

#include "tests/kernels/cuda/decode_append_cases.cuh"
#include "tests/kernels/cuda/decode_bench.cuh"
#include "tests/kernels/cuda/decode_support.cuh"
#include "tests/kernels/cuda/group_codes.cuh"
#include "tests/kernels/cuda/rope_append_cases.cuh"

namespace tessera::check {
namespace {

using namespace kernels::cuda;  // NOLINT: the piece under test

constexpr double kMaxL2 = 4e-3;     // relative; weights and results are rounded to 8 bits
constexpr double kMaxError = 2e-2;  // of one result, over its size plus the root mean square

enum class Lists { kDense, kAll, kRandom };

struct Sequence {
  int tokens = 0;  // the row's queries included
  int q_rows = 1;
};

struct Case {
  const char* name;
  int head_dim;
  int q_heads;
  int kv_heads;
  DType type;
  std::vector<Sequence> sequences;
  int window = 0;
  uint32_t grid = 0;  // 0: the device's
  DecodeSplits splits = DecodeSplits::kBalanced;
  Lists lists = Lists::kDense;
  float sharpness = 1;  // multiplies the usual scale
  KvHistory history = KvHistory::kSettled;
  DecodeRing ring = DecodeRing::kWhole;
};

// Outliers are rounded in proportion to themselves.
double LargestError(const std::vector<float>& got, const std::vector<double>& want) {
  double norm = 0;
  for (const double value : want) norm += value * value;
  const double mean = std::sqrt(norm / static_cast<double>(want.size()));
  double largest = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    largest = std::max(largest, std::abs(got[i] - want[i]) / (mean + std::abs(want[i])));
  }
  return largest;
}

// Everything of a case on the host and the device.
class World {
 public:
  World(const Case& c, uint64_t seed)
      : c_(c), rng_(seed), cache_({c.kv_heads, c.head_dim, c.type}, PageCount(c)) {
    for (const Sequence& s : c.sequences) rows_total_ += s.q_rows + 1;
    max_q_rows_ = 1;
    for (const Sequence& s : c.sequences) max_q_rows_ = std::max(max_q_rows_, s.q_rows);
    q_.resize(static_cast<size_t>(rows_total_) * c.q_heads * c.head_dim);
    for (uint16_t& bits : q_) bits = Bf16Bits(rng_.Normal());
    FillCache();
    MakeRows();
  }

  void Run(Report& report);

 private:
  static uint32_t PageCount(const Case& c) {
    uint32_t pages = 8;
    for (const Sequence& s : c.sequences) pages += 2 * ((s.tokens + kPageTokens - 1) / kPageTokens);
    return pages;
  }
  [[nodiscard]] int Group() const { return c_.q_heads / c_.kv_heads; }
  [[nodiscard]] double Scale() const {
    return c_.sharpness / std::sqrt(static_cast<double>(c_.head_dim));
  }
  struct Device;
  [[nodiscard]] bool LeavesCodes() const {
    return c_.head_dim == kCodeGroup && rows_total_ <= kCodeRows;
  }
  [[nodiscard]] std::string CodesProblem(const Device& device) const;
  void FillCache();
  void MakeRows();
  void AddLists(size_t sequence, DecodeRow row);
  std::vector<double> Expected();
  void PointRows(const Device& device, size_t entries_per_table);
  [[nodiscard]] std::vector<DecodeRow> DenseRows(const Device& device) const;
  Distance DistanceOf(const std::vector<uint16_t>& out, bool& contained);
  [[nodiscard]] DecodeArgs Args(const Device& device, size_t partials) const;
  DecodePlanOptions Options() const;
  bool CheckAlone(const DecodeArgs& args, const std::vector<uint16_t>& batch, void* device_plan,
                  DeviceBuffer<uint16_t>& out);

  const Case& c_;
  Rng rng_;
  HostCache cache_;
  int rows_total_ = 0;
  int max_q_rows_ = 1;
  std::vector<uint16_t> q_;
  uint32_t table_stride_ = 0;                      // of dense tables
  std::vector<PageId> tables_;                     // [2, table_stride]; launches use table 1
  std::vector<size_t> table_begin_;                // of each sequence
  std::vector<PageEntry> entries_;                 // [2, entries of table 0]
  std::vector<std::vector<VisiblePage>> visible_;  // [sequence * kv_heads + head]
  std::vector<DecodeRow> rows_;                    // pointers hold indices until Upload
  std::vector<size_t> entry_begin_;                // of each row
};

void World::FillCache() {
  for (const Sequence& s : c_.sequences) {
    table_begin_.push_back(table_stride_);
    table_stride_ += (s.tokens + kPageTokens - 1) / kPageTokens;
  }
  tables_.resize(size_t{2} * table_stride_);
  for (size_t i = 0; i < c_.sequences.size(); ++i) {
    const Sequence& s = c_.sequences[i];
    const int first_seen = c_.window == 0 ? 0 : std::max(0, s.tokens - s.q_rows - c_.window + 1);
    for (int page = 0; page * kPageTokens < s.tokens; ++page) {
      const size_t at = table_begin_[i] + page;
      tables_[at] = cache_.Take(rng_);  // of a table that nobody reads: stays NaN
      if ((page + 1) * kPageTokens <= first_seen) continue;
      const PageId id = cache_.Take(rng_);
      tables_[table_stride_ + at] = id;
      for (int t = 0; t < std::min(kPageTokens, s.tokens - page * kPageTokens); ++t) {
        for (int head = 0; head < c_.kv_heads; ++head) {
          for (int d = 0; d < c_.head_dim; ++d) {
            cache_.Set(id, head, Plane::kKey, t, d, rng_.Normal());
            cache_.Set(id, head, Plane::kValue, t, d, rng_.Normal());
          }
        }
      }
    }
  }
}

void World::AddLists(size_t sequence, DecodeRow row) {
  const Sequence& s = c_.sequences[sequence];
  const int pages = (s.tokens + kPageTokens - 1) / kPageTokens;
  for (int head = 0; head < c_.kv_heads; ++head) {
    row.kv_head = head;
    entry_begin_.push_back(entries_.size());
    std::vector<VisiblePage> seen;
    for (int page = 0; page < pages; ++page) {
      const PageId id = tables_[table_stride_ + table_begin_[sequence] + page];
      const uint32_t all = (1u << Group()) - 1;
      uint32_t heads = all;
      if (c_.lists == Lists::kRandom) {
        if (rng_.Below(3) == 0) {
          // Nobody lists this page for this head: its record becomes NaN.
          std::memset(cache_.At(id, head, Plane::kKey, 0, 0), 0xff,
                      2 * kernels::cuda::PlaneBytes(c_.head_dim, cache_.format().element_bytes()));
          if (rng_.Below(2) == 0) {
            entries_.push_back({PageId(), static_cast<uint32_t>(page), 0xff});
          }
          continue;
        }
        if (rng_.Below(2) == 0) heads = rng_.Below(all + 1);
      }
      entries_.push_back({id, static_cast<uint32_t>(page), heads});
      seen.push_back({id, page, heads});
    }
    row.entry_count = static_cast<uint32_t>(entries_.size() - entry_begin_.back());
    visible_.push_back(seen);
    rows_.push_back(row);
  }
}

void World::MakeRows() {
  int q_begin = 0;
  for (size_t i = 0; i < c_.sequences.size(); ++i) {
    const Sequence& s = c_.sequences[i];
    DecodeRow row;
    row.q_begin = q_begin;
    row.q_rows = s.q_rows;
    row.position = s.tokens - s.q_rows;
    q_begin += s.q_rows + 1;  // a row that belongs to nobody follows
    if (c_.lists != Lists::kDense) {
      AddLists(i, row);
      continue;
    }
    row.table_stride = table_stride_;
    entry_begin_.push_back(0);
    rows_.push_back(row);
    std::vector<VisiblePage> seen;
    for (int page = 0; page * kPageTokens < s.tokens; ++page) {
      seen.push_back({tables_[table_stride_ + table_begin_[i] + page], page, ~0u});
    }
    for (int head = 0; head < c_.kv_heads; ++head) visible_.push_back(seen);
  }
}

// Results of all rows; NaN where no row writes.
std::vector<double> World::Expected() {
  std::vector<double> out(q_.size(), NAN);
  const auto sequence = [&](size_t i, int q_begin) {
    const Sequence& s = c_.sequences[i];
    for (int r = 0; r < s.q_rows; ++r) {
      for (int h = 0; h < c_.q_heads; ++h) {
        const size_t at = (static_cast<size_t>(q_begin + r) * c_.q_heads + h) * c_.head_dim;
        const int head = h / Group();
        const std::vector<double> row =
            Reference(cache_, visible_[i * c_.kv_heads + head],
                      {&q_[at], head, h % Group(), s.tokens - s.q_rows + r, c_.window, Scale()});
        std::copy(row.begin(), row.end(), out.begin() + static_cast<std::ptrdiff_t>(at));
      }
    }
  };
  std::vector<std::thread> threads;
  int q_begin = 0;
  for (size_t i = 0; i < c_.sequences.size(); ++i) {
    threads.emplace_back(sequence, i, q_begin);
    q_begin += c_.sequences[i].q_rows + 1;
  }
  for (std::thread& thread : threads) thread.join();
  return out;
}

DecodePlanOptions World::Options() const {
  DecodePlanOptions options;
  options.q_heads = c_.q_heads;
  options.kv_heads = c_.kv_heads;
  options.head_dim = c_.head_dim;
  options.window = c_.window;
  options.splits = c_.splits;
  int processors;
  CHECK_CUDA(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0));
  options.grid = c_.grid == 0 ? static_cast<uint32_t>(processors) : c_.grid;
  return options;
}

// Each row by itself gives the bits that it gave in the batch.
bool World::CheckAlone(const DecodeArgs& args, const std::vector<uint16_t>& batch,
                       void* device_plan, DeviceBuffer<uint16_t>& out) {
  const DecodePlanOptions options = Options();
  std::vector<std::byte> plan(DecodePlanBytes(1, max_q_rows_, options));
  const size_t row_size = static_cast<size_t>(c_.q_heads) * c_.head_dim;
  for (const DecodeRow& row : rows_) {
    const DecodePlan built = BuildDecodePlan({&row, 1}, options, plan.data());
    CHECK_CUDA(cudaMemcpy(device_plan, plan.data(), built.bytes, cudaMemcpyHostToDevice));
    out.Poison();
    CHECK_CUDA(LaunchDecode(args, nullptr));
    CHECK_CUDA(cudaDeviceSynchronize());
    const std::vector<uint16_t> alone = out.Download();
    const size_t heads = row.kv_head < 0 ? c_.q_heads : Group();
    const size_t begin =
        row_size * row.q_begin +
        (row.kv_head < 0 ? 0 : static_cast<size_t>(row.kv_head) * Group()) * c_.head_dim;
    for (int r = 0; r < row.q_rows; ++r) {
      if (std::memcmp(&alone[begin + r * row_size], &batch[begin + r * row_size],
                      heads * c_.head_dim * 2) != 0) {
        return false;
      }
    }
  }
  return true;
}

// Device copies of a case.
struct World::Device {
  DeviceBuffer<uint8_t> arena;
  DeviceBuffer<PageId> tables;
  DeviceBuffer<PageEntry> entries;
  DeviceBuffer<uint16_t> q, out;
  DeviceBuffer<std::byte> plan, workspace;
  GroupCodesBuffers codes;  // of `out`, where it is left as codes, too
};

DecodeArgs World::Args(const Device& device, size_t partials) const {
  DecodeArgs args;
  args.plan = device.plan.get();
  args.grid = Options().grid;
  args.q = reinterpret_cast<const __nv_bfloat16*>(device.q.get());
  args.q_stride = int64_t{c_.q_heads} * c_.head_dim;
  args.out = reinterpret_cast<__nv_bfloat16*>(device.out.get());
  args.arena = reinterpret_cast<const std::byte*>(device.arena.get());
  args.table = 1;
  args.q_heads = c_.q_heads;
  args.kv_heads = c_.kv_heads;
  args.head_dim = c_.head_dim;
  args.kv_type = c_.type;
  args.scale = static_cast<float>(Scale());
  args.window = c_.window;
  args.max_q_rows = max_q_rows_;
  args.history = c_.history;
  args.ring = c_.ring;
  args.workspace = device.workspace.get();
  args.partials = partials;
  if (LeavesCodes()) args.out_codes = device.codes.Get();
  return args;
}

// "" or what is wrong with the codes of what was written.
std::string World::CodesProblem(const Device& device) const {
  if (!LeavesCodes()) return "";
  return OtherCodes(device.out.get(), rows_total_, c_.q_heads * c_.head_dim, device.codes);
}

// Points the rows at device memory; entries get a second table in front, of invalid pages.
void World::PointRows(const Device& device, size_t entries_per_table) {
  for (size_t i = 0; i < rows_.size(); ++i) {
    if (c_.lists == Lists::kDense) {
      rows_[i].page_table = device.tables.get() + table_begin_[i];
    } else {
      rows_[i].entries = device.entries.get() + entry_begin_[i];
      rows_[i].table_stride = static_cast<uint32_t>(entries_per_table);
    }
  }
}

// The same rows from their page tables.
std::vector<DecodeRow> World::DenseRows(const Device& device) const {
  std::vector<DecodeRow> dense;
  for (size_t i = 0; i < rows_.size(); i += c_.kv_heads) {
    DecodeRow row = rows_[i];
    row.kv_head = DecodeRow::kAllKvHeads;
    row.entries = nullptr;
    row.page_table = device.tables.get() + table_begin_[i / c_.kv_heads];
    row.table_stride = table_stride_;
    dense.push_back(row);
  }
  return dense;
}

// Distance from the reference; false in `contained` if rows were written that belong to nobody.
Distance World::DistanceOf(const std::vector<uint16_t>& out, bool& contained) {
  const std::vector<double> want = Expected();
  std::vector<float> got;
  std::vector<double> expected;
  for (size_t i = 0; i < want.size(); ++i) {
    if (std::isnan(want[i])) {
      contained = contained && out[i] == 0xffff;
      continue;
    }
    got.push_back(BitsToFloat(out[i]));
    expected.push_back(want[i]);
  }
  Distance distance = Compare(got.data(), expected.data(), got.size());
  distance.max = LargestError(got, expected);
  return distance;
}

bool AllOnes(const std::vector<std::byte>& bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0xff}; });
}

void World::Run(Report& report) {
  const DecodePlanOptions options = Options();
  const auto max_rows = static_cast<uint32_t>(rows_.size());
  const size_t partials = DecodePartials(max_rows, max_q_rows_, options);
  const size_t per_table = entries_.size();
  entries_.insert(entries_.begin(), std::max<size_t>(per_table, 1), PageEntry{});
  std::vector<std::byte> plan(DecodePlanBytes(max_rows, max_q_rows_, options));
  Device device{DeviceBuffer<uint8_t>(cache_.bytes()),
                DeviceBuffer<PageId>(tables_),
                DeviceBuffer<PageEntry>(entries_),
                DeviceBuffer<uint16_t>(q_),
                DeviceBuffer<uint16_t>(q_.size()),
                DeviceBuffer<std::byte>(plan.size()),
                DeviceBuffer<std::byte>(DecodeWorkspaceBytes(partials, max_q_rows_, c_.q_heads,
                                                             c_.kv_heads, c_.head_dim)),
                GroupCodesBuffers(c_.grid % 2 == 0 && c_.window == 0 ? CodeKind::kE4m3Groups
                                                                     : CodeKind::kInt8Groups,
                                  rows_total_, c_.q_heads * c_.head_dim)};
  PointRows(device, per_table);
  const DecodeArgs args = Args(device, partials);
  // The graph is captured over an empty plan and replayed with the real one.
  BuildDecodePlan({}, options, plan.data());
  device.plan.Upload(plan);
  Graph graph([&](cudaStream_t stream) {
    CHECK_CUDA(LaunchDecode(args, stream));
    CHECK_CUDA(LaunchDecode(args, stream));
  });
  graph.Run();
  bool contained = MissingDecode(args).empty() &&
                   device.out.Download() == std::vector<uint16_t>(q_.size(), 0xffff);
  const DecodePlan built = BuildDecodePlan(rows_, options, plan.data());
  contained = contained && built.bytes <= plan.size() && built.partials <= partials;
  device.plan.Upload(plan);
  CHECK_CUDA(LaunchDecode(args, nullptr));
  CHECK_CUDA(cudaDeviceSynchronize());
  const std::vector<uint16_t> first = device.out.Download();
  const std::string codes = CodesProblem(device);
  device.out.Poison();
  graph.Run();
  const bool stable = first == device.out.Download() && device.out.CanaryIntact() &&
                      device.workspace.CanaryIntact() && AllOnes(device.workspace.Download());
  const Distance distance = DistanceOf(first, contained);
  const bool alone = c_.splits != DecodeSplits::kBySequence ||
                     CheckAlone(args, first, device.plan.get(), device.out);
  bool lists = true;
  if (c_.lists == Lists::kAll) {
    BuildDecodePlan(DenseRows(device), options, plan.data());
    device.plan.Upload(plan);
    device.out.Poison();
    graph.Run();
    lists = device.out.Download() == first;
  }
  report.Case(contained && stable && alone && lists && codes.empty() && distance.l2 <= kMaxL2 &&
                  distance.max <= kMaxError,
              "%-28s l2 %.1e max %.1e  items %u partials %u%s%s%s%s%s", c_.name, distance.l2,
              distance.max, built.items, built.partials, contained ? "" : "  NOT CONTAINED",
              stable ? "" : "  NOT REPEATABLE", alone ? "" : "  DEPENDS ON BATCH",
              lists ? "" : "  LISTS DIFFER", codes.c_str());
}

const std::vector<Sequence> kLengths = {{1}, {63}, {64}, {65}, {1000}};

// Head sizes, groups, windows.
void AddShapes(DType type, std::vector<Case>& cases) {
  const bool f8 = type == DType::kF8E4M3;
  for (const int dim : {64, 80, 96, 128, 256}) {
    cases.push_back({f8 ? "e4m3 lengths" : "bf16 lengths", dim, 8, 2, type, kLengths});
    cases.push_back(
        {f8 ? "e4m3 runs of 1..8" : "bf16 runs of 1..8",
         dim,
         6,
         2,
         type,
         {{130, 1}, {200, 2}, {129, 3}, {0, 0}, {4, 4}, {321, 5}, {70, 6}, {64, 7}, {99, 8}}});
  }
  for (const int group : {1, 2, 3, 4, 7, 8, 16, 32}) {
    cases.push_back({f8 ? "e4m3 group" : "bf16 group", 128, group * 2, 2, type, {{700}, {30, 2}}});
  }
  for (const int window : {1, 50, 64, 300, 4096}) {
    cases.push_back({f8 ? "e4m3 window" : "bf16 window",
                     128,
                     8,
                     2,
                     type,
                     {{1000, 4}, {40}, {2000, 1}, {65, 8}, {129}},
                     window});
  }
}

// Long rows, few blocks, sharp softmax, splits by sequence, pages in flight.
void AddSituations(DType type, std::vector<Case>& cases) {
  const bool f8 = type == DType::kF8E4M3;
  cases.push_back({f8 ? "e4m3 long" : "bf16 long", 128, 8, 2, type, {{5000}, {5000, 8}, {17}}});
  cases.push_back({f8 ? "e4m3 few blocks" : "bf16 few blocks", 128, 8, 2, type, kLengths, 0, 7});
  cases.push_back(
      {f8 ? "e4m3 one block" : "bf16 one block", 128, 4, 1, type, {{5000}, {4097}}, 0, 1});
  cases.push_back({f8 ? "e4m3 sharp" : "bf16 sharp",
                   128,
                   8,
                   2,
                   type,
                   {{3000}, {500, 3}},
                   0,
                   0,
                   DecodeSplits::kBalanced,
                   Lists::kDense,
                   6});
  cases.push_back({f8 ? "e4m3 by sequence" : "bf16 by sequence",
                   128,
                   8,
                   2,
                   type,
                   {{5000}, {1}, {700, 3}, {64}, {1500}},
                   0,
                   0,
                   DecodeSplits::kBySequence});
  cases.push_back({f8 ? "e4m3 in flight" : "bf16 in flight", 64, 8, 2, type, kLengths, 0, 0,
                   DecodeSplits::kBalanced, Lists::kDense, 1, KvHistory::kInFlight});
  for (const int head_dim : {64, 128, 256}) {
    cases.push_back({f8 ? "e4m3 half a ring" : "bf16 half a ring", head_dim, 8, 2, type, kLengths,
                     0, 0, DecodeSplits::kBalanced, Lists::kDense, 1, KvHistory::kSettled,
                     DecodeRing::kHalf});
  }
}

void AddLists(DType type, std::vector<Case>& cases) {
  for (const Lists lists : {Lists::kAll, Lists::kRandom}) {
    cases.push_back({lists == Lists::kAll ? "all listed" : "random lists",
                     128,
                     8,
                     2,
                     type,
                     {{1000}, {64, 2}, {3000, 4}, {5}},
                     0,
                     0,
                     DecodeSplits::kBalanced,
                     lists});
    cases.push_back({lists == Lists::kAll ? "all listed" : "random lists",
                     96,
                     14,
                     2,
                     type,
                     {{1000}, {640, 2}, {300, 4}},
                     0,
                     5,
                     DecodeSplits::kBalanced,
                     lists});
  }
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const DType type : {DType::kBF16, DType::kF8E4M3}) {
    AddShapes(type, cases);
    AddSituations(type, cases);
    AddLists(type, cases);
  }
  return cases;
}

int Main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "--bench") == 0) {
    return BenchDecode(argc > 2 ? std::atoi(argv[2]) : -1);
  }
  Report report;
  uint64_t seed = 1;
  for (const Case& c : Cases()) World(c, seed++).Run(report);
  CheckRopeAppend(report);
  CheckDecodeAppend(report);
  return report.Finish();
}

}  // namespace
}  // namespace tessera::check

int main(int argc, char** argv) { return tessera::check::Main(argc, argv); }
