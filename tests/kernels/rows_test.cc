// Row-wise ops: norm, quantization, gated activations.
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
      const RmsNormTask tasks[] = {{weight.data(), 0, 4}, {weight.data(), 4, 5}};
      machine.Run<RmsNormOp>({.width = width}, {.tasks = tasks,
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
  const double u = 0.7978845608028654 * (g + 0.044715 * g * g * g);
  return g / (1 + std::exp(-2 * u));
}

TEST_P(RowsTest, GatedActivationMatchesFloat64) {
  Machine machine(GetParam(), 2);
  Random random(3);
  for (const ActivationKind kind : {ActivationKind::kSilu, ActivationKind::kGeluTanh}) {
    for (const int width : {1, 17, 256, 1536}) {
      constexpr int kRows = 5;
      std::vector<float> gate = random.Floats(static_cast<size_t>(kRows * width), 4.0f);
      const std::vector<float> up = random.Floats(gate.size());
      const float special[] = {0.0f, -0.0f, 1e-30f, 20.0f, -20.0f, 90.0f, -90.0f, 1e30f, -1e30f};
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
        ExpectClose(y[i], want, want, kActivationTolerance, "gate " + std::to_string(gate[i]));
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

TEST(RowsBits, AreTheSameOnEveryInstructionSet) {
  Random random(4);
  constexpr int kRows = 33, kWidth = 160;
  const std::vector<float> x = random.Floats(kRows * kWidth, 3.0f);
  const std::vector<float> w = random.Floats(kWidth);
  std::vector<float> norm, gated[2], scale;
  std::vector<int8_t> q;
  for (const CpuIsa isa : SupportedCpuIsas()) {
    Machine machine(isa, 2);
    std::vector<float> y(x.size());
    const RmsNormTask task = {w.data(), 0, kRows};
    machine.Run<RmsNormOp>({.width = kWidth},
                           {.tasks = {&task, 1}, .x = x.data(), .y = y.data(), .width = kWidth});
    if (norm.empty()) norm = y;
    EXPECT_TRUE(SameBits(norm, y));
    for (const ActivationKind kind : {ActivationKind::kSilu, ActivationKind::kGeluTanh}) {
      machine.Run<GatedActivationOp>({.kind = kind}, {.gate = x.data(),
                                                      .up = norm.data(),
                                                      .y = y.data(),
                                                      .rows = kRows,
                                                      .width = kWidth,
                                                      .kind = kind});
      std::vector<float>& want = gated[static_cast<int>(kind)];
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
