// Checks the prefill attention kernels against a float64 reference; with --only TEXT... the cases
// whose label has one of the texts ("wgmma e4m3 late 128"), with --bench times the kernels
// (--bench-long: whole prompts; --bench-few: few rows of long contexts).
//
// Pages lie in random order in an arena of bytes 0xff (not a number in each type), so slots that
// were never written, pages of other tables and pages before the window are poison. A row passes if
// the L2 norm of its error is below 2% of its own, a case if that of all rows is below 0.4%.
#include <cuda_fp8.h>

#include <memory>
#include <numeric>
#include <span>

#include "kernels/cuda/attention/prefill.h"
#include "kernels/cuda/attention/prefill_plan.h"
#include "kernels/cuda/kv_layout.h"
#include "tests/kernels/cuda/prefill_bench.cuh"

namespace tessera::check {
namespace {

constexpr double kCaseTolerance = 4e-3;
constexpr double kRowTolerance = 2e-2;

struct Run {
  int q_rows;
  int position;
};
struct Case {
  const char* name;
  uint32_t head_dim, q_heads, kv_heads;
  DType dtype;
  int window;
  std::vector<Run> runs;
};

uint16_t ToBf16(float value) {
  const __nv_bfloat16 rounded = __float2bfloat16(value);
  uint16_t bits;
  std::memcpy(&bits, &rounded, sizeof(bits));
  return bits;
}

// A block a (row, query head): softmax and sum over the keys that the row sees, in float64.
struct Reference {
  const uint16_t* q;
  const float* keys;    // [tokens of all runs, kv_heads, head_dim]
  const float* values;  // likewise
  double* out;
  int q_heads, kv_heads, head_dim, window;
  double scale;
};
__global__ void ReferenceKernel(Reference r, int q_begin, int position, int token_begin) {
  extern __shared__ double weight[];
  __shared__ double shared_largest;
  const int p = position + blockIdx.x;
  const int head = blockIdx.y;
  const int kv = head / (r.q_heads / r.kv_heads);
  const int first = r.window > 0 ? max(0, p - r.window + 1) : 0;
  const size_t row = (size_t(q_begin + blockIdx.x) * r.q_heads + head) * r.head_dim;
  for (int key = first + threadIdx.x; key <= p; key += blockDim.x) {
    const float* k = r.keys + (size_t(token_begin + key) * r.kv_heads + kv) * r.head_dim;
    double dot = 0;
    for (int d = 0; d < r.head_dim; ++d) {
      dot += double(__uint_as_float(uint32_t{r.q[row + d]} << 16)) * k[d];
    }
    weight[key - first] = dot * r.scale;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    double largest = weight[0];
    for (int i = 1; i <= p - first; ++i) largest = max(largest, weight[i]);
    shared_largest = largest;
  }
  __syncthreads();
  const double largest = shared_largest;
  __syncthreads();
  for (int i = threadIdx.x; i <= p - first; i += blockDim.x) weight[i] = exp(weight[i] - largest);
  __syncthreads();
  for (int d = threadIdx.x; d < r.head_dim; d += blockDim.x) {
    double sum = 0, total = 0;
    for (int key = first; key <= p; ++key) {
      const double w = weight[key - first];
      total += w;
      sum += w * r.values[(size_t(token_begin + key) * r.kv_heads + kv) * r.head_dim + d];
    }
    r.out[row + d] = sum / total;
  }
}

// One batch: inputs, pages and what comes out.
class Batch {
 public:
  Batch(const Case& c, uint64_t seed) : case_(c), rng_(seed) {
    for (const Run& run : c.runs) {
      rows_.push_back({nullptr, 0, static_cast<int32_t>(q_rows_), run.q_rows, run.position});
      q_rows_ += run.q_rows + 1;  // a row of no run between runs
      tokens_ += run.position + run.q_rows;
    }
    FillQueries();
    FillPages();
  }

