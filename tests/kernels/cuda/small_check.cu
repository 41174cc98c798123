// Checks the row and page kernels of kernels/cuda/ops against float64; --bench times them.
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <numeric>

#include "kernels/cuda/kv_layout.h"
#include "kernels/cuda/ops/pages.h"
#include "kernels/cuda/ops/rows.h"
#include "kernels/cuda/ops/step_tables.h"
#include "kernels/cuda/ops/synthetic.h"
#include "kernels/synthetic_tensor.h"
#include "tests/kernels/cuda/check_util.cuh"
#include "tests/kernels/cuda/group_codes.cuh"
#include "tests/kernels/cuda/weight_reference.cuh"

namespace tessera::check {
namespace {

using namespace tessera::kernels;        // NOLINT(google-build-using-namespace)
using namespace tessera::kernels::cuda;  // NOLINT(google-build-using-namespace)
using Launch = std::function<void(cudaStream_t)>;

// Runs `launch` directly and then in a graph; `reset` before each, `passes` after.
void Twice(Report& report, const std::string& name, const std::function<void()>& reset,
           const Launch& launch, const std::function<bool()>& passes) {
  reset();
  CHECK_CUDA(cudaDeviceSynchronize());
  launch(nullptr);
  CHECK_CUDA(cudaDeviceSynchronize());
  const bool direct = passes();
  Graph graph(launch);
  reset();
  CHECK_CUDA(cudaDeviceSynchronize());
  graph.Run();
  const bool replayed = passes();
  report.Case(direct && replayed, "%s%s%s", name.c_str(), direct ? "" : " (direct)",
              replayed ? "" : " (graph)");
}

bool Near(double got, double want, double relative, double absolute) {
  return std::abs(got - want) <= relative * std::abs(want) + absolute;
}

enum class RowForm { kBf16, kE4m3Rows, kE4m3Groups, kInt8Groups };
const char* NameOf(RowForm form) {
  constexpr const char* kNames[] = {"", " e4m3", " e4m3 by groups", " int8 by groups"};
  return kNames[static_cast<int>(form)];
}
bool IsGrouped(RowForm form) { return form >= RowForm::kE4m3Groups; }

struct RowsOut {
  int rows, width;
  int64_t stride;
  RowForm form;
  DeviceBuffer<uint16_t> y;
  DeviceBuffer<uint8_t> codes;
  DeviceBuffer<float> scales;
  RowsOut(int r, int w, RowForm f)
      : rows(r),
        width(w),
        stride(f == RowForm::kInt8Groups ? w + 64 : w + 16),
        form(f),
        y(f == RowForm::kBf16 ? r * stride : 1),
        codes(f == RowForm::kBf16 ? 1 : r * stride),
        scales(IsGrouped(f) ? size_t{kCodeRows} * (w / kCodeGroup + 1) : r) {}
  RowOutput Output() {
    RowOutput out;
    out.stride = stride;
    if (form == RowForm::kBf16) {
      out.y = reinterpret_cast<__nv_bfloat16*>(y.get());
      return out;
    }
    constexpr CodeKind kKinds[] = {CodeKind::kE4m3Rows, CodeKind::kE4m3Groups,
                                   CodeKind::kInt8Groups};
    out.codes = {codes.get(), scales.get(), kKinds[static_cast<int>(form) - 1]};
    return out;
  }
  // Columns that share a scale, and where that lies.
  int group() const { return IsGrouped(form) ? kCodeGroup : width; }
  size_t ScaleAt(int row, int column) const {
    return IsGrouped(form) ? size_t{kCodeRows} * (column / kCodeGroup) + row : row;
  }
  // Whether a code is within half a step of what it stands for.
  bool CodeMatches(uint8_t code, float scale, double want, double amax) const {
    if (form == RowForm::kInt8Groups) {
      return Near(scale, amax / 127, 2e-5, 0) &&
             Near(static_cast<int8_t>(code) * double{scale}, want, 0, scale * 0.502);
    }
    __nv_fp8_e4m3 e;
    e.__x = code;
    return Near(scale, amax / 448, 2e-5, 0) &&
           Near(double(float(e)) * scale, want, 0.0626, scale * 0.00105);
  }
  void Poison() { y.Poison(), codes.Poison(), scales.Poison(); }
  // bf16: half a unit in the last place and the float32 sums; e4m3: half a step.
  bool Matches(const std::vector<double>& want) const {
    bool passed = y.CanaryIntact() && codes.CanaryIntact() && scales.CanaryIntact();
    const auto bf16 = y.Download();
    const auto code = codes.Download();
    const auto scale = scales.Download();
    for (int r = 0; r < rows && passed; ++r) {
      const double* const row = &want[size_t(r) * width];
      double amax = 0;
      for (int c = 0; c < width && passed; ++c) {
        if (c % group() == 0) {
          amax = 0;
          for (int i = c; i < std::min(width, c + group()); ++i) {
            amax = std::max(amax, std::abs(row[i]));
          }
        }
        const double w = row[c];
        if (form != RowForm::kBf16) {
          const int at = form == RowForm::kInt8Groups ? Int8PlaceOf(c) : c;
          passed = CodeMatches(code[r * stride + at], scale[ScaleAt(r, c)], w, amax);
        } else {
          passed = Near(BitsToFloat(y.size() > 1 ? bf16[r * stride + c] : 0), w, 0.0040, 1e-7);
        }
      }
    }
    return passed;
  }
};

void CheckNorm(Report& report) {
  Rng rng(1);
  const int shapes[][2] = {{1, 8},       {1, 4096},    {3, 576},    {17, 2056},
                           {64, 8192},   {5, 16384},   {2, 28672},  {3, 32768},
                           {1500, 1024}, {3300, 1000}, {1700, 4104}};
  for (const auto& shape : shapes) {
    const int rows = shape[0], width = shape[1];
    for (const RowForm form :
         {RowForm::kBf16, RowForm::kE4m3Rows, RowForm::kE4m3Groups, RowForm::kInt8Groups}) {
      if (IsGrouped(form) && rows > kCodeRows) continue;
      if (form == RowForm::kInt8Groups && width % 64 != 0) continue;
      std::vector<float> x(size_t(rows + 2) * width), weight(width);
      for (float& v : x) v = 3 * rng.Normal();
      for (float& v : weight) v = rng.Normal();
      std::vector<int32_t> x_rows(rows);
      for (int r = 0; r < rows; ++r) x_rows[r] = rows + 1 - r;
      std::vector<double> want(size_t(rows) * width);
      for (int r = 0; r < rows; ++r) {
        const float* from = &x[size_t(x_rows[r]) * width];
        double squares = 0;
        for (int c = 0; c < width; ++c) squares += double(from[c]) * from[c];
        const double scale = 1 / std::sqrt(squares / width + 1e-5f);
        for (int c = 0; c < width; ++c) want[size_t(r) * width + c] = from[c] * scale * weight[c];
      }
      const DeviceBuffer<float> dx(x), dw(weight);
      const DeviceBuffer<int32_t> dr(x_rows);
      RowsOut out(rows, width, form);
      const RmsNormArgs args = {dx.get(), dr.get(), dw.get(), 1e-5f, rows, width, out.Output()};
      Twice(
          report, "rms_norm " + std::to_string(rows) + " x " + std::to_string(width) + NameOf(form),
          [&] { out.Poison(); }, [&](cudaStream_t s) { CHECK_CUDA(LaunchRmsNorm(args, s)); },
          [&] { return out.Matches(want); });
    }
  }
}

double Activated(ActivationKind kind, double x) {
  if (kind == ActivationKind::kSilu) return x / (1 + std::exp(-x));
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

void CheckGated(Report& report) {
  Rng rng(2);
  const int shapes[][2] = {{1, 8},     {1, 14336}, {3, 1536},   {70, 14336},
                           {2, 28672}, {130, 200}, {1027, 1544}};
  for (const auto& shape : shapes) {
    const int rows = shape[0], width = shape[1], gs = width + 8, us = 2 * width;
    for (const ActivationKind kind : {ActivationKind::kSilu, ActivationKind::kGeluTanh}) {
      std::vector<uint16_t> gate(size_t(rows) * gs), up(size_t(rows) * us);
      for (auto& v : gate) v = Bf16Bits(2 * rng.Normal());
      for (auto& v : up) v = Bf16Bits(rng.Normal());
      std::vector<double> want(size_t(rows) * width);
      for (int r = 0; r < rows; ++r) {
        for (int c = 0; c < width; ++c) {
          want[size_t(r) * width + c] = Activated(kind, BitsToFloat(gate[size_t(r) * gs + c])) *
                                        BitsToFloat(up[size_t(r) * us + c]);
        }
      }
      const DeviceBuffer<uint16_t> dg(gate), du(up);
      RowsOut out(rows, width, RowForm::kBf16);
      const GatedActivationArgs args = {reinterpret_cast<const __nv_bfloat16*>(dg.get()),
                                        reinterpret_cast<const __nv_bfloat16*>(du.get()),
                                        gs,
                                        us,
                                        kind,
                                        rows,
                                        width,
                                        out.Output()};
      Twice(
          report,
          std::string(kind == ActivationKind::kSilu ? "silu " : "gelu_tanh ") +
              std::to_string(rows) + " x " + std::to_string(width),
          [&] { out.Poison(); },
          [&](cudaStream_t s) { CHECK_CUDA(LaunchGatedActivation(args, s)); },
          [&] { return out.Matches(want); });
    }
  }
}

// The same by groups: `args` of rows in place of `gate`, which become `y`.
void CheckGatedGroups(Report& report, GatedActivationArgs args, const std::vector<uint16_t>& gate,
                      const DeviceBuffer<uint16_t>& y) {
  DeviceBuffer<uint16_t> in_place(gate.size());
  args.gate = reinterpret_cast<__nv_bfloat16*>(in_place.get());
  for (const CodeKind kind : {CodeKind::kE4m3Groups, CodeKind::kInt8Groups}) {
    if (kind == CodeKind::kInt8Groups && args.width % 64 != 0) continue;
    GroupCodesBuffers groups(kind, args.rows, args.width);
    args.out = {.y = reinterpret_cast<__nv_bfloat16*>(in_place.get()),
                .codes = groups.Get(),
                .stride = args.width};
    Twice(
        report, kind == CodeKind::kInt8Groups ? "the same to int8 by groups" : "the same by groups",
        [&] { groups.codes.Poison(), groups.scales.Poison(), in_place.Upload(gate); },
        [&](cudaStream_t s) { CHECK_CUDA(LaunchGatedActivation(args, s)); },
        [&] {
          return in_place.Download() == y.Download() &&
                 OtherCodes(in_place.get(), args.rows, args.width, groups).empty();
        });
  }
}

// Rows and codes of one launch, in place, have the bits of a launch each.
void CheckGatedCodes(Report& report) {
  Rng rng(12);
  const int shapes[][2] = {{1, 8},     {3, 1000},   {70, 4096}, {64, 14336},  {2, 16384},
                           {5, 28672}, {37, 32776}, {3, 65536}, {1700, 4096}, {900, 14336}};
  for (const auto& shape : shapes) {
    const int rows = shape[0], width = shape[1];
    for (const ActivationKind kind : {ActivationKind::kSilu, ActivationKind::kGeluTanh}) {
      std::vector<uint16_t> gate(size_t(rows) * width), up(gate.size());
      for (auto& v : gate) v = Bf16Bits(2 * rng.Normal());
      for (auto& v : up) v = Bf16Bits(rng.Normal());
      if (rows > 2) {
        std::fill_n(up.begin(), width, 0);  // a row of zeros
        gate[width + 1] = 0x7fc0;           // a NaN
        up[2 * size_t(width)] = 0xff80;     // an infinity
      }
      const DeviceBuffer<uint16_t> du(up), dg(gate);
      DeviceBuffer<uint16_t> y(gate.size()), in_place(gate.size());
      DeviceBuffer<uint8_t> codes(gate.size()), want_codes(gate.size());
      DeviceBuffer<float> scales(rows), want_scales(rows);
      const auto bf16 = [](const DeviceBuffer<uint16_t>& buffer) {
        return reinterpret_cast<__nv_bfloat16*>(buffer.get());
      };
      GatedActivationArgs args = {bf16(dg), bf16(du), width, width, kind, rows, width};
      args.out = {.y = bf16(y), .stride = width};
      CHECK_CUDA(LaunchGatedActivation(args, nullptr));
      CHECK_CUDA(LaunchCodeRows({bf16(y),
                                 width,
                                 rows,
                                 width,
                                 {.codes = {want_codes.get(), want_scales.get()}, .stride = width}},
                                nullptr));
      args.gate = bf16(in_place);
      args.out = {.y = bf16(in_place), .codes = {codes.get(), scales.get()}, .stride = width};
      Twice(
          report,
          std::string(kind == ActivationKind::kSilu ? "silu " : "gelu_tanh ") +
              std::to_string(rows) + " x " + std::to_string(width) + " and its e4m3",
          [&] { codes.Poison(), scales.Poison(), in_place.Upload(gate); },
          [&](cudaStream_t s) { CHECK_CUDA(LaunchGatedActivation(args, s)); },
          [&] {
            const auto got = scales.Download(), want = want_scales.Download();
            return in_place.CanaryIntact() && codes.CanaryIntact() && scales.CanaryIntact() &&
                   in_place.Download() == y.Download() &&
                   codes.Download() == want_codes.Download() &&
                   std::memcmp(got.data(), want.data(), rows * sizeof(float)) == 0;
          });
      if (rows <= kCodeRows) CheckGatedGroups(report, args, gate, y);
    }
  }
}

void CheckQuantize(Report& report, int rows, int width, RowForm form, Rng& rng) {
  std::vector<uint16_t> x(size_t(rows) * width);
  std::vector<double> want(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = Bf16Bits(int(i / width) == 5 ? 0.0f : rng.Normal());
    want[i] = BitsToFloat(x[i]);
  }
  const DeviceBuffer<uint16_t> dx(x);
  RowsOut out(rows, width, form);
  const std::string name = "quantize" + std::string(NameOf(form)) + " " + std::to_string(width);
  const CodeRowsArgs args = {reinterpret_cast<const __nv_bfloat16*>(dx.get()), width, rows, width,
                             out.Output()};
  Twice(
      report, name + ", one row of zeros", [&] { out.Poison(); },
      [&](cudaStream_t s) { CHECK_CUDA(LaunchCodeRows(args, s)); },
      [&] { return out.Matches(want) && out.scales.Download()[5] == 0; });
  x[3] = 0x7fc0;
  x[width] = 0x7f80;
  DeviceBuffer<uint16_t> bad(x);
  CodeRowsArgs bad_args = args;
  bad_args.x = reinterpret_cast<const __nv_bfloat16*>(bad.get());
  Twice(
      report, name + ", a NaN and an infinity show in rows' scales", [&] { out.Poison(); },
      [&](cudaStream_t s) { CHECK_CUDA(LaunchCodeRows(bad_args, s)); },
      [&] {
        const auto scales = out.scales.Download();
        return std::isnan(scales[0]) && std::isinf(scales[1]) && std::isfinite(scales[2]);
      });
}

void CheckConversions(Report& report) {
  Rng rng(3);
  for (const int width : {4104, 65536}) {
    CheckQuantize(report, 37, width, RowForm::kE4m3Rows, rng);
    CheckQuantize(report, 37, width, RowForm::kE4m3Groups, rng);
  }
  for (const int width : {4160, 65536}) {
    CheckQuantize(report, 64, width, RowForm::kInt8Groups, rng);
  }
  CheckQuantize(report, 3300, 4104, RowForm::kE4m3Rows, rng);
  std::vector<float> f(8 * 12345);
  for (float& v : f) v = rng.Normal();
  const DeviceBuffer<float> df(f);
  DeviceBuffer<uint16_t> y(f.size());
  Twice(
      report, "float to bf16", [&] { y.Poison(); },
      [&](cudaStream_t s) {
        CHECK_CUDA(LaunchFloatToBf16(
            {df.get(), reinterpret_cast<__nv_bfloat16*>(y.get()), int64_t(f.size())}, s));
      },
      [&] {
        const auto got = y.Download();
        bool passed = y.CanaryIntact();
        for (size_t i = 0; i < f.size(); ++i) passed = passed && got[i] == Bf16Bits(f[i]);
        return passed;
      });
}

void CheckEmbed(Report& report) {
  Rng rng(4);
  const int vocab = 301, width = 384, rows = 77;
  for (const DType dtype : kWeightTypes) {
    const auto table = RandomWeight(dtype, vocab, width, rng);
    const auto values = DecodeReference(dtype, table, vocab, width);
    std::vector<int32_t> tokens(rows), y_rows(rows);
    for (int r = 0; r < rows; ++r) {
      tokens[r] = r == 0 ? vocab - 1 : int32_t(rng.Below(vocab));
      y_rows[r] = rows - 1 - r;
    }
    const DeviceBuffer<uint8_t> dt(table);
    const DeviceBuffer<int32_t> dk(tokens), dr(y_rows);
    DeviceBuffer<float> y(size_t(rows) * width);
    EmbedArgs args;
    args.dtype = dtype;
    args.table = reinterpret_cast<const std::byte*>(dt.get());
    args.tokens = dk.get(), args.row_of = dr.get(), args.y = y.get();
    args.scale = 1.7f, args.rows = rows, args.width = width, args.vocab = vocab;
    Twice(
        report, std::string("embed ") + TypeName(dtype), [&] { y.Poison(); },
        [&](cudaStream_t s) { CHECK_CUDA(LaunchEmbed(args, s)); },
        [&] {
          const auto got = y.Download();
          bool passed = y.CanaryIntact();
          for (int r = 0; r < rows; ++r) {
            for (int c = 0; c < width; ++c) {
              passed = passed && Near(got[size_t(r) * width + c],
                                      values[size_t(tokens[r]) * width + c] * 1.7f, 3e-7, 1e-12);
            }
          }
          return passed;
        });
  }
}

void CheckRotary(Report& report) {
  Rng rng(5);
  const int rows = 1000, pairs = 64;
  std::vector<int32_t> positions(rows);
  std::vector<float> frequencies(pairs);
  for (int i = 0; i < rows; ++i) positions[i] = i < 100 ? i : int32_t(rng.Below(1 << 20));
  for (int i = 0; i < pairs; ++i) frequencies[i] = float(std::pow(500000.0, -i / 64.0));
  const DeviceBuffer<int32_t> dp(positions);
  const DeviceBuffer<float> df(frequencies);
  DeviceBuffer<float> cosine(rows * pairs), sine(rows * pairs);
  int equal = 0;
  Twice(
      report, "rotary angles up to position 1M", [&] { cosine.Poison(), sine.Poison(); },
      [&](cudaStream_t s) {
        CHECK_CUDA(
            LaunchRotaryAngles({dp.get(), df.get(), cosine.get(), sine.get(), rows, pairs}, s));
      },
      [&] {
        const auto c = cosine.Download(), s = sine.Download();
        bool passed = cosine.CanaryIntact() && sine.CanaryIntact();
        equal = 0;
        for (int i = 0; i < rows * pairs; ++i) {
          const float angle = float(positions[i / pairs]) * frequencies[i % pairs];
          passed = passed && Near(c[i], std::cos(angle), 1.2e-7, 1e-12) &&
                   Near(s[i], std::sin(angle), 1.2e-7, 1e-12);
          equal += c[i] == std::cos(angle) && s[i] == std::sin(angle);
        }
        return passed;
      });
  std::printf("      %d of %d angles equal the host's bits\n", equal, rows * pairs);
}

// The tokens and tables of a step: literal and drawn tokens, scattered entries.
void CheckStepTables(Report& report) {
  Rng rng(8);
  constexpr int kRows = 300, kUpdates = 700;
  std::vector<uint32_t> tokens(kRows), drawn(64), want(kRows);
  std::vector<int32_t> slots(kRows);
  for (uint32_t& token : drawn) token = rng.Below(5000);
  for (int i = 0; i < kRows; ++i) {
    tokens[i] = rng.Below(5000);
    slots[i] = i % 3 == 0 ? i % 64 : -1;
    want[i] = slots[i] >= 0 ? drawn[slots[i]] : tokens[i];
  }
  std::vector<PageId> table(4000, PageId(7)), filled = table;
  std::vector<TableUpdate> updates;
  for (uint32_t i = 0; i < kUpdates; ++i) {
    updates.push_back({i * 5, PageId(i + 1000)});
    filled[i * 5] = PageId(i + 1000);
  }
  const DeviceBuffer<uint32_t> dk(tokens), dd(drawn);
  const DeviceBuffer<int32_t> ds(slots);
  const DeviceBuffer<TableUpdate> du(updates);
  DeviceBuffer<uint32_t> resolved(kRows);
  DeviceBuffer<PageId> dt(table);
  Twice(
      report, "step tables",
      [&] {
        resolved.Poison();
        dt.Upload(table);
      },
      [&](cudaStream_t s) {
        CHECK_CUDA(LaunchStepTables({.tokens = dk.get(),
                                     .slots = ds.get(),
                                     .drawn = dd.get(),
                                     .resolved = resolved.get(),
                                     .rows = kRows,
                                     .updates = du.get(),
                                     .update_count = kUpdates,
                                     .tables = dt.get()},
                                    s));
      },
      [&] {
        return resolved.CanaryIntact() && resolved.Download() == want && dt.CanaryIntact() &&
               dt.Download() == filled;
      });
}

// Synthetic weights made on the device have the bytes that the host makes.
void CheckSynthetic(Report& report) {
  for (const DType dtype :
       {DType::kF32, DType::kBF16, DType::kF8Channel, DType::kF8Block128, DType::kI8Channel,
        DType::kI4G128, DType::kI4G64, DType::kI4G128Zero, DType::kI4G64Zero}) {
    const auto tensor = MakeSyntheticTensor(dtype, 37, 384, SyntheticAlgorithm::kNormal, 99,
                                            SyntheticScale(dtype, 0.01));
    if (!tensor.ok()) {
      report.Case(false, "synthetic %s", std::string(TypeName(dtype)).c_str());
      continue;
    }
    std::vector<uint8_t> want((tensor->bytes + 3) / 4 * 4);
    FillSynthetic(*tensor, {reinterpret_cast<std::byte*>(want.data()), tensor->bytes}, 1);
    DeviceBuffer<uint8_t> made(want.size());
    Twice(
        report, std::string("synthetic ") + TypeName(dtype), [&] { made.Poison(); },
        [&](cudaStream_t s) {
          CHECK_CUDA(LaunchSynthetic(*tensor, reinterpret_cast<std::byte*>(made.get()), s));
        },
        [&] { return made.CanaryIntact() && made.Download() == want; });
  }
}

void CheckPageStats(Report& report) {
  Rng rng(6);
  for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32, DType::kF8E4M3}) {
    for (const uint32_t head_dim : {128u, 80u, 64u, 16u}) {
      KvFormat kv;
      kv.dtype = dtype, kv.kv_heads = 3, kv.head_dim = head_dim, kv.key_statistics = true;
      const uint32_t element = dtype == DType::kF32 ? 4 : dtype == DType::kF8E4M3 ? 1 : 2;
      const uint64_t units = kv.page_bytes() / kPageUnitBytes;
      std::vector<uint8_t> arena(3 * kv.page_bytes(), 0xff);
      std::vector<PageId> pages = {PageId(2 * uint32_t(units)), PageId(), PageId(0)};
      std::vector<float> want(2 * 3 * 8 * head_dim);
      for (int p = 0; p < 2; ++p) {
        for (uint32_t h = 0; h < 3; ++h) {
          for (uint32_t t = 0; t < 64; ++t) {
            for (uint32_t d = 0; d < head_dim; ++d) {
              uint8_t bytes[4];
              const float v = EncodeElement(dtype, rng.Normal(), bytes);
              std::memcpy(
                  &arena[pages[2 * p].value * kPageUnitBytes + HeadOffset(h, head_dim, element) +
                         PlaneOffset(t, d * element, head_dim * element)],
                  bytes, element);
              float* low = &want[((p * 3 + h) * 8 + t / 16 * 2) * head_dim + d];
              low[0] = t % 16 == 0 ? v : std::min(low[0], v);
              low[head_dim] = t % 16 == 0 ? v : std::max(low[head_dim], v);
            }
          }
        }
      }
      DeviceBuffer<uint8_t> da(arena);
      const DeviceBuffer<PageId> dp(pages);
      const PageStatsArgs args = {kv, reinterpret_cast<std::byte*>(da.get()), dp.get(), 3};
      Twice(
          report,
          std::string("page statistics ") + TypeName(dtype) + " head_dim " +
              std::to_string(head_dim),
          [&] { da.Upload(arena); }, [&](cudaStream_t s) { CHECK_CUDA(LaunchPageStats(args, s)); },
          [&] {
            auto expected = arena;
            for (int p = 0; p < 2; ++p) {
              std::memcpy(&expected[pages[2 * p].value * kPageUnitBytes + kv.statistics_offset()],
                          &want[p * 24 * head_dim], 24 * head_dim * 4);
            }
            return da.CanaryIntact() && da.Download() == expected;
          });
    }
  }
}

// Replays `launch(i)` for i of enough distinct operands, and prints microseconds beside the bytes.
void Time(const char* name, double bytes, double copy_rate, int repeats,
          const std::function<void(int, cudaStream_t)>& launch) {
  Graph graph([&](cudaStream_t s) {
    for (int i = 0; i < repeats; ++i) launch(i, s);
  });
  const double us = graph.MedianMs() * 1e3 / repeats;
  std::printf("%-36s %9.2f us   limit %9.2f us   %5.1f %%\n", name, us, bytes / copy_rate * 1e6,
              100 * bytes / copy_rate * 1e6 / us);
}

void Bench() {
  CopyBandwidth();  // the first one of a process is slow
  const double rate = CopyBandwidth();
  std::printf("%s, copy %.0f GB/s\n", DeviceName().c_str(), rate / 1e9);
  const size_t pool = size_t{1} << 30;
  DeviceBuffer<uint8_t> from(pool), to(pool);
  CHECK_CUDA(cudaMemset(from.get(), 0x3c, pool));
  DeviceBuffer<float> scales(16384);
  for (const int rows : {1, 64, 8192}) {
    for (const bool f8 : {false, true}) {
      const auto part = [&](DeviceBuffer<uint8_t>& buffer, size_t bytes, int i) {
        return buffer.get() + bytes * i % (pool - bytes) / 256 * 256;
      };
      const int repeats = rows == 8192 ? 8 : 64;
      const auto output = [&](int width, int i) {
        RowOutput out;
        out.stride = width;
        uint8_t* at = part(to, size_t(rows) * width * 2, i);
        if (f8) {
          out.codes = {at, scales.get()};
        } else {
          out.y = reinterpret_cast<__nv_bfloat16*>(at);
        }
        return out;
      };
      const std::string suffix = " " + std::to_string(rows) + (f8 ? " rows to e4m3" : " rows");
      const double out_bytes = f8 ? 1 : 2;
      Time(("rms_norm 4096" + suffix).c_str(), rows * 4096.0 * (4 + out_bytes), rate, repeats,
           [&](int i, cudaStream_t s) {
             const float* x = reinterpret_cast<const float*>(part(from, size_t(rows) * 16384, i));
             const float* w = reinterpret_cast<const float*>(from.get() + pool - 16384);
             CHECK_CUDA(LaunchRmsNorm({x, nullptr, w, 1e-5f, rows, 4096, output(4096, i)}, s));
           });
      Time(("silu 14336" + suffix + (f8 ? " too" : "")).c_str(),
           rows * 14336.0 * (4 + (f8 ? 3 : 2)), rate, repeats, [&](int i, cudaStream_t s) {
             const auto* gate =
                 reinterpret_cast<const __nv_bfloat16*>(part(from, size_t(rows) * 57344, i));
             RowOutput out = output(14336, i);
             out.y = reinterpret_cast<__nv_bfloat16*>(part(to, size_t(rows) * 28672, i + repeats));
             CHECK_CUDA(LaunchGatedActivation(
                 {gate, gate + 14336, 28672, 28672, ActivationKind::kSilu, rows, 14336, out}, s));
           });
    }
  }
}

}  // namespace
}  // namespace tessera::check

int main(int argc, char** argv) {
  using namespace tessera::check;  // NOLINT(google-build-using-namespace)
  if (argc > 1 && std::strcmp(argv[1], "--bench") == 0) {
    Bench();
    return 0;
  }
  Report report;
  CheckNorm(report);
  CheckGated(report);
  CheckGatedCodes(report);
  CheckConversions(report);
  CheckEmbed(report);
  CheckRotary(report);
  CheckStepTables(report);
  CheckSynthetic(report);
  CheckPageStats(report);
  return report.Finish();
}
