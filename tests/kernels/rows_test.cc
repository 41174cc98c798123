// Row-wise ops: norms, residual, quantization, activations, logits.
#include "tests/kernels/kernel_test_support.h"

namespace tessera::kernels {
namespace {

class RowsTest : public IsaTest {};
TESSERA_EACH_ISA(RowsTest);

TEST_P(RowsTest, RmsNormMatchesFloat64) {
  Machine machine(GetParam(), 2);
  Random random(1);
  for (const int width : {1, 7, 16, 20, 64, 576, 1023}) {
    for (const float size : {1e-6f, 1.0f, 1e6f}) {
      constexpr int kRows = 9;
      const std::vector<float> x = random.Floats(static_cast<size_t>(kRows * width), size);
      const std::vector<float> weight = random.Floats(static_cast<size_t>(width));
      const int32_t x_rows[kRows] = {8, 7, 6, 5, 4, 3, 2, 1, 0};
      Guarded<float> y(x.size());
      const NormTask tasks[] = {{weight.data(), 0, 4}, {weight.data(), 4, 5}};
      machine.Run<NormOp>({.width = width}, {.tasks = tasks,
                                             .x = x.data(),
                                             .x_rows = x_rows,
                                             .y = y.data(),
                                             .width = width,
                                             .epsilon = 1e-5f});
      for (int r = 0; r < kRows; ++r) {
        const float* from = x.data() + x_rows[r] * width;
        double squares = 0;
        for (int i = 0; i < width; ++i) squares += double{from[i]} * from[i];
        const double scale = 1 / std::sqrt(squares / width + double{1e-5f});
        for (int i = 0; i < width; ++i) {
          const double want = from[i] * scale * weight[static_cast<size_t>(i)];
          ExpectClose(y[static_cast<size_t>(r * width + i)], want, want, kNormTolerance,
                      "rms_norm");
        }
      }
    }
  }
}

// y[i] of one part in float64, and the sum of magnitudes that went into it.
std::pair<double, double> LayerNormOf(const float* x, const float* weight, const float* bias,
                                      int width, int i) {
  double mean = 0, magnitude = 0, squares = 0;
  for (int j = 0; j < width; ++j) {
    mean += double{x[j]} / width;
    magnitude += std::abs(double{x[j]}) / width;
  }
  for (int j = 0; j < width; ++j) squares += (x[j] - mean) * (x[j] - mean);
  const double scale = weight[i] / std::sqrt(squares / width + double{1e-5f});
  const double added = bias == nullptr ? 0.0 : bias[i];
  return {(x[i] - mean) * scale + added,
          (std::abs(x[i]) + magnitude) * std::abs(scale) + std::abs(added)};
}

TEST_P(RowsTest, LayerNormMatchesFloat64) {
  Machine machine(GetParam(), 2);
  Random random(40);
  for (const int width : {1, 7, 16, 20, 64, 576, 1023}) {
    for (const float middle : {0.0f, 50.0f}) {
      constexpr int kRows = 5;
      std::vector<float> x = random.Floats(static_cast<size_t>(kRows * width));
      for (float& v : x) v += middle;
      const std::vector<float> weight = random.Floats(static_cast<size_t>(width));
      const std::vector<float> bias = random.Floats(static_cast<size_t>(width));
      Guarded<float> y(x.size());
      const NormTask tasks[] = {{weight.data(), 0, 2, bias.data()}, {weight.data(), 2, 3}};
      machine.Run<NormOp>({.kind = NormKind::kLayer, .width = width}, {.kind = NormKind::kLayer,
                                                                       .tasks = tasks,
                                                                       .x = x.data(),
                                                                       .y = y.data(),
                                                                       .width = width,
                                                                       .epsilon = 1e-5f});
      for (int i = 0; i < kRows * width; ++i) {
        const auto [want, scale] =
            LayerNormOf(&x[static_cast<size_t>(i / width * width)], weight.data(),
                        i / width < 2 ? bias.data() : nullptr, width, i % width);
        ExpectClose(y[static_cast<size_t>(i)], want, scale, kNormTolerance, "layer_norm");
      }
    }
  }
}

// Heads of a row, in place, with one weight or one a head.
TEST_P(RowsTest, NormsOfPartsOfARow) {
  Machine machine(GetParam(), 2);
  Random random(41);
  for (const NormKind kind : {NormKind::kNone, NormKind::kRms, NormKind::kLayer}) {
    for (const auto& [width, groups, stride] :
         {std::tuple{64, 3, 0}, {24, 5, 24}, {7, 2, 7}, {96, 1, 0}}) {
      constexpr int kRows = 4;
      const int row = width * groups;
      const std::vector<float> x = random.Floats(static_cast<size_t>(kRows * row));
      const std::vector<float> weight = random.Floats(static_cast<size_t>(row));
      Guarded<float> y(x.size());
      std::copy(x.begin(), x.end(), y.data());
      const NormTask task = {kind == NormKind::kNone ? nullptr : weight.data(), 0, kRows};
      machine.Run<NormOp>(
          {.kind = kind, .width = width, .groups = groups, .input = NormInput::kActivations},
          {.kind = kind,
           .tasks = {&task, 1},
           .x = y.data(),
           .y = y.data(),
           .width = width,
           .groups = groups,
           .weight_stride = stride,
           .epsilon = 1e-5f});
      for (int i = 0; i < kRows * row; ++i) {
        const float* part = &x[static_cast<size_t>(i / width * width)];
        const float* w = &weight[static_cast<size_t>(i / width % groups * stride)];
        double want = part[i % width], scale = want, squares = 0;
        if (kind == NormKind::kLayer) {
          std::tie(want, scale) = LayerNormOf(part, w, nullptr, width, i % width);
        } else if (kind == NormKind::kRms) {
          for (int j = 0; j < width; ++j) squares += double{part[j]} * part[j];
          want *= w[i % width] / std::sqrt(squares / width + double{1e-5f});
          scale = want;
        }
        ExpectClose(y[static_cast<size_t>(i)], want, scale, kNormTolerance, "norm of a part");
      }
    }
  }
}

TEST_P(RowsTest, ResidualAddsOrStoresNamedRows) {
  Machine machine(GetParam(), 2);
  Random random(42);
  constexpr int kRows = 3, kWidth = 37;
  const std::vector<float> x = random.Floats(kRows * kWidth);
  const std::vector<float> before = random.Floats(5 * kWidth);
  const int32_t y_rows[kRows] = {4, 0, 2};
  for (const ResidualMode mode : {ResidualMode::kAdd, ResidualMode::kStore}) {
    std::vector<float> y = before;
    machine.Run<ResidualOp>({.width = kWidth, .mode = mode}, {.mode = mode,
                                                              .x = x.data(),
                                                              .y_rows = y_rows,
                                                              .y = y.data(),
                                                              .rows = kRows,
                                                              .width = kWidth,
                                                              .scale = 0.22f});
    std::vector<float> want = before;
    for (int i = 0; i < kRows * kWidth; ++i) {
      float& to = want[static_cast<size_t>(y_rows[i / kWidth] * kWidth + i % kWidth)];
      const float scaled = 0.22f * x[static_cast<size_t>(i)];
      to = mode == ResidualMode::kAdd ? to + scaled : scaled;
    }
    EXPECT_TRUE(SameBits(want, y));
  }
}

TEST_P(RowsTest, LogitsAreScaledAndCapped) {
  Machine machine(GetParam(), 2);
  Random random(43);
  constexpr int kRows = 3, kVocab = 9001, kStride = 9008;
  for (const auto& [scale, cap] : {std::pair{0.0625f, 0.0f}, {1.0f, 30.0f}, {-2.0f, 5.0f}}) {
    const std::vector<float> before = random.Floats(kRows * kStride, 20.0f);
    std::vector<float> logits = before;
    const float special[] = {0.0f, 1e-20f, 3e38f, -3e38f, INFINITY, -INFINITY, 0.3f, -0.3f};
    std::copy(std::begin(special), std::end(special), logits.begin());
    const std::vector<float> x = logits;
    machine.Run<ScaleLogitsOp>({.vocab = kVocab}, {.logits = logits.data(),
                                                   .stride = kStride,
                                                   .rows = kRows,
                                                   .vocab = kVocab,
                                                   .scale = scale,
                                                   .softcap = cap});
    for (size_t i = 0; i < logits.size(); ++i) {
      if (i % kStride >= kVocab) {
        EXPECT_EQ(logits[i], x[i]) << "past the row";
        continue;
      }
      const double scaled = static_cast<double>(x[i] * scale);
      const double want = cap > 0 ? cap * std::tanh(scaled / cap) : scaled;
      if (std::isinf(want)) {
        EXPECT_EQ(logits[i], static_cast<float>(want));
      } else {
        ExpectClose(logits[i], want, want, {4e-7, 1e-30}, "logit " + std::to_string(x[i]));
      }
    }
  }
}

TEST_P(RowsTest, QuantizeFollowsItsDefinition) {
  Machine machine(GetParam(), 2);
  Random random(2);
  constexpr int kRows = 12, kWidth = 96;
  std::vector<float> x = random.Floats(kRows * kWidth);
  for (int i = 0; i < 32; ++i) x[static_cast<size_t>(i)] = 0;        // an empty group
  for (int i = 32; i < 64; ++i) x[static_cast<size_t>(i)] = 1e-40f;  // below the grid
  x[64] = 3e38f;                                                     // near the largest
  x[96] = 1e-30f;
  x[200] = -127.0f;
  x[201] = 0.5f;  // a tie on the grid when it is the scale 1
  Guarded<int8_t> q(x.size());
  Guarded<float> scale(x.size() / 32);
  Guarded<int16_t> sum(x.size() / 16);
  machine.Run<QuantizeRowsOp>(
      {.width = kWidth},
      {.x = x.data(), .out = {q.data(), scale.data(), sum.data()}, .rows = kRows, .width = kWidth});
  for (size_t g = 0; g < x.size() / 32; ++g) {
    float amax = 0;
    for (size_t i = 0; i < 32; ++i) amax = std::max(amax, std::abs(x[g * 32 + i]));
    if (amax < 1e-36f) amax = 0;
    EXPECT_EQ(scale[g], amax / 127.0f);
    const float inverse = amax > 0 ? 127.0f / amax : 0;
    int halves[2] = {};
    for (size_t i = g * 32; i < g * 32 + 32; ++i) {
      EXPECT_EQ(q[i], static_cast<int>(std::nearbyint(x[i] * inverse))) << i;
      halves[i % 32 / 16] += q[i];
    }
    EXPECT_EQ(sum[2 * g], halves[0]);
    EXPECT_EQ(sum[2 * g + 1], halves[1]);
  }
}

TEST_P(RowsTest, NotANumberIsNeverHiddenByQuantization) {
  Machine machine(GetParam(), 1);
  for (const float bad : {NAN, -NAN, INFINITY, -INFINITY}) {
    for (int at = 0; at < 32; ++at) {
      std::vector<float> x(32, 0.25f);
      x[static_cast<size_t>(at)] = bad;
      TestRows rows(machine, x, 1, 32);
      EXPECT_FALSE(std::isfinite(rows.scale[0])) << at;
    }
  }
}

double Reference(ActivationKind kind, double g) {
  if (kind == ActivationKind::kSilu) return g / (1 + std::exp(-g));
  if (kind == ActivationKind::kGelu) return g / 2 * std::erfc(-g / std::sqrt(2.0));
  if (kind == ActivationKind::kRelu) return std::max(g, 0.0);
  if (kind == ActivationKind::kRelu2) return std::max(g, 0.0) * std::max(g, 0.0);
  const double u = 0.7978845608028654 * (g + 0.044715 * g * g * g);
  return g / (1 + std::exp(-2 * u));
}

TEST_P(RowsTest, GatedActivationMatchesFloat64) {
  Machine machine(GetParam(), 2);
  Random random(3);
  for (int i = 0; i < kActivationKinds; ++i) {
    const auto kind = static_cast<ActivationKind>(i);
    for (const int width : {1, 17, 256, 1536}) {
      constexpr int kRows = 5;
      std::vector<float> gate = random.Floats(static_cast<size_t>(kRows * width), 4.0f);
      const std::vector<float> up = random.Floats(gate.size());
      const float special[] = {0.0f, -0.0f, 1e-30f, 18.0f, -18.0f, 90.0f, -90.0f, 1e18f, -1e18f};
      for (size_t i = 0; i < std::size(special) && i < gate.size(); ++i) gate[i] = special[i];
      Guarded<float> y(gate.size());
      machine.Run<GatedActivationOp>({.kind = kind}, {.gate = gate.data(),
                                                      .up = up.data(),
                                                      .y = y.data(),
                                                      .rows = kRows,
                                                      .width = width,
                                                      .kind = kind});
      for (size_t i = 0; i < gate.size(); ++i) {
        const double want = Reference(kind, gate[i]) * up[i];
        // Gelu's tail is a product of exponentials: right to the size of what it is a tail of.
        const double scale = kind == ActivationKind::kGelu ? double{gate[i]} * up[i] : want;
        ExpectClose(y[i], want, scale, kActivationTolerance, "gate " + std::to_string(gate[i]));
      }
      Guarded<float> plain(gate.size());
      machine.Run<GatedActivationOp>(
          {.kind = kind, .gating = Gating::kPlain},
          {.gate = gate.data(), .y = plain.data(), .rows = kRows, .width = width, .kind = kind});
      for (size_t i = 0; i < gate.size(); ++i) {
        ASSERT_EQ(plain[i] * up[i], y[i]) << NameOf(kind) << " of " << gate[i];
      }
      // In place over either input.
      std::vector<float> in_place = gate;
      machine.Run<GatedActivationOp>({.kind = kind}, {.gate = in_place.data(),
                                                      .up = up.data(),
                                                      .y = in_place.data(),
                                                      .rows = kRows,
                                                      .width = width,
                                                      .kind = kind});
      EXPECT_TRUE(SameBits(in_place, y.values()));
    }
  }
}

// A pass that also quantizes gives what quantizing its output gives; of several tasks, each row.
TEST_P(RowsTest, FusedQuantizationHasTheSameBits) {
  constexpr int kRows = 37, kWidth = 160;
  Machine machine(GetParam(), 3);
  Random random(6);
  const std::vector<float> x = random.Floats(kRows * kWidth, 3.0f);
  const std::vector<float> up = random.Floats(kRows * kWidth);
  const std::vector<float> w = random.Floats(3 * kWidth);
  const NormTask tasks[] = {{w.data(), 0, 5}, {w.data() + kWidth, 5, 0}, {&w[2 * kWidth], 5, 32}};
  for (const bool norms : {true, false}) {
    Guarded<float> y(x.size()), scale(x.size() / 32);
    Guarded<int8_t> q(x.size());
    Guarded<int16_t> sum(x.size() / 16);
    const QuantizedRows q8 = {q.data(), scale.data(), sum.data()};
    std::vector<float> want(x.size());
    if (norms) {
      machine.Run<NormOp>(
          {.width = kWidth, .quantized = true},
          {.tasks = tasks, .x = x.data(), .y = y.data(), .width = kWidth, .q8 = q8});
      machine.Run<NormOp>({.width = kWidth},
                          {.tasks = tasks, .x = x.data(), .y = want.data(), .width = kWidth});
    } else {
      machine.Run<GatedActivationOp>({.quantized = true}, {.gate = x.data(),
                                                           .up = up.data(),
                                                           .y = y.data(),
                                                           .rows = kRows,
                                                           .width = kWidth,
                                                           .q8 = q8});
      machine.Run<GatedActivationOp>(
          {},
          {.gate = x.data(), .up = up.data(), .y = want.data(), .rows = kRows, .width = kWidth});
    }
    EXPECT_TRUE(SameBits(want, y.values()));
    const TestRows expected(machine, want, kRows, kWidth);
    EXPECT_EQ(expected.q, q.values());
    EXPECT_TRUE(SameBits(expected.scale, scale.values()));
    EXPECT_EQ(expected.sum, sum.values());
  }
}

TEST(RowsBits, AreTheSameOnEveryInstructionSet) {
  Random random(4);
  constexpr int kRows = 33, kWidth = 160;
  const std::vector<float> x = random.Floats(kRows * kWidth, 3.0f);
  const std::vector<float> w = random.Floats(kWidth);
  std::vector<float> norm, gated[kActivationKinds], scale;
  std::vector<int8_t> q;
  for (const CpuIsa isa : SupportedCpuIsas()) {
    Machine machine(isa, 2);
    std::vector<float> y(x.size());
    const NormTask task = {w.data(), 0, kRows};
    machine.Run<NormOp>({.width = kWidth},
                        {.tasks = {&task, 1}, .x = x.data(), .y = y.data(), .width = kWidth});
    if (norm.empty()) norm = y;
    EXPECT_TRUE(SameBits(norm, y));
    for (int i = 0; i < kActivationKinds; ++i) {
      const auto kind = static_cast<ActivationKind>(i);
      machine.Run<GatedActivationOp>({.kind = kind}, {.gate = x.data(),
                                                      .up = norm.data(),
                                                      .y = y.data(),
                                                      .rows = kRows,
                                                      .width = kWidth,
                                                      .kind = kind});
      std::vector<float>& want = gated[i];
      if (want.empty()) want = y;
      EXPECT_TRUE(SameBits(want, y));
    }
    TestRows rows(machine, x, kRows, kWidth);
    if (q.empty()) q = rows.q, scale = rows.scale;
    EXPECT_EQ(q, rows.q);
    EXPECT_TRUE(SameBits(scale, rows.scale));
  }
}

}  // namespace
}  // namespace tessera::kernels