  [[nodiscard]] size_t out_elements() const { return q_rows_ * case_.q_heads * case_.head_dim; }
  [[nodiscard]] const std::vector<PrefillRow>& rows() const { return rows_; }
  [[nodiscard]] PrefillArgs Args() const {
    PrefillArgs args;
    args.q = padded_q_->get();
    args.q_stride = static_cast<int64_t>(QStride());
    args.arena = reinterpret_cast<const std::byte*>(arena_->get());
    args.table = 1;
    args.q_heads = case_.q_heads;
    args.kv_heads = case_.kv_heads;
    args.head_dim = case_.head_dim;
    args.kv_dtype = case_.dtype;
    args.scale = Scale();
    args.window = case_.window;
    return args;
  }
  [[nodiscard]] std::vector<double> Want() {
    DeviceBuffer<float> keys(keys_), values(values_);
    DeviceBuffer<double> out(out_elements());
    const Reference reference = {q_->get(),
                                 keys.get(),
                                 values.get(),
                                 out.get(),
                                 static_cast<int>(case_.q_heads),
                                 static_cast<int>(case_.kv_heads),
                                 static_cast<int>(case_.head_dim),
                                 case_.window,
                                 Scale()};
    int token = 0;
    for (const PrefillRow& row : rows_) {
      if (row.q_rows > 0) {
        // One weight more than is used: the compiler loads them in pairs.
        const size_t bytes = (row.position + row.q_rows + 1) * sizeof(double);
        CHECK_CUDA(cudaFuncSetAttribute(
            ReferenceKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)));
        ReferenceKernel<<<dim3(row.q_rows, case_.q_heads), 128, bytes>>>(reference, row.q_begin,
                                                                         row.position, token);
        CHECK_CUDA(cudaGetLastError());
      }
      token += row.position + row.q_rows;
    }
    CHECK_CUDA(cudaDeviceSynchronize());
    return out.Download();
  }

 private:
  [[nodiscard]] float Scale() const { return 1 / std::sqrt(static_cast<float>(case_.head_dim)); }
  // Queries are columns of a buffer that has others.
  [[nodiscard]] size_t QStride() const { return size_t{case_.q_heads} * case_.head_dim + 8; }
  void FillQueries() {
    std::vector<uint16_t> q(out_elements());
    for (uint16_t& value : q) value = ToBf16(rng_.Normal());
    q_ = std::make_unique<DeviceBuffer<uint16_t>>(q);
    const size_t width = size_t{case_.q_heads} * case_.head_dim;
    std::vector<uint16_t> padded(q_rows_ * QStride(), 0xffff);
    for (size_t i = 0; i < q.size(); ++i) padded[i / width * QStride() + i % width] = q[i];
    padded_q_ = std::make_unique<DeviceBuffer<uint16_t>>(padded);
  }
  // Draws a value that the page type holds, and its bytes.
  float Draw(uint16_t& bits) {
    if (case_.dtype == DType::kBF16) {
      bits = ToBf16(rng_.Normal());
      return BitsToFloat(bits);
    }
    const __nv_fp8_storage_t code = __nv_cvt_float_to_fp8(rng_.Normal(), __NV_SATFINITE, __NV_E4M3);
    bits = code;
    return __half2float(__half(__nv_cvt_fp8_to_halfraw(code, __NV_E4M3)));
  }
  void FillPages();
  void WriteToken(std::byte* page, int slot, size_t token);

  Case case_;
  Rng rng_;
  size_t q_rows_ = 0;
  size_t tokens_ = 0;
  std::vector<PrefillRow> rows_;
  std::vector<float> keys_, values_;
  std::unique_ptr<DeviceBuffer<uint16_t>> q_, padded_q_;
  std::unique_ptr<DeviceBuffer<uint8_t>> arena_;
  std::unique_ptr<DeviceBuffer<PageId>> tables_;
};

void Batch::WriteToken(std::byte* page, int slot, size_t token) {
  const uint32_t bytes = case_.dtype == DType::kBF16 ? 2 : 1;
  const uint32_t plane = kernels::cuda::PlaneBytes(case_.head_dim, bytes);
  for (uint32_t head = 0; head < case_.kv_heads; ++head) {
    std::byte* record = page + kernels::cuda::HeadOffset(head, case_.head_dim, bytes);
    for (uint32_t d = 0; d < case_.head_dim; ++d) {
      const size_t at = (token * case_.kv_heads + head) * case_.head_dim + d;
      const uint32_t offset = kernels::cuda::PlaneOffset(slot, d * bytes, case_.head_dim * bytes);
      uint16_t bits;
      keys_[at] = Draw(bits);
      std::memcpy(record + offset, &bits, bytes);
      values_[at] = Draw(bits);
      std::memcpy(record + plane + offset, &bits, bytes);
    }
  }
}

void Batch::FillPages() {
  const uint32_t bytes = case_.dtype == DType::kBF16 ? 2 : 1;
  const size_t page_bytes =
      (size_t{2} * case_.kv_heads * kernels::cuda::PlaneBytes(case_.head_dim, bytes) + 511) / 512 *
      512;
  size_t pages = 1;  // page 0 is poison
  for (const PrefillRow& row : rows_) pages += (row.position + row.q_rows) / kPageTokens + 1;
  std::vector<uint32_t> order(pages - 1);
  std::iota(order.begin(), order.end(), 1);
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[rng_.Below(i)]);

