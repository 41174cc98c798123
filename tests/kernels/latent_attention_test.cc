// Latent append and attention over pages full of poison.
#include <algorithm>

#include "tests/kernels/kernel_test_support.h"

namespace tessera::kernels {
namespace {

class LatentAttentionTest : public IsaTest {};
TESSERA_EACH_ISA(LatentAttentionTest);

LatentShape ShapeOf(DType dtype, int heads, int nope, int rope, int rank) {
  return {.kv = {.dtype = dtype,
                 .kv_heads = 1,
                 .head_dim = static_cast<uint32_t>(rank + rope),
                 .latent = true},
          .q_heads = heads,
          .nope_dim = nope,
          .rope_dim = rope,
          .rank = rank};
}

// A sequence of random queries and latents, appended in one launch; bytes that no token owns are
// 0xff, which reads as not-a-number in each type.
struct Appended {
  Appended(Machine& machine, const LatentShape& shape_in, RopeStyle style_in, int tokens_in,
           uint32_t seed)
      : shape(shape_in), style(style_in), tokens(tokens_in) {
    Random random(seed);
    const auto rows = static_cast<size_t>(tokens);
    const auto heads = static_cast<size_t>(shape.q_heads);
    const auto nope = static_cast<size_t>(shape.nope_dim),
               rope = static_cast<size_t>(shape.rope_dim);
    const auto rank = static_cast<size_t>(shape.rank);
    q = random.Floats(rows * heads * (nope + rope));
    latent = random.Floats(rows * (rank + rope));
    norm = random.Floats(rank);
    for (size_t i = 0; i < rows * rope / 2; ++i) {
      const float angle = random.Normal(3.0f);
      cosine.push_back(std::cos(angle));
      sine.push_back(std::sin(angle));
    }
    const int pages = (tokens + 63) / 64;
    const auto page_bytes = static_cast<int64_t>(shape.kv.page_bytes());
    arena_bytes.assign(static_cast<size_t>((pages + 2) * page_bytes), 0xff);
    // Pages in falling order, so that order in memory is not order in the sequence.
    for (int i = 0; i < pages; ++i) {
      table.push_back(PageId(static_cast<uint32_t>((pages - i) * page_bytes / 512)));
    }
    std::vector<PageId> page_of;
    std::vector<uint8_t> slot;
    for (int t = 0; t < tokens; ++t) {
      page_of.push_back(table[static_cast<size_t>(t / 64)]);
      slot.push_back(static_cast<uint8_t>(t % 64));
    }
    q_nope.assign(heads * rows * nope, NAN);
    q_latent.assign(heads * rows * (rank + rope), NAN);
    row_of.assign(heads * rows, -1);
    const LatentNorm norms[] = {{norm.data(), 0, tokens / 2},
                                {norm.data(), tokens / 2, tokens - tokens / 2}};
    machine.Run<LatentAppendOp>({.shape = shape, .style = style}, {.shape = shape,
                                                                   .style = style,
                                                                   .rows = tokens,
                                                                   .norms = norms,
                                                                   .epsilon = 1e-6f,
                                                                   .q = q.data(),
                                                                   .latent = latent.data(),
                                                                   .q_nope = q_nope.data(),
                                                                   .q_latent = q_latent.data(),
                                                                   .row_of = row_of.data(),
                                                                   .cosine = cosine.data(),
                                                                   .sine = sine.data(),
                                                                   .arena = arena(),
                                                                   .page = page_of.data(),
                                                                   .slot = slot.data()});
  }

  std::byte* arena() { return reinterpret_cast<std::byte*>(arena_bytes.data()); }

  // [rope] rotated as row `row`.
  [[nodiscard]] std::vector<double> Rotated(const float* from, int row) const {
    const int half = shape.rope_dim / 2;
    std::vector<double> to(static_cast<size_t>(shape.rope_dim));
    for (int i = 0; i < half; ++i) {
      const int a = style == RopeStyle::kHalf ? i : 2 * i;
      const int b = style == RopeStyle::kHalf ? i + half : 2 * i + 1;
      const double c = cosine[static_cast<size_t>(row * half + i)];
      const double s = sine[static_cast<size_t>(row * half + i)];
      to[static_cast<size_t>(a)] = from[a] * c - from[b] * s;
      to[static_cast<size_t>(b)] = from[a] * s + from[b] * c;
    }
    return to;
  }

