// Checks (or, with --bench, times) the products of many rows: kernels/cuda/linear/gemm.h.
// Arguments: [--bench] [folder that holds cuBLASLt]...
#include <numeric>

#include "kernels/cuda/linear/gemm.h"
#include "kernels/cuda/linear/gemm_kernels.h"
#include "kernels/cuda/linear/skinny_int4.h"
#include "tests/kernels/cuda/check_util.cuh"
#include "tests/kernels/cuda/gemm_bench.cuh"
#include "tests/kernels/cuda/gemm_reference.h"

namespace tessera::check {
namespace {

using kernels::cuda::GemmArgs;
using kernels::cuda::GemmEngine;
using kernels::cuda::GemmEpilogue;
using kernels::cuda::GemmNumerics;
using kernels::cuda::GemmSearch;
using kernels::cuda::GemmShape;

const char* NameOf(DType dtype) {
  switch (dtype) {
    case DType::kBF16:
      return "bf16";
    case DType::kF8Channel:
      return "f8 channel";
    case DType::kF8Block128:
      return "f8 block";
    case DType::kI8Channel:
      return "i8 channel";
    case DType::kI4G128:
      return "i4 g128";
    case DType::kI4G64:
      return "i4 g64";
    case DType::kI4G128Zero:
      return "i4 g128 zero";
    default:
      return "i4 g64 zero";
  }
}
const char* NameOf(GemmEpilogue epilogue) {
  return epilogue == GemmEpilogue::kStore        ? "store"
         : epilogue == GemmEpilogue::kStoreFloat ? "float"
                                                 : "residual";
}

enum Extras : unsigned {
  kNone = 0,
  kBias = 1,
  kAddend = 2,
  kRows = 4,
  kOddStride = 8,
  kCodes = 16,
  kPacked = 32
};

struct Case {
  DType dtype;
  int rows, out, in;
  GemmEpilogue epilogue;
  unsigned extras;
};

std::vector<uint8_t> DeviceWeight(const HostWeight& weight, unsigned extras) {
  if ((extras & kPacked) == 0) return weight.bytes;
  std::vector<uint8_t> packed(kernels::cuda::PackedInt4Bytes(weight.dtype, weight.out, weight.in));
  kernels::cuda::PackInt4(weight.dtype, weight.out, weight.in,
                          reinterpret_cast<const std::byte*>(weight.bytes.data()),
                          reinterpret_cast<std::byte*>(packed.data()));
  return packed;
}

// Everything of one case on the device, with what the host needs to judge it.
struct Operands {
  const Case c;
  Rng rng;
  HostWeight weight;
  std::vector<uint16_t> x, addend;
  std::vector<float> bias;
  std::vector<int32_t> y_rows;
  int64_t y_stride, y_height, addend_stride;
  std::vector<uint8_t> y_before;  // bytes of [y_height, y_stride]
  DeviceBuffer<uint8_t> weight_device, y_device;
  DeviceBuffer<uint16_t> x_device, addend_device;
  DeviceBuffer<float> bias_device, scales_device;
  DeviceBuffer<int32_t> rows_device;
  DeviceBuffer<uint8_t> codes_device;

