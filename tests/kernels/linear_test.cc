// Products of every weight type against float64, and the promise that a row's bits depend on
// nothing but the row.
#include "kernels/cpu/layout.h"
#include "tests/kernels/emulated_tiles.h"
#include "tests/kernels/kernel_test_support.h"

namespace tessera::kernels {
namespace {

// The value of x that the weight type multiplies with.
double Seen(const TestRows& rows, DType dtype, int64_t row, int64_t in, int64_t k) {
  const size_t at = static_cast<size_t>(row * in + k);
  if (!WantsQuantizedRows(dtype)) return rows.x[at];
  return double{rows.scale[at / 32]} * rows.q[at];
}

struct Result {
  std::vector<float> y;
};

std::vector<float> RunLinear(Machine& machine, const TestWeight& w, TestRows& rows, int32_t begin,
                             int32_t count, int32_t total_rows) {
  Guarded<float> y(static_cast<size_t>(total_rows * w.out));
  const LinearTask task = {.weight = w.packed.data(),
                           .y = y.data(),
                           .y_stride = w.out,
                           .out = static_cast<int32_t>(w.out),
                           .row_begin = begin,
                           .row_count = count};
  machine.Run<LinearOp>({.weight = w.dtype, .in = w.in, .out = w.out},
                        {.x = rows.View(), .in = static_cast<int32_t>(w.in), .tasks = {&task, 1}});
  const std::vector<float> all = y.values();
  const auto first = all.begin() + begin * w.out;
  return {first, first + count * w.out};
}

class LinearTest : public IsaTest {};
TESSERA_EACH_ISA(LinearTest);

TEST_P(LinearTest, MatchesFloat64OnOddShapes) {
  Machine machine(GetParam(), 2);
  Random random(1);
  const int shapes[][3] = {{1, 32, 1},    {16, 64, 3},   {17, 96, 7},    {100, 192, 13},
                           {576, 576, 2}, {49, 1536, 9}, {250, 32, 64},  {130, 160, 300},
                           {1, 128, 1},   {17, 384, 7},  {300, 128, 20}, {259, 640, 2},
                           {1, 256, 1},   {33, 512, 3},  {75, 768, 4},   {49, 1792, 11}};
  for (const DType dtype : kAllTypes) {
    for (const auto& [out, in, row_count] : shapes) {
      if (!Fits(dtype, in)) continue;
      const TestWeight w = MakeWeight(*machine.backend, dtype, out, in, random);
      TestRows rows(machine, random.Floats(static_cast<size_t>(row_count * in)), row_count, in);
      const std::vector<float> y = RunLinear(machine, w, rows, 0, row_count, row_count);
      for (int r = 0; r < row_count; ++r) {
        for (int o = 0; o < out; ++o) {
          double sum = 0;
          double scale = 0;
          for (int k = 0; k < in; ++k) {
            const double term =
                w.values[static_cast<size_t>(o * in + k)] * Seen(rows, dtype, r, in, k);
            sum += term;
            scale += std::abs(term);
          }
          ExpectClose(y[static_cast<size_t>(r * out + o)], sum, scale, kLinearTolerance,
                      std::string(InfoOf(dtype).name) + " " + std::to_string(out) + "x" +
                          std::to_string(in) + " row " + std::to_string(r));
          if (HasFailure()) return;
        }
      }
    }
  }
}

TEST_P(LinearTest, FloatTypesTakeAnyWidth) {
  Machine machine(GetParam(), 1);
  Random random(2);
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kF8Channel,
                            DType::kF8Block128, DType::kI8Channel}) {
    const TestWeight w = MakeWeight(*machine.backend, dtype, 19, 172, random);
    TestRows rows(machine, random.Floats(5 * 172), 5, 172);
    const std::vector<float> y = RunLinear(machine, w, rows, 0, 5, 5);
    for (int i = 0; i < 5 * 19; ++i) {
      double sum = 0;
      double scale = 0;
      for (int k = 0; k < 172; ++k) {
        const double term = w.values[static_cast<size_t>(i % 19 * 172 + k)] *
                            rows.x[static_cast<size_t>(i / 19 * 172 + k)];
        sum += term;
        scale += std::abs(term);
      }
      ExpectClose(y[static_cast<size_t>(i)], sum, scale, kLinearTolerance, InfoOf(dtype).name);
    }
  }
}