  keys_.resize(tokens_ * case_.kv_heads * case_.head_dim);
  values_.resize(keys_.size());
  std::vector<uint8_t> arena(pages * page_bytes, 0xff);
  std::vector<PageId> tables;
  std::vector<size_t> begins;
  size_t used = 0, token = 0;
  for (PrefillRow& row : rows_) {
    const int length = row.position + row.q_rows;
    const int own = (length + kPageTokens - 1) / kPageTokens;
    row.table_stride = own + 3;
    begins.push_back(tables.size());
    tables.resize(tables.size() + 2 * row.table_stride, PageId(0));
    const int seen = case_.window > 0 ? std::max(0, row.position - case_.window + 1) : 0;
    for (int i = 0; i < own; ++i) {
      const uint32_t page = order[used++];
      if (i >= seen / kPageTokens) {
        tables[begins.back() + row.table_stride + i] =
            PageId(static_cast<uint32_t>(page * page_bytes / 512));
      }
      for (int slot = 0; slot < kPageTokens && i * kPageTokens + slot < length; ++slot) {
        WriteToken(reinterpret_cast<std::byte*>(arena.data()) + page * page_bytes, slot, token++);
      }
    }
  }
  arena_ = std::make_unique<DeviceBuffer<uint8_t>>(arena);
  tables_ = std::make_unique<DeviceBuffer<PageId>>(tables);
  for (size_t r = 0; r < rows_.size(); ++r) rows_[r].page_table = tables_->get() + begins[r];
}

// The output of a launch over `rows`, and then of the same in a graph; empty if they differ.
std::vector<uint16_t> Execute(const Batch& batch, std::span<const PrefillRow> rows, Launcher launch,
                              uint32_t blocks = 0) {
  PrefillArgs args = batch.Args();
  const Prepared prepared(rows, OptionsOf(args, blocks), args);
  DeviceBuffer<uint16_t> out(batch.out_elements());
  args.out = out.get();
  CHECK_CUDA(launch(args, nullptr));
  CHECK_CUDA(cudaDeviceSynchronize());
  const std::vector<uint16_t> first = out.Download();
  const auto intact = [&] {
    return out.CanaryIntact() && prepared.device->CanaryIntact() &&
           prepared.workspace->CanaryIntact();
  };
  if (!intact()) return {};
  Graph graph([&](cudaStream_t stream) {
    CHECK_CUDA(launch(args, stream));
    CHECK_CUDA(launch(args, stream));
  });
  out.Poison();
  prepared.workspace->Poison();
  graph.Run();
  if (!intact() || out.Download() != first) return {};
  return first;
}

// Worst row's and all rows' relative error; infinite if a row of no run was written.
Distance Judge(const Case& c, const Batch& batch, const std::vector<uint16_t>& got,
               const std::vector<double>& want) {
  if (got.empty()) return {INFINITY, INFINITY};
  const size_t width = size_t{c.q_heads} * c.head_dim;
  double error = 0, norm = 0, worst = 0;
  size_t at = 0;
  for (const PrefillRow& row : batch.rows()) {
    for (size_t end = at + row.q_rows * width; at < end; at += c.head_dim) {
      std::vector<float> values(c.head_dim);
      for (uint32_t d = 0; d < c.head_dim; ++d) values[d] = BitsToFloat(got[at + d]);
      double row_error = 0, row_norm = 0;
      for (uint32_t d = 0; d < c.head_dim; ++d) {
        const double difference = values[d] - want[at + d];
        if (!std::isfinite(difference)) return {INFINITY, INFINITY};
        row_error += difference * difference;
        row_norm += want[at + d] * want[at + d];
      }
      worst = std::max(worst, std::sqrt(row_error / row_norm));
      error += row_error;
      norm += row_norm;
    }
    for (size_t end = at + width; at < end; ++at) {
      if (got[at] != 0xffff) return {INFINITY, INFINITY};
    }
  }
  return {norm == 0 ? 0 : std::sqrt(error / norm), worst};
}