  explicit Operands(const Case& of)
      : c(of),
        rng(of.rows * 31 + of.out * 7 + of.in + static_cast<int>(of.dtype)),
        weight(of.dtype, of.out, of.in, rng),
        x(size_t(of.rows) * of.in),
        addend_stride((of.out + 15) / 8 * 8),
        y_stride((of.out + 7) / 8 * 8 + ((of.extras & kOddStride) != 0 ? 3 : 24)),
        y_height(of.rows + ((of.extras & kRows) != 0 ? 5 : 0)),
        weight_device(DeviceWeight(weight, of.extras)),
        y_device(y_height * y_stride * ElementBytes()),
        x_device(x.size()),
        addend_device(size_t(of.rows) * addend_stride),
        bias_device(of.out),
        scales_device(of.rows),
        rows_device(of.rows),
        codes_device(x.size()) {
    for (uint16_t& value : x) value = ToBf16(rng.Normal());
    addend.resize(addend_device.size());
    for (uint16_t& value : addend) value = ToBf16(rng.Normal());
    bias.resize(of.out);
    for (float& value : bias) value = BitsToFloat(ToBf16(rng.Normal()));
    y_rows.resize(of.rows);
    std::iota(y_rows.begin(), y_rows.end(), 0);
    if ((of.extras & kRows) != 0) {
      for (int32_t& row : y_rows) row = static_cast<int32_t>(y_height) - 1 - row;
    }
    x_device.Upload(x);
    addend_device.Upload(addend);
    bias_device.Upload(bias);
    rows_device.Upload(y_rows);
    y_before.assign(y_device.size(), 0xff);
    if (of.epilogue == GemmEpilogue::kResidual) {
      auto* y = reinterpret_cast<float*>(y_before.data());
      for (int64_t row = 0; row < y_height; ++row) {
        for (int i = 0; i < of.out; ++i) y[row * y_stride + i] = rng.Normal();
      }
    }
  }
  [[nodiscard]] size_t ElementBytes() const { return c.epilogue == GemmEpilogue::kStore ? 2 : 4; }

  [[nodiscard]] GemmArgs Args() {
    GemmArgs args;
    args.dtype = c.dtype;
    args.out = c.out;
    args.in = c.in;
    args.rows = c.rows;
    args.x = reinterpret_cast<const __nv_bfloat16*>(x_device.get());
    args.weight = reinterpret_cast<const std::byte*>(weight_device.get());
    if ((c.extras & kBias) != 0) args.bias = bias_device.get();
    if ((c.extras & kAddend) != 0) {
      args.addend = reinterpret_cast<const __nv_bfloat16*>(addend_device.get());
      args.addend_stride = addend_stride;
    }
    args.epilogue = c.epilogue;
    args.y = y_device.get();
    args.y_stride = y_stride;
    if ((c.extras & kPacked) != 0) args.int4_layout = kernels::cuda::Int4Layout::kPacked;
    if ((c.extras & kRows) != 0) args.y_rows = rows_device.get();
    if ((c.extras & kCodes) != 0) {
      kernels::cuda::QuantizeE4m3Args quantize{
          args.x, c.rows, c.rows, c.in, codes_device.get(), scales_device.get()};
      CHECK_CUDA(LaunchQuantizeE4m3Rows(quantize, nullptr));
      CHECK_CUDA(cudaDeviceSynchronize());
      args.x = nullptr;
      args.x_codes = codes_device.get();
      args.x_scales = scales_device.get();
    }
    return args;
  }

  [[nodiscard]] double Value(const std::vector<uint8_t>& y, int64_t row, int64_t i) const {
    const int64_t index = row * y_stride + i;
    return ElementBytes() == 2 ? BitsToFloat(reinterpret_cast<const uint16_t*>(y.data())[index])
                               : reinterpret_cast<const float*>(y.data())[index];
  }

  // The float64 answer on a grid of up to 48 rows and 96 channels, the first and last among them.
  [[nodiscard]] Distance FromReference(const std::vector<uint8_t>& y, bool e4m3) const {
    std::vector<double> got, want;
    const int row_count = std::min(c.rows, 48), channel_count = std::min(c.out, 96);
    std::vector<std::vector<double>> channels;
    std::vector<int> channel_of;
    for (int j = 0; j < channel_count; ++j) {
      channel_of.push_back(
          channel_count == 1 ? 0 : int(int64_t{j} * (c.out - 1) / (channel_count - 1)));
      channels.push_back(weight.Row(channel_of.back()));
    }
    for (int i = 0; i < row_count; ++i) {
      const int row = row_count == 1 ? 0 : int(int64_t{i} * (c.rows - 1) / (row_count - 1));
      const uint16_t* source = x.data() + size_t(row) * c.in;
      const std::vector<double> values =
          !e4m3 ? HostRow(source, c.in)
                : HostRow(source, c.in, c.dtype == DType::kF8Block128 ? 128 : c.in);
      for (int j = 0; j < channel_count; ++j) {
        const int channel = channel_of[j];
        double value = Dot(values, channels[j]);
        if ((c.extras & kBias) != 0) value += bias[channel];
        if ((c.extras & kAddend) != 0) value += BitsToFloat(addend[row * addend_stride + channel]);
        if (c.epilogue == GemmEpilogue::kResidual) value += Value(y_before, y_rows[row], channel);
        want.push_back(value);
        got.push_back(Value(y, y_rows[row], channel));
      }
    }
    return Compare(got.data(), want.data(), got.size());
  }