// Alone, in any group, on any instruction set and number of threads: the same bits.
TEST(LinearBits, DoNotDependOnNeighboursOrMachine) {
  constexpr int kRows = 70;
  for (const DType dtype : kAllTypes) {
    for (const int64_t blocks : {3, 5}) {
      const int64_t in = std::max<int64_t>(32, InfoOf(dtype).block_elements) * blocks;
      Random random(3);
      std::vector<float> expected;
      const std::vector<float> x = random.Floats(static_cast<size_t>(kRows * in));
      Machine first(CpuIsa::kAuto, 1);
      const TestWeight w = MakeWeight(*first.backend, dtype, 148, in, random);
      for (const CpuIsa isa : SupportedCpuIsas()) {
        for (const int threads : {1, 2}) {
          Machine machine(isa, threads);
          TestRows rows(machine, x, kRows, static_cast<int32_t>(in));
          const std::vector<float> all = RunLinear(machine, w, rows, 0, kRows, kRows);
          if (expected.empty()) expected = all;
          ASSERT_TRUE(SameBits(all, expected)) << InfoOf(dtype).name << " " << NameOf(isa);
          for (int count = 1; count < kRows; ++count) {
            const int begin = kRows - count;
            const std::vector<float> some = RunLinear(machine, w, rows, begin, count, kRows);
            ASSERT_EQ(0, std::memcmp(some.data(), all.data() + begin * 148, some.size() * 4))
                << InfoOf(dtype).name << " " << NameOf(isa) << " rows " << count;
          }
        }
      }
    }
  }
}

// Products on tile registers, emulated: rows [begin, begin + count) of `total_rows`.
std::vector<float> RunTiles(const TestWeight& w, TestRows& rows, int32_t begin, int32_t count,
                            int32_t total_rows) {
  const auto in = static_cast<int32_t>(w.in);
  Guarded<float> y(static_cast<size_t>(total_rows * w.out));
  Guarded<std::byte> scratch(static_cast<size_t>(cpu::TileScratchBytes(in)));
  cpu::LinearCall call = {};
  call.weight = w.packed.data();
  call.q = rows.q.data();
  call.x_scale = rows.scale.data();
  call.x_sum = rows.sum.data();
  call.y = y.data();
  call.y_stride = w.out;
  call.in = in;
  call.out = static_cast<int32_t>(w.out);
  call.row_begin = begin;
  call.row_end = begin + count;
  call.tile_bytes = static_cast<int64_t>(cpu::TileBytes(w.dtype, static_cast<uint64_t>(w.in)));
  call.scratch = scratch.data();
  // In two calls, as a launch may be shared; the second finds the rows as the first laid them out.
  const int32_t tiles =
      static_cast<int32_t>(w.packed.size()) / static_cast<int32_t>(call.tile_bytes);
  for (const auto& [first, end] : {std::pair{0, tiles / 2}, {tiles / 2, tiles}}) {
    call.tile_begin = first;
    call.tile_end = end;
    call.rows_kept = first > 0 ? 1 : 0;
    cpu::kEmulatedTileLinear.run[static_cast<int>(w.dtype)](call);
  }
  const std::vector<float> all = y.values();
  for (int64_t i = 0; i < total_rows * w.out; ++i) {
    const bool written = i / w.out >= begin && i / w.out < begin + count;
    EXPECT_EQ(!written, std::isnan(all[static_cast<size_t>(i)])) << i;
  }
  return {all.begin() + begin * w.out, all.begin() + (begin + count) * w.out};
}

TEST(LinearBits, TilesGiveThoseOfVectors) {
  constexpr int kMost = 128, kOut = 105;
  for (const DType dtype : kAllTypes) {
    if (!cpu::TakesTiles(dtype)) continue;
    for (const int64_t in : {32, 64, 96, 160, 256, 512, 2080, 2304}) {
      if (!Fits(dtype, in)) continue;
      Random random(8);
      std::vector<float> x = random.Floats(static_cast<size_t>(kMost * in));
      // Groups of zeros, and codes at both ends.
      std::fill(x.begin(), x.begin() + 32, 0.0f);
      std::fill(x.begin() + in, x.begin() + in + 32, -3.0f);
      Machine first(CpuIsa::kAuto, 1);
      const TestWeight w = MakeWeight(*first.backend, dtype, kOut, in, random);
      for (const CpuIsa isa : SupportedCpuIsas()) {
        Machine machine(isa, 1);
        TestRows rows(machine, x, kMost, static_cast<int32_t>(in));
        const std::vector<float> all = RunLinear(machine, w, rows, 0, kMost, kMost);
        for (int count = 1; count <= kMost; count += in >= 600 ? 44 : count < 20 ? 1 : 9) {
          const int begin = (kMost - count) / 2;
          const std::vector<float> tiles = RunTiles(w, rows, begin, count, kMost);
          ASSERT_EQ(0, std::memcmp(tiles.data(), all.data() + begin * kOut, tiles.size() * 4))
              << InfoOf(dtype).name << " " << NameOf(isa) << " in " << in << " rows " << count;
        }
      }
    }
  }
}