// The batch's runs cut into pieces of `chunk` queries.
std::vector<PrefillRow> Chunked(std::span<const PrefillRow> rows, int chunk) {
  std::vector<PrefillRow> pieces;
  for (const PrefillRow& row : rows) {
    for (int done = 0; done < row.q_rows; done += chunk) {
      PrefillRow piece = row;
      piece.q_begin += done;
      piece.position += done;
      piece.q_rows = std::min(chunk, row.q_rows - done);
      pieces.push_back(piece);
    }
  }
  return pieces;
}

std::vector<Case> Cases() {
  constexpr DType kB = DType::kBF16;
  constexpr DType kE = DType::kF8E4M3;
  const std::vector<Run> lengths = {{1, 0},   {17, 0},  {63, 0},  {64, 0},  {65, 0}, {127, 0},
                                    {128, 0}, {129, 0}, {500, 0}, {0, 100}, {3, 0}};
  const std::vector<Run> later = {{1, 63},   {17, 64},  {63, 1},   {64, 129},
                                  {65, 777}, {129, 63}, {500, 37}, {200, 1003}};
  std::vector<Case> cases;
  for (const uint32_t dim : {64u, 80u, 96u, 128u, 256u}) {
    for (const DType dtype : {kB, kE}) {
      cases.push_back({"lengths", dim, 8, 2, dtype, 0, lengths});
      cases.push_back({"positions", dim, 6, 2, dtype, 0, later});
      cases.push_back({"window 100", dim, 4, 2, dtype, 100, later});
    }
  }
  for (const DType dtype : {kB, kE}) {
    for (const uint32_t group : {1u, 2u, 5u, 7u, 8u, 16u}) {
      cases.push_back({"group", 128, 2 * group, 2, dtype, 0, later});
    }
    for (const int window : {1, 63, 64, 65, 128, 129, 1000}) {
      cases.push_back({"window", 128, 8, 2, dtype, window, later});
    }
    // More items than a GPU has multiprocessors, of every length.
    for (const uint32_t dim : {64u, 96u, 128u, 256u}) {
      cases.push_back({"many items", dim, 32, 16, dtype, 0, {{1500, 0}, {1, 700}, {900, 130}}});
      cases.push_back({"many items", dim, 32, 16, dtype, 130, {{1500, 0}, {1, 700}, {900, 130}}});
    }
    cases.push_back({"2100", 128, 8, 2, dtype, 0, {{2100, 0}}});
    cases.push_back({"2100 at 1777", 128, 4, 4, dtype, 0, {{2100, 1777}}});
    cases.push_back({"2100 window 512", 128, 8, 2, dtype, 512, {{2100, 300}}});
    cases.push_back({"2100", 256, 4, 1, dtype, 0, {{2100, 0}}});
    cases.push_back({"2100", 64, 8, 2, dtype, 0, {{2100, 500}}});
  }
  return cases;
}

// Few queries of long contexts, which are cut.
std::vector<Case> CutCases() {
  constexpr DType kB = DType::kBF16;
  constexpr DType kE = DType::kF8E4M3;
  const std::vector<Run> late = {{60, 5000}};
  const std::vector<Run> mixed = {{37, 6000}, {500, 0}, {1, 3001}, {0, 50}, {129, 63}, {9, 2047}};
  std::vector<Case> cases;
  for (const uint32_t dim : {64u, 80u, 96u, 128u, 256u}) {
    for (const DType dtype : {kB, kE}) {
      cases.push_back({"late", dim, 8, 2, dtype, 0, late});
      cases.push_back({"mixed", dim, 6, 2, dtype, 0, mixed});
      cases.push_back({"window", dim, 8, 2, dtype, 3001, late});
    }
  }
  for (const DType dtype : {kB, kE}) {
    cases.push_back({"late", 128, 8, 2, dtype, 0, {{60, 16384}}});
    cases.push_back({"mixed window", 128, 4, 2, dtype, 2000, mixed});
    cases.push_back({"one KV head", 128, 8, 1, dtype, 0, {{16, 9001}}});
    cases.push_back({"short parts", 128, 4, 1, dtype, 0, {{33, 2559}}});
    cases.push_back({"at a boundary", 128, 4, 1, dtype, 0, {{32, 4064}, {64, 4096}}});
    for (const uint32_t group : {1u, 5u, 7u, 16u}) {
      cases.push_back({"group", 128, 2 * group, 2, dtype, 0, {{45, 4001}}});
    }
    // Little more than a wave of whole tiles.
    cases.push_back({"a wave and more", 64, 16, 16, dtype, 0, {{1100, 6000}}});
  }
  return cases;
}