  // What the slot of `row` should hold.
  [[nodiscard]] std::vector<double> Latent(int row) const {
    const float* from = &latent[static_cast<size_t>(row * (shape.rank + shape.rope_dim))];
    double squares = 0;
    for (int d = 0; d < shape.rank; ++d) squares += double{from[d]} * from[d];
    const double scale = 1 / std::sqrt(squares / shape.rank + 1e-6);
    std::vector<double> x;
    for (int d = 0; d < shape.rank; ++d)
      x.push_back(from[d] * scale * norm[static_cast<size_t>(d)]);
    for (double r : Rotated(from + shape.rank, row)) x.push_back(r);
    return x;
  }

  // What it holds.
  [[nodiscard]] std::vector<float> Stored(int row) {
    const auto width = static_cast<size_t>(shape.rank + shape.rope_dim);
    const size_t element = shape.kv.dtype == DType::kF32 ? 4 : 2;
    const std::byte* at = PageAddress(arena(), table[static_cast<size_t>(row / 64)]) +
                          static_cast<size_t>(row % 64) * width * element;
    std::vector<float> x(width);
    for (size_t d = 0; d < width; ++d) {
      uint16_t bits;
      if (element == 4) {
        std::memcpy(&x[d], at + d * 4, 4);
      } else {
        std::memcpy(&bits, at + d * 2, 2);
        x[d] = shape.kv.dtype == DType::kF16 ? F16ToF32(bits) : BF16ToF32(bits);
      }
    }
    return x;
  }