// What ops/linear.h promises of types with planes: the bits of the F32 weight that they mean.
TEST_P(LinearTest, PlanesGiveTheBitsOfTheirFloats) {
  Machine machine(GetParam(), 2);
  Random random(7);
  for (const DType dtype : kAllTypes) {
    if (!HasPlanes(dtype)) continue;
    constexpr int kOut = 150, kIn = 256, kRows = 5;
    const TestWeight w = MakeWeight(*machine.backend, dtype, kOut, kIn, random);
    TestWeight plain{DType::kF32, kOut, kIn, {}, w.values, {}};
    for (const double value : w.values) {
      const auto rounded = static_cast<float>(value);
      const auto* bytes = reinterpret_cast<const std::byte*>(&rounded);
      plain.canonical.insert(plain.canonical.end(), bytes, bytes + 4);
    }
    plain.packed.resize(machine.backend->LinearLayout(DType::kF32, kOut, kIn).value().bytes);
    machine.backend->PackLinear(DType::kF32, kOut, kIn, plain.canonical.data(),
                                plain.packed.data());
    TestRows rows(machine, random.Floats(kRows * kIn), kRows, kIn);
    EXPECT_TRUE(SameBits(RunLinear(machine, w, rows, 0, kRows, kRows),
                         RunLinear(machine, plain, rows, 0, kRows, kRows)))
        << InfoOf(dtype).name;
  }
}

TEST_P(LinearTest, EveryE4M3CodeIsDecoded) {
  Machine machine(GetParam(), 1);
  TestWeight w{DType::kF8Channel, 256, 1, {}, {}, {}};
  w.canonical.resize(256 + 256 * 4);
  const float one = 1;
  for (size_t i = 0; i < 256; ++i) {
    w.canonical[i] = static_cast<std::byte>(i);
    std::memcpy(&w.canonical[256 + i * 4], &one, 4);
  }
  w.packed.resize(machine.backend->LinearLayout(w.dtype, 256, 1).value().bytes);
  machine.backend->PackLinear(w.dtype, 256, 1, w.canonical.data(), w.packed.data());
  TestRows rows(machine, {1.0f}, 1, 1);
  const std::vector<float> y = RunLinear(machine, w, rows, 0, 1, 1);
  for (size_t i = 0; i < 256; ++i) {
    const float value = F8E4M3ToF32(static_cast<uint8_t>(i));
    EXPECT_TRUE(std::isnan(value) ? std::isnan(y[i]) : y[i] == value) << i << ": " << y[i];
  }
}

TEST_P(LinearTest, SeveralTasksWithBiasAddendResidualAndRowMap) {
  Machine machine(GetParam(), 2);
  Random random(4);
  constexpr int kIn = 64, kRows = 6, kOutA = 40, kOutB = 23, kStride = 70;
  const TestWeight a = MakeWeight(*machine.backend, DType::kQ4_1, kOutA, kIn, random);
  const TestWeight b = MakeWeight(*machine.backend, DType::kQ4_1, kOutB, kIn, random);
  TestRows rows(machine, random.Floats(kRows * kIn), kRows, kIn);
  const std::vector<float> plain_a = RunLinear(machine, a, rows, 0, kRows, kRows);
  const std::vector<float> plain_b = RunLinear(machine, b, rows, 2, 3, kRows);
  const std::vector<float> bias = random.Floats(kOutA), addend = random.Floats(kRows * 50);
  const std::vector<float> before = random.Floats(kRows * kStride);
  Guarded<float> y(kRows * kStride);
  std::copy(before.begin(), before.end(), y.data());
  const int32_t y_rows[kRows] = {5, 3, 1, 0, 2, 4};
  const LinearTask tasks[] = {{.weight = a.packed.data(),
                               .bias = bias.data(),
                               .addend = addend.data(),
                               .y = y.data(),
                               .y_stride = kStride,
                               .addend_stride = 50,
                               .out = kOutA,
                               .row_begin = 0,
                               .row_count = kRows},
                              {.weight = b.packed.data(),
                               .y = y.data() + kOutA,
                               .y_stride = kStride,
                               .out = kOutB,
                               .row_begin = 2,
                               .row_count = 3},
                              {.weight = b.packed.data(),
                               .y = y.data(),
                               .y_stride = kStride,
                               .out = kOutB,
                               .row_begin = 0,
                               .row_count = 0}};
  machine.Run<LinearOp>({.weight = DType::kQ4_1, .in = kIn, .out = kOutA},
                        {.x = rows.View(),
                         .in = kIn,
                         .tasks = tasks,
                         .epilogue = Epilogue::kResidual,
                         .y_rows = y_rows});
  std::vector<float> expected = before;
  for (int r = 0; r < kRows; ++r) {
    for (int o = 0; o < kOutA; ++o) {
      float acc = plain_a[static_cast<size_t>(r * kOutA + o)];
      acc += bias[static_cast<size_t>(o)];
      acc += addend[static_cast<size_t>(r * 50 + o)];
      expected[static_cast<size_t>(y_rows[r] * kStride + o)] += acc;
    }
    for (int o = 0; o < kOutB && r >= 2 && r < 5; ++o) {
      expected[static_cast<size_t>(y_rows[r] * kStride + kOutA + o)] +=
          plain_b[static_cast<size_t>((r - 2) * kOutB + o)];
    }
  }
  EXPECT_TRUE(SameBits(y.values(), expected));
}

