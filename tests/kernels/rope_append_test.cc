// Rotation and what it appends, over an arena full of poison.
#include <algorithm>

#include "tests/kernels/kernel_test_support.h"

namespace tessera::kernels {
namespace {

struct RopeCase {
  RopeStyle style;
  int dim;
  int rotary;
  std::vector<float> cosine, sine;
  static constexpr int kRows = 5, kQHeads = 4;
  static constexpr int32_t kRotaryRows[kRows] = {2, 0, 1, 1, 2};
  static constexpr uint8_t kSlots[kRows] = {0, 63, 7, 8, 9};

  RopeCase(RopeStyle s, int d, int r) : style(s), dim(d), rotary(r) {
    for (int i = 0; i < 3 * rotary / 2; ++i) {
      cosine.push_back(std::cos(0.37f * static_cast<float>(i)));
      sine.push_back(std::sin(0.37f * static_cast<float>(i)));
    }
  }

  // Element d of the head `x` of `row` after rotation.
  [[nodiscard]] double Want(const float* x, int row, int d) const {
    if (d >= rotary) return x[d];
    const bool half = style == RopeStyle::kHalf;
    const int pair = half ? d % (rotary / 2) : d / 2;
    const bool second = half ? d >= rotary / 2 : d % 2 == 1;
    const double a = x[half ? pair : 2 * pair];
    const double b = x[half ? pair + rotary / 2 : 2 * pair + 1];
    const size_t at = static_cast<size_t>(kRotaryRows[row] * (rotary / 2) + pair);
    return second ? a * sine[at] + b * cosine[at] : a * cosine[at] - b * sine[at];
  }
};

void CheckRope(Machine& machine, const RopeCase& c) {
  Random random(14);
  const KvFormat kv = {DType::kF32, 2, static_cast<uint32_t>(c.dim), false};
  const std::vector<float> q = random.Floats(static_cast<size_t>(c.kRows * c.kQHeads * c.dim));
  const std::vector<float> k = random.Floats(static_cast<size_t>(c.kRows * 2 * c.dim));
  std::vector<float> rotated = q;
  std::vector<PageId> page(c.kRows, PageId(1));
  page[4] = PageId();  // the last row writes nothing
  std::vector<uint8_t> arena(kPageUnitBytes + kv.page_bytes(), 0xff);
  auto* base = reinterpret_cast<std::byte*>(arena.data());
  machine.Run<RopeAppendOp>(
      {.kv = kv, .style = c.style, .q_heads = c.kQHeads, .rotary_dim = c.rotary},
      {.kv = kv,
       .style = c.style,
       .rows = c.kRows,
       .q_heads = c.kQHeads,
       .rotary_dim = c.rotary,
       .q = rotated.data(),
       .k = k.data(),
       .v = k.data(),
       .q_stride = c.kQHeads * c.dim,
       .kv_stride = 2 * c.dim,
       .cosine = c.cosine.data(),
       .sine = c.sine.data(),
       .rotary_rows = c.kRotaryRows,
       .arena = base,
       .page = page.data(),
       .slot = c.kSlots});
  for (int i = 0; i < c.kRows * c.kQHeads * c.dim; ++i) {
    const float* head = &q[static_cast<size_t>(i / c.dim * c.dim)];
    ExpectClose(rotated[static_cast<size_t>(i)], c.Want(head, i / (c.kQHeads * c.dim), i % c.dim),
                4.0, kRopeTolerance, "q");
  }
  const float* keys = reinterpret_cast<const float*>(base + kPageUnitBytes);
  const float* values = reinterpret_cast<const float*>(base + kPageUnitBytes + kv.v_offset());
  size_t written = 0;
  for (int row = 0; row < 4; ++row) {
    for (int h = 0; h < 2; ++h) {
      const float* from = &k[static_cast<size_t>((row * 2 + h) * c.dim)];
      for (int d = 0; d < c.dim; ++d, ++written) {
        ExpectClose(keys[(h * c.dim + d) * 64 + c.kSlots[row]], c.Want(from, row, d), 4.0,
                    kRopeTolerance, "k");
        EXPECT_EQ(values[(h * 64 + c.kSlots[row]) * c.dim + d], from[d]);
      }
    }
  }
  // Nothing else of the arena changed.
  const auto untouched = static_cast<size_t>(std::count(arena.begin(), arena.end(), 0xff));
  EXPECT_GE(untouched + 2 * 4 * written, arena.size());
}

class RopeTest : public ::testing::TestWithParam<CpuIsa> {};
INSTANTIATE_TEST_SUITE_P(Isa, RopeTest, ::testing::ValuesIn(SupportedCpuIsas()),
                         [](const ::testing::TestParamInfo<CpuIsa>& info) {
                           return std::string(NameOf(info.param));
                         });

TEST_P(RopeTest, RotatesBothStyles) {
  Machine machine(GetParam(), 2);
  for (const RopeStyle style : {RopeStyle::kHalf, RopeStyle::kInterleaved}) {
    for (const auto& [dim, rotary] : {std::pair{64, 64}, {64, 32}, {20, 12}, {80, 80}}) {
      CheckRope(machine, RopeCase(style, dim, rotary));
    }
  }
}

}  // namespace
}  // namespace tessera::kernels