  // Every output finite, everything between and behind them untouched.
  [[nodiscard]] bool WroteExactly(const std::vector<uint8_t>& y) const {
    std::vector<uint8_t> written(y_height, 0);
    for (const int32_t row : y_rows) written[row] = 1;
    for (int64_t row = 0; row < y_height; ++row) {
      for (int64_t i = 0; i < y_stride; ++i) {
        const size_t at = (row * y_stride + i) * ElementBytes();
        if (i < c.out && written[row] != 0) {
          if (!std::isfinite(Value(y, row, i))) return false;
        } else if (std::memcmp(&y[at], &y_before[at], ElementBytes()) != 0) {
          return false;
        }
      }
    }
    return y_device.CanaryIntact();
  }
};

void CheckCase(GemmEngine& engine, const Case& c, Report& report) {
  Operands operands(c);
  const GemmArgs args = operands.Args();
  const bool native = c.dtype == DType::kF8Block128
                          ? engine.ReadsCodes(DType::kF8Channel, c.out, c.in)
                          : engine.ReadsCodes(c.dtype, c.out, c.in);
  operands.y_device.Upload(operands.y_before);
  Status status = engine.Run(args, nullptr);
  CHECK_CUDA(cudaDeviceSynchronize());
  const std::vector<uint8_t> first = operands.y_device.Download();
  operands.y_device.Upload(operands.y_before);
  {
    Graph graph([&](cudaStream_t stream) { status.Update(engine.Run(args, stream)); });
    graph.Run();
  }
  const std::vector<uint8_t> second = operands.y_device.Download();
  const Distance distance = operands.FromReference(first, native);
  // bf16 outputs round to 2^-9, bf16 weights made from other types do so once more, and the fast
  // accumulation of e4m3 keeps about 14 bits. The largest error is that of an output 15 times the
  // root mean square.
  const double typical = native && c.dtype == DType::kF8Channel ? 5e-3
                         : operands.ElementBytes() == 2         ? 3e-3
                         : native || c.dtype == DType::kBF16    ? 1e-3
                                                                : 2.5e-3;
  // So few outputs may all be small beside the terms of their sums.
  const double l2 = int64_t{c.rows} * c.out < 64 ? 2 * typical : typical;
  const bool passed = status.ok() && distance.l2 < l2 && distance.max < 15 * l2 &&
                      operands.WroteExactly(first) && first == second;
  report.Case(passed, "%-12s %-8s %5d x %5d x %5d extras %2u  l2 %.1e max %.1e%s%s%s",
              NameOf(c.dtype), NameOf(c.epilogue), c.rows, c.out, c.in, c.extras, distance.l2,
              distance.max, operands.WroteExactly(first) ? "" : " WRITES",
              first == second ? "" : " REPLAY", std::string(status.message()).c_str());
}

// A not-a-number or an infinity in one row shows there and nowhere else.
void CheckIsolation(GemmEngine& engine, DType dtype, Report& report) {
  Operands operands({dtype, 65, 512, 1024, GemmEpilogue::kStore, kNone});
  const GemmArgs args = operands.Args();
  Status status = engine.Run(args, nullptr);
  const std::vector<uint8_t> clean = operands.y_device.Download();
  operands.x[3 * 1024 + 5] = 0x7fc0;
  operands.x[7 * 1024 + 900] = 0x7f80;
  operands.x_device.Upload(operands.x);
  status.Update(engine.Run(args, nullptr));
  const std::vector<uint8_t> dirty = operands.y_device.Download();
  bool shown = true, isolated = true;
  const size_t row_bytes = operands.y_stride * 2;
  for (int row = 0; row < 65; ++row) {
    if (row == 3 || row == 7) {
      for (int i = 0; i < 512; ++i) shown &= !std::isfinite(operands.Value(dirty, row, i));
    } else {
      isolated &= std::memcmp(&clean[row * row_bytes], &dirty[row * row_bytes], 1024) == 0;
    }
  }
  report.Case(status.ok() && shown && isolated, "%-12s not-a-number: shown %d, isolated %d",
              NameOf(dtype), shown, isolated);
}

// Products over the parts of one weight, run together, against each by itself or all as one:
// columns of one buffer, and outputs of a single row that follow one another but are no columns.
void CheckTogether(GemmEngine& engine, int rows, bool columns, Report& report) {
  constexpr int kOuts[] = {256, 128, 128};
  Operands operands({DType::kBF16, rows, 512, 1024, GemmEpilogue::kStore, kNone});
  const GemmArgs whole = operands.Args();
  std::vector<GemmArgs> parts;
  int begin = 0;
  for (const int out : kOuts) {
    GemmArgs part = whole;
    part.out = out;
    part.weight += int64_t{2} * begin * part.in;
    part.y = operands.y_device.get() + 2 * begin;
    if (!columns) part.y_stride = out;
    parts.push_back(part);
    begin += out;
  }
  operands.y_device.Upload(operands.y_before);
  Status status = engine.RunTogether(parts, nullptr);
  CHECK_CUDA(cudaDeviceSynchronize());
  const std::vector<uint8_t> together = operands.y_device.Download();
  operands.y_device.Upload(operands.y_before);
  if (columns) {
    status.Update(engine.Run(whole, nullptr));
  } else {
    for (const GemmArgs& part : parts) status.Update(engine.Run(part, nullptr));
  }
  CHECK_CUDA(cudaDeviceSynchronize());
  report.Case(
      status.ok() && together == operands.y_device.Download() && operands.WroteExactly(together),
      "%d rows together, as %s %s", rows, columns ? "columns" : "rows",
      std::string(status.message()).c_str());
}

// Rows of a product of 8192 rows (2048 for a wide input) against the same rows in products of other
// counts, bit for bit.
void CheckInvariance(GemmEngine& engine, DType dtype, int out, int in, GemmEpilogue epilogue,
                     unsigned extras, Report& report) {
  const int all_rows = in > 8192 ? 2048 : 8192;
  Operands operands({dtype, all_rows, out, in, epilogue, extras});
  Status status = engine.Prepare(GemmShape{dtype, out, in, epilogue}, all_rows, GemmSearch::kTimed);
  GemmArgs args = operands.Args();
  operands.y_device.Upload(operands.y_before);
  status.Update(engine.Run(args, nullptr));
  CHECK_CUDA(cudaDeviceSynchronize());
  const std::vector<uint8_t> all = operands.y_device.Download();
  const size_t row_bytes = operands.y_stride * operands.ElementBytes();
  std::string different;
  int products = 0;
  for (const int rows :
       {1,   2,   3,   16,  17,   63,   64,   65,   100,  127,  128,  129,  200, 256,
        257, 400, 512, 513, 1000, 1024, 1500, 2048, 3000, 4096, 4097, 6000, 8191}) {
    if (rows > all_rows) break;
    for (const int begin : {0, std::min(37, all_rows - rows), all_rows - rows}) {
      args.rows = rows;
      args.x =
          reinterpret_cast<const __nv_bfloat16*>(operands.x_device.get()) + int64_t{begin} * in;
      if (args.addend != nullptr) {
        args.addend = reinterpret_cast<const __nv_bfloat16*>(operands.addend_device.get()) +
                      begin * operands.addend_stride;
      }
      const size_t from = begin * row_bytes, bytes = rows * row_bytes;
      uint8_t* y = operands.y_device.get() + from;
      args.y = y;
      std::vector<uint8_t> some(bytes);
      CHECK_CUDA(cudaMemcpy(y, &operands.y_before[from], bytes, cudaMemcpyHostToDevice));
      status.Update(engine.Run(args, nullptr));
      CHECK_CUDA(cudaMemcpy(some.data(), y, bytes, cudaMemcpyDeviceToHost));
      if (std::memcmp(&all[from], some.data(), bytes) != 0) {
        different += " " + std::to_string(rows) + "@" + std::to_string(begin);
      }
      ++products;
    }
  }
  report.Case(status.ok() && different.empty(),
              "%-12s %-8s %5d x %5d extras %u: rows keep their bits in %d products%s%s",
              NameOf(dtype), NameOf(epilogue), out, in, extras, products,
              different.empty() ? "" : ", but not in",
              (different + std::string(status.message())).c_str());
}

void CheckRefusals(const std::vector<std::string>& folders, Report& report) {
  using kernels::cuda::MissingGemm;
  report.Case(
      MissingGemm(DType::kBF16, 1, 8).empty() && MissingGemm(DType::kI4G64Zero, 5, 192).empty(),
      "smallest shapes are taken");
  report.Case(
      !MissingGemm(DType::kF16, 64, 64).empty() && !MissingGemm(DType::kBF16, 64, 100).empty() &&
          !MissingGemm(DType::kI4G128, 64, 64).empty() && !MissingGemm(DType::kBF16, 0, 64).empty(),
      "others are refused: %s", MissingGemm(DType::kBF16, 64, 100).c_str());
  DeviceBuffer<uint8_t> workspace(kernels::cuda::kGemmWorkspaceBytes);
  auto engine = MakeEngine(GemmNumerics::kRowInvariant, workspace, folders);
  Operands operands({DType::kBF16, 65, 64, 64, GemmEpilogue::kStore, kNone});
  const Status status = engine->Run(operands.Args(), nullptr);
  report.Case(status.code() == absl::StatusCode::kFailedPrecondition, "unprepared: %s",
              std::string(status.message()).c_str());
  const auto small = GemmEngine::Create({.workspace = nullptr, .workspace_bytes = 1});
  report.Case(!small.ok(), "no workspace: %s", std::string(small.status().message()).c_str());
}

std::vector<Case> Cases() {
  constexpr GemmEpilogue kEpilogues[] = {GemmEpilogue::kStore, GemmEpilogue::kStoreFloat,
                                         GemmEpilogue::kResidual};
  std::vector<Case> cases;
  for (const DType dtype : {DType::kBF16, DType::kF8Channel, DType::kF8Block128, DType::kI8Channel,
                            DType::kI4G128, DType::kI4G64, DType::kI4G128Zero, DType::kI4G64Zero}) {
    const bool codes = dtype == DType::kF8Channel;
    for (const GemmEpilogue epilogue : kEpilogues) {
      cases.push_back({dtype, 65, 1024, 1024, epilogue, kNone});
      cases.push_back({dtype, 127, 520, 1152, epilogue, kBias});
      cases.push_back({dtype, 100, 1000, 640, epilogue, kBias | kAddend});
      cases.push_back({dtype, 68, 384, 256, epilogue, kAddend | (codes ? kCodes : kNone)});
      cases.push_back({dtype, 77, 264, 384, epilogue, kBias | kAddend | kRows});
      cases.push_back({dtype, 1000, 129, 256, epilogue, kOddStride});
    }
    cases.push_back({dtype, 1, 7, 128, GemmEpilogue::kStore, kNone});
    cases.push_back({dtype, 3, 1, 128, GemmEpilogue::kStoreFloat, kBias});
    cases.push_back({dtype, 1000, 2048, 4096, GemmEpilogue::kStore, kNone});
    cases.push_back({dtype, 4097, 1024, dtype <= DType::kF8Channel ? 14336 : 1024,
                     GemmEpilogue::kResidual, kNone});
  }
  for (const DType dtype :
       {DType::kBF16, DType::kF8Channel, DType::kF8Block128, DType::kI8Channel}) {
    cases.push_back({dtype, 70, 100, 264, GemmEpilogue::kStore, kNone});
    cases.push_back({dtype, 70, 104, 272, GemmEpilogue::kStore, kNone});
  }
  for (const DType dtype : {DType::kI4G128, DType::kI4G64, DType::kI4G128Zero, DType::kI4G64Zero}) {
    cases.push_back({dtype, 65, 1024, 1024, GemmEpilogue::kStore, kPacked});
    cases.push_back({dtype, 100, 1000, 640, GemmEpilogue::kResidual, kPacked | kBias});
    cases.push_back({dtype, 130, 5000, 8192, GemmEpilogue::kStoreFloat, kPacked});
  }
  cases.push_back({DType::kI4G64, 66, 130, 192, GemmEpilogue::kStore, kPacked});
  cases.push_back({DType::kI4G128, 65, 10000, 8192, GemmEpilogue::kStore, kBias});
  cases.push_back({DType::kF8Channel, 10000, 64, 16384, GemmEpilogue::kStore, kNone});
  cases.push_back({DType::kBF16, 3000, 14336, 512, GemmEpilogue::kResidual, kRows});
  return cases;
}

int Check(const std::vector<std::string>& folders) {
  Report report;
  DeviceBuffer<uint8_t> workspace(kernels::cuda::kGemmWorkspaceBytes);
  {
    auto engine = MakeEngine(GemmNumerics::kFast, workspace, folders);
    std::printf("%s, %s, version %zu\n", DeviceName().c_str(), engine->LibraryPath().c_str(),
                engine->LibraryVersion());
    for (const Case& c : Cases()) CheckCase(*engine, c, report);
    for (const DType dtype :
         {DType::kBF16, DType::kF8Channel, DType::kF8Block128, DType::kI4G128}) {
      CheckIsolation(*engine, dtype, report);
    }
    for (const int rows : {1, 64, 300}) CheckTogether(*engine, rows, true, report);
    CheckTogether(*engine, 1, false, report);
    const Status status = engine->Prepare(
        GemmShape{DType::kF8Channel, 1024, 1024, GemmEpilogue::kStore}, 1024, GemmSearch::kTimed);
    report.Case(status.ok(), "timed algorithms %s", std::string(status.message()).c_str());
    for (const int rows : {65, 200, 1000}) {
      CheckCase(*engine, {DType::kF8Channel, rows, 1024, 1024, GemmEpilogue::kStore, kAddend},
                report);
    }
  }
  auto engine = MakeEngine(GemmNumerics::kRowInvariant, workspace, folders);
  CheckInvariance(*engine, DType::kBF16, 2048, 4096, GemmEpilogue::kStore, kBias, report);
  CheckInvariance(*engine, DType::kBF16, 1024, 4096, GemmEpilogue::kResidual, kNone, report);
  CheckInvariance(*engine, DType::kBF16, 1000, 2048, GemmEpilogue::kStore, kOddStride, report);
  CheckInvariance(*engine, DType::kF8Channel, 1536, 2048, GemmEpilogue::kStore, kAddend, report);
  CheckInvariance(*engine, DType::kF8Channel, 1024, 2048, GemmEpilogue::kResidual, kNone, report);
  CheckInvariance(*engine, DType::kF8Block128, 1536, 2048, GemmEpilogue::kStore, kNone, report);
  CheckInvariance(*engine, DType::kF8Block128, 1024, 2048, GemmEpilogue::kResidual, kNone, report);
  CheckInvariance(*engine, DType::kF8Block128, 512, 14336, GemmEpilogue::kStore, kNone, report);
  CheckInvariance(*engine, DType::kF8Channel, 512, 14336, GemmEpilogue::kResidual, kNone, report);
  CheckInvariance(*engine, DType::kI4G128, 1024, 2048, GemmEpilogue::kStoreFloat, kNone, report);
  CheckRefusals(folders, report);
  return report.Finish();
}

}  // namespace
}  // namespace tessera::check

int main(int argc, char** argv) {
  bool bench = false;
  std::vector<std::string> folders;
  for (int i = 1; i < argc; ++i) {
    if (std::string(argv[i]) == "--bench") {
      bench = true;
    } else {
      folders.push_back(argv[i]);
    }
  }
  return bench ? tessera::check::BenchGemm(folders) : tessera::check::Check(folders);
}