TEST(Layout, LosesNothingAndGrowsLittle) {
  const auto backend = MakeCpuBackend(CpuIsa::kAuto).value();
  Random random(5);
  for (const DType dtype : kAllTypes) {
    for (const auto& [out, in] : {std::pair{33, 96},
                                  {16, 64},
                                  {1, 32},
                                  {576, 576},
                                  {49, 32},
                                  {33, 384},
                                  {257, 128},
                                  {33, 768}}) {
      if (!Fits(dtype, in)) continue;
      const TestWeight w = MakeWeight(*backend, dtype, out, in, random);
      std::vector<std::byte> back(w.canonical.size());
      cpu::UnpackTile16(dtype, static_cast<uint64_t>(out), static_cast<uint64_t>(in),
                        w.packed.data(), back.data());
      EXPECT_EQ(back, w.canonical) << InfoOf(dtype).name << " " << out << "x" << in;
    }
    for (const auto& [out, in] : {std::pair{576, 1536}, {49152, 576}, {192, 576}}) {
      if (!Fits(dtype, in)) continue;
      const auto layout =
          backend->LinearLayout(dtype, static_cast<uint64_t>(out), static_cast<uint64_t>(in));
      const uint64_t canonical =
          StorageBytes(dtype, static_cast<uint64_t>(out), static_cast<uint64_t>(in)).value();
      EXPECT_LE(static_cast<double>(layout.value().bytes), 1.01 * static_cast<double>(canonical));
    }
  }
}

TEST_P(LinearTest, EmbedReadsThePackedTable) {
  Machine machine(GetParam(), 2);
  Random random(6);
  for (const DType dtype : kAllTypes) {
    for (const int width : {32, 96, 128, 512}) {
      if (!Fits(dtype, width)) continue;
      const TestWeight w = MakeWeight(*machine.backend, dtype, 37, width, random);
      const TokenId tokens[] = {36, 0, 17, 17, 5};
      const int32_t rows[] = {4, 3, 2, 1, 0};
      Guarded<float> y(static_cast<size_t>(5 * width));
      const EmbedTask tasks[] = {{w.packed.data(), 0, 2}, {w.packed.data(), 2, 3}};
      machine.Run<EmbedOp>({.table = dtype, .width = width}, {.tasks = tasks,
                                                              .tokens = tokens,
                                                              .rows = rows,
                                                              .y = y.data(),
                                                              .width = width,
                                                              .vocab = 37,
                                                              .scale = 1.5f});
      for (int i = 0; i < 5 * width; ++i) {
        const double value =
            w.values[static_cast<size_t>(static_cast<int>(tokens[i / width]) * width + i % width)] *
            1.5;
        ExpectClose(y[static_cast<size_t>(i)], value, std::abs(value) + 0.2, {2e-7, 0},
                    InfoOf(dtype).name);
      }
    }
  }
}

// Positions: rows are added to what is there, from an offset on.
TEST_P(LinearTest, EmbedAddsRowsOfATable) {
  Machine machine(GetParam(), 2);
  Random random(7);
  constexpr int kWidth = 64, kRows = 5;
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kQ8_0}) {
    const TestWeight w = MakeWeight(*machine.backend, dtype, 37, kWidth, random);
    const TokenId positions[kRows] = {0, 34, 17, 1, 5};
    const std::vector<float> before = random.Floats(kRows * kWidth);
    Guarded<float> y(before.size());
    std::copy(before.begin(), before.end(), y.data());
    const EmbedTask task = {w.packed.data(), 0, kRows};
    machine.Run<EmbedOp>({.table = dtype, .width = kWidth, .mode = EmbedMode::kAdd},
                         {.tasks = {&task, 1},
                          .tokens = positions,
                          .y = y.data(),
                          .width = kWidth,
                          .vocab = 37,
                          .mode = EmbedMode::kAdd,
                          .offset = 2});
    for (size_t i = 0; i < before.size(); ++i) {
      const size_t row = positions[i / kWidth] + 2;
      const double want = before[i] + w.values[row * kWidth + i % kWidth];
      ExpectClose(y[i], want, std::abs(before[i]) + std::abs(want) + 0.2, {3e-7, 0},
                  InfoOf(dtype).name);
    }
  }
}

}  // namespace
}  // namespace tessera::kernels