  LatentShape shape;
  RopeStyle style;
  int tokens;
  std::vector<float> q, latent, norm, cosine, sine, q_nope, q_latent;
  std::vector<int32_t> row_of;
  std::vector<PageId> table;
  std::vector<uint8_t> arena_bytes;
};

constexpr DType kTypes[] = {DType::kF32, DType::kF16, DType::kBF16};

TEST_P(LatentAttentionTest, AppendNormalisesRotatesAndSortsByHead) {
  Machine machine(GetParam(), 2);
  for (const DType dtype : kTypes) {
    for (const RopeStyle style : {RopeStyle::kHalf, RopeStyle::kInterleaved}) {
      const LatentShape shape = ShapeOf(dtype, 3, 20, 8, 40);
      Appended a(machine, shape, style, 70, 1);
      for (int row = 0; row < a.tokens; ++row) {
        const std::vector<double> want = a.Latent(row);
        const std::vector<float> got = a.Stored(row);
        const double unit = dtype == DType::kF32 ? 2e-6 : dtype == DType::kF16 ? 6e-4 : 5e-3;
        for (size_t d = 0; d < want.size(); ++d) {
          ExpectClose(got[d], want[d], std::abs(want[d]) + 1, {unit, 0}, "latent");
        }
        for (int h = 0; h < 3; ++h) {
          const auto to = static_cast<size_t>(h * a.tokens + row);
          EXPECT_EQ(a.row_of[to], row);
          const float* from = &a.q[static_cast<size_t>((row * 3 + h) * 28)];
          for (size_t d = 0; d < 20; ++d) EXPECT_EQ(a.q_nope[to * 20 + d], from[d]);
          const std::vector<double> rotated = a.Rotated(from + 20, row);
          for (size_t d = 0; d < 8; ++d) {
            ExpectClose(a.q_latent[to * 48 + 40 + d], rotated[d], 4, kRopeTolerance, "query");
          }
          EXPECT_TRUE(std::isnan(a.q_latent[to * 48]));
        }
      }
      // The slot after the last token was not written.
      EXPECT_TRUE(std::isnan(a.Stored(70)[0]));
    }
  }
}

std::vector<float> Attend(Machine& machine, Appended& a, const std::vector<float>& q, int rows,
                          std::span<const AttentionRow> plan) {
  Guarded<float> out(static_cast<size_t>(a.shape.q_heads * rows * a.shape.rank));
  machine.Run<LatentAttentionOp>({.shape = a.shape}, {.shape = a.shape,
                                                      .scale = 0.11f,
                                                      .rows = rows,
                                                      .q = q.data(),
                                                      .out = out.data(),
                                                      .arena = a.arena(),
                                                      .plan = {.rows = plan}});
  return out.values();
}

TEST_P(LatentAttentionTest, MatchesFloat64) {
  Machine machine(GetParam(), 2);
  for (const DType dtype : kTypes) {
    for (const auto& [heads, rope, rank] : {std::tuple(1, 4, 12), std::tuple(5, 8, 40),
                                            std::tuple(16, 64, 448), std::tuple(20, 0, 33)}) {
      const LatentShape shape = ShapeOf(dtype, heads, 16, rope, rank);
      constexpr int kTokens = 150, kFirst = 119;
      Appended a(machine, shape, RopeStyle::kInterleaved, kTokens, 2);
      Random random(3);
      const int rows = kTokens - kFirst, width = rank + rope;
      const std::vector<float> q = random.Floats(static_cast<size_t>(heads * rows * width));
      const AttentionRow plan[] = {
          {.q_rows = rows, .position = kFirst, .page_table = a.table.data()}};
      const std::vector<float> out = Attend(machine, a, q, rows, plan);
      for (int h = 0; h < heads; ++h) {
        for (int r : {0, 8, 9, rows - 1}) {
          const float* query = &q[static_cast<size_t>((h * rows + r) * width)];
          std::vector<double> p, sum(static_cast<size_t>(rank)), size(static_cast<size_t>(rank));
          double total = 0;
          for (int t = 0; t <= kFirst + r; ++t) {
            const std::vector<float> x = a.Stored(t);
            double s = 0;
            for (int d = 0; d < width; ++d) s += double{query[d]} * x[static_cast<size_t>(d)];
            p.push_back(s * double{0.11f});
          }
          const double most = *std::max_element(p.begin(), p.end());
          for (double& s : p) total += s = std::exp(s - most);
          for (size_t t = 0; t < p.size(); ++t) {
            const std::vector<float> x = a.Stored(static_cast<int>(t));
            for (size_t d = 0; d < sum.size(); ++d) {
              sum[d] += p[t] / total * x[d];
              size[d] += std::abs(p[t] / total * x[d]);
            }
          }
          for (size_t d = 0; d < sum.size(); ++d) {
            const auto at = static_cast<size_t>((h * rows + r) * rank) + d;
            ExpectClose(out[at], sum[d], size[d], {2e-5, 1e-30},
                        "head " + std::to_string(h) + " row " + std::to_string(r));
          }
        }
      }
    }
  }
}

// Chunks, threads and neighbours change no bit.
TEST_P(LatentAttentionTest, ARowsBitsDoNotDependOnTheBatch) {
  Machine one(GetParam(), 1), three(GetParam(), 3);
  const LatentShape shape = ShapeOf(DType::kF16, 7, 16, 8, 48);
  constexpr int kTokens = 200;
  Appended a(one, shape, RopeStyle::kHalf, kTokens, 4);
  Random random(5);
  const auto width = static_cast<size_t>(shape.rank + shape.rope_dim);
  const std::vector<float> q = random.Floats(7 * kTokens * width);
  const AttentionRow whole[] = {{.q_rows = kTokens, .page_table = a.table.data()}};
  const std::vector<float> want = Attend(one, a, q, kTokens, whole);
  EXPECT_TRUE(SameBits(want, Attend(three, a, q, kTokens, whole)));
  const AttentionRow chunks[] = {
      {.q_rows = 1, .page_table = a.table.data()},
      {.q_begin = 1, .q_rows = 130, .position = 1, .page_table = a.table.data()},
      {.q_begin = 131, .q_rows = 69, .position = 131, .page_table = a.table.data()}};
  EXPECT_TRUE(SameBits(want, Attend(three, a, q, kTokens, chunks)));
}

TEST_P(LatentAttentionTest, OtherFormatsAreRefusedByName) {
  const auto backend = MakeCpuBackend(GetParam()).value();
  const Catalog& catalog = backend->catalog();
  LatentShape shape = ShapeOf(DType::kF32, 2, 16, 8, 40);
  ASSERT_TRUE(catalog.Find<LatentAttentionOp>({.shape = shape}).ok());
  const auto lacks = [&](const char* what) {
    const Status status = catalog.Find<LatentAttentionOp>({.shape = shape}).status();
    EXPECT_NE(status.message().find(what), absl::string_view::npos) << status;
    EXPECT_FALSE(catalog.Find<LatentAppendOp>({.shape = shape}).ok());
  };
  shape.kv.dtype = DType::kF8E4M3;
  lacks("kv dtype F8_E4M3");
  shape = ShapeOf(DType::kF32, 2, 16, 8, 40);
  shape.kv.key_statistics = true;
  lacks("key statistics");
  shape = ShapeOf(DType::kF32, 2, 16, 8, 40);
  shape.kv.latent = false;
  lacks("keys and values apart");
  shape = ShapeOf(DType::kF32, 2, 16, 8, 40);
  EXPECT_NE(catalog.Find<AttentionOp>({.kv = shape.kv, .q_heads = 2})
                .status()
                .message()
                .find("a latent plane"),
            absl::string_view::npos);
}

}  // namespace
}  // namespace tessera::kernels