struct Kernel {
  const char* name;
  Launcher launch;
};
const char* TypeName(const Case& c) { return c.dtype == DType::kBF16 ? "bf16" : "e4m3"; }
// What cases are checked with.
struct Selection {
  bool wgmma;                     // the device has it
  std::vector<std::string> only;  // texts, one of which labels must have; none: all

  [[nodiscard]] std::vector<Kernel> KernelsFor(const Case& c) const {
    std::vector<Kernel> kernels;
    for (const Kernel& kernel : {Kernel{"wgmma", Wgmma}, Kernel{"mma", Mma}}) {
      const std::string label = std::string(kernel.name) + " " + TypeName(c) + " " + c.name + " " +
                                std::to_string(c.head_dim);
      const bool runs = wgmma || kernel.launch == Mma;
      const bool wanted = std::any_of(only.begin(), only.end(), [&](const std::string& text) {
        return label.find(text) != std::string::npos;
      });
      if (runs && (only.empty() || wanted)) kernels.push_back(kernel);
    }
    return kernels;
  }
};

void ReportCase(const Case& c, const Kernel& kernel, const Distance& distance, bool right,
                const char* more, Report& report) {
  report.Case(right && distance.l2 < kCaseTolerance && distance.max < kRowTolerance,
              "%-5s %-4s %-16s head %3u, %2u/%2u heads, window %4d: L2 %.2e, worst row %.2e%s",
              kernel.name, TypeName(c), c.name, c.head_dim, c.q_heads, c.kv_heads, c.window,
              distance.l2, distance.max, more);
}

void CheckCase(const Case& c, uint64_t seed, const Selection& selection, Report& report) {
  const std::vector<Kernel> kernels = selection.KernelsFor(c);
  if (kernels.empty()) return;
  Batch batch(c, seed);
  const std::vector<double> want = batch.Want();
  for (const Kernel& kernel : kernels) {
    const std::vector<uint16_t> got = Execute(batch, batch.rows(), kernel.launch);
    ReportCase(c, kernel, Judge(c, batch, got, want), true, "", report);
    bool same = true;
    for (const int chunk : {37, 256}) {
      same &= !got.empty() && Execute(batch, Chunked(batch.rows(), chunk), kernel.launch) == got;
    }
    report.Case(same, "%-5s      the same bits in chunks of 37 and 256", kernel.name);
  }
}

// As the device would cut, and for few blocks.
void CheckCutCase(const Case& c, uint64_t seed, const Selection& selection, Report& report) {
  const std::vector<Kernel> kernels = selection.KernelsFor(c);
  if (kernels.empty()) return;
  Batch batch(c, seed);
  const std::vector<double> want = batch.Want();
  for (const Kernel& kernel : kernels) {
    const uint32_t own = kernels::cuda::PrefillBlocks(c.head_dim);
    for (const uint32_t blocks : {own, 23u}) {
      PrefillArgs args = batch.Args();
      const PrefillPlan plan = Prepared(batch.rows(), OptionsOf(args, blocks), args).plan;
      char more[64];
      std::snprintf(more, sizeof(more), ", %u blocks: %u partials", blocks, plan.partials);
      const Distance distance =
          Judge(c, batch, Execute(batch, batch.rows(), kernel.launch, blocks), want);
      ReportCase(c, kernel, distance, blocks != own || plan.merges > 0, more, report);
    }
  }
}

}  // namespace
}  // namespace tessera::check

int main(int argc, char** argv) {
  using namespace tessera::check;
  const std::string mode = argc > 1 ? argv[1] : "";
  Report report;
  cudaDeviceProp properties;
  CHECK_CUDA(cudaGetDeviceProperties(&properties, 0));
  std::printf("%s\n", properties.name);
  if (mode.starts_with("--bench")) {
    mode == "--bench-long" ? BenchLong() : mode == "--bench-few" ? BenchFew() : Bench();
    return 0;
  }
  Selection selection = {properties.major == 9, {}};
  if (mode == "--only") selection.only = {argv + 2, argv + argc};
  uint64_t seed = 1;
  for (const Case& c : Cases()) CheckCase(c, ++seed, selection, report);
  for (const Case& c : CutCases()) CheckCutCase(c, ++seed, selection, report);
  return report.Finish();
}
