// Append, attention and page statistics over pages full of poison.
#include <algorithm>

#include "kernels/cpu/registry.h"
#include "tests/kernels/emulated_tiles.h"
#include "tests/kernels/kernel_test_support.h"

namespace tessera::kernels {
namespace {

constexpr int64_t kUnit = static_cast<int64_t>(kPageUnitBytes);

float Rounded(DType dtype, float v) {
  if (dtype == DType::kF16) return F16ToF32(F32ToF16(v));
  if (dtype == DType::kBF16) return BF16ToF32(F32ToBF16(v));
  return v;
}

// How attention is computed: as an instruction set has it, or over pages of bf16 by emulated tiles,
// of which those of the processor are the first where there are enough items.
struct Arithmetic {
  CpuIsa isa;
  bool emulated = false;
  [[nodiscard]] std::string name() const { return emulated ? "tiles" : NameOf(isa); }
};

std::vector<Arithmetic> Arithmetics() {
  std::vector<Arithmetic> all;
  for (const CpuIsa isa : SupportedCpuIsas()) all.push_back({isa});
  all.push_back({CpuIsa::kAvx2, true});
  return all;
}

struct AttentionMachine : Machine {
  AttentionMachine(const Arithmetic& how, int threads)
      : Machine(how.isa, threads), emulated(how.emulated) {}

  void Attend(const AttentionOp::Desc& desc, const AttentionOp::Params& params) {
    if (!emulated) return Run<AttentionOp>(desc, params);
    cpu::AttentionKernels kernels = cpu::kAvx2Attention;
    kernels.attend[static_cast<int>(DType::kBF16)] = cpu::EmulatedTileAttend;
    kernels.items[static_cast<int>(DType::kBF16)] = cpu::kTileItems;
    cpu::RunAttention(context, params, kernels);
  }

  const bool emulated;
};

// One sequence whose keys and values were written through rope_append; every byte that no token
// owns is 0xff, which reads as not-a-number in each type.
class Cache {
 public:
  Cache(AttentionMachine& machine, KvFormat kv, int tokens, uint32_t seed)
      : kv_(kv), tokens_(tokens), pages_((tokens + 63) / 64) {
    const int64_t page = static_cast<int64_t>(kv.page_bytes());
    arena_.assign(static_cast<size_t>((pages_ + 2) * page), 0xff);
    // Pages in falling order, so that order in memory is not order in the sequence.
    for (int i = 0; i < pages_; ++i) {
      table_.push_back(PageId(static_cast<uint32_t>((pages_ - i) * page / kUnit)));
    }
    Random random(seed);
    const int64_t width = int64_t{kv.kv_heads} * kv.head_dim;
    k_ = random.Floats(static_cast<size_t>(tokens * width));
    v_ = random.Floats(static_cast<size_t>(tokens * width));
    std::vector<float> q(static_cast<size_t>(tokens * width), 1.0f);
    std::vector<PageId> page_of;
    std::vector<uint8_t> slot;
    for (int t = 0; t < tokens; ++t) {
      page_of.push_back(table_[static_cast<size_t>(t / 64)]);
      slot.push_back(static_cast<uint8_t>(t % 64));
    }
    machine.Run<RopeAppendOp>({.kv = kv, .q_heads = kv.kv_heads, .rotary_dim = 0},
                              {.kv = kv,
                               .rows = tokens,
                               .q_heads = static_cast<int32_t>(kv.kv_heads),
                               .q = q.data(),
                               .k = k_.data(),
                               .v = v_.data(),
                               .q_stride = int64_t{kv.kv_heads} * kv.head_dim,
                               .kv_stride = int64_t{kv.kv_heads} * kv.head_dim,
                               .cosine = q.data(),
                               .sine = q.data(),
                               .arena = arena(),
                               .page = page_of.data(),
                               .slot = slot.data()});
    for (float& f : k_) f = Rounded(kv.dtype, f);
    for (float& f : v_) f = Rounded(kv.dtype, f);
  }

  std::byte* arena() { return reinterpret_cast<std::byte*>(arena_.data()); }
  [[nodiscard]] const std::vector<PageId>& table() const { return table_; }
  [[nodiscard]] const float* key(int t, int64_t head) const { return &k_[Index(t, head)]; }
  [[nodiscard]] const float* value(int t, int64_t head) const { return &v_[Index(t, head)]; }
  [[nodiscard]] int tokens() const { return tokens_; }
  // Pages of bf16 have an arithmetic of their own.
  [[nodiscard]] bool bf16() const { return kv_.dtype == DType::kBF16; }
  // Overwrites a token's value, in each head, with bits of its type.
  void Poison(int t, uint16_t bits) {
    std::byte* values = PageAddress(arena(), table_[static_cast<size_t>(t / 64)]) + kv_.v_offset();
    for (uint32_t h = 0; h < kv_.kv_heads; ++h) {
      for (uint32_t d = 0; d < kv_.head_dim; ++d) {
        std::memcpy(
            values + (size_t{h * 64 + static_cast<uint32_t>(t) % 64} * kv_.head_dim + d) * 2, &bits,
            2);
      }
    }
  }

 private:
  [[nodiscard]] size_t Index(int t, int64_t head) const {
    return static_cast<size_t>((int64_t{t} * kv_.kv_heads + head) * kv_.head_dim);
  }
  KvFormat kv_;
  int tokens_;
  int pages_;
  std::vector<uint8_t> arena_;
  std::vector<PageId> table_;
  std::vector<float> k_, v_;
};

// What a block asks for besides the scores themselves.
struct Rules {
  int window = 0;
  float softcap = 0;
  std::vector<float> sinks;  // of each query head; empty: none
};

std::vector<float> Attend(AttentionMachine& machine, const KvFormat& kv, int q_heads, Cache& cache,
                          const std::vector<float>& q, std::span<const AttentionRow> plan,
                          uint32_t table = 0, const Rules& rules = {}) {
  Guarded<float> out(q.size());
  // Queries are columns of a buffer that has others.
  constexpr size_t kOthers = 24;
  const size_t width = static_cast<size_t>(q_heads) * kv.head_dim;
  std::vector<float> columns(q.size() / width * (width + kOthers), NAN);
  for (size_t i = 0; i < q.size(); ++i) columns[i / width * (width + kOthers) + i % width] = q[i];
  // Rows of two members, whose sinks lie apart.
  const std::vector<float> copy = rules.sinks;
  const int rows = static_cast<int>(q.size()) / (q_heads * static_cast<int>(kv.head_dim));
  const AttentionSinks sinks[] = {{rules.sinks.data(), 0, rows / 2},
                                  {copy.data(), rows / 2, rows - rows / 2}};
  machine.Attend({.kv = kv,
                  .q_heads = q_heads,
                  .window = rules.window,
                  .softcap = rules.softcap > 0,
                  .sinks = !rules.sinks.empty()},
                 {.kv = kv,
                  .q_heads = q_heads,
                  .scale = 1 / std::sqrt(static_cast<float>(kv.head_dim)),
                  .softcap = rules.softcap,
                  .window = rules.window,
                  .sinks = std::span(sinks, rules.sinks.empty() ? 0 : 2),
                  .q = columns.data(),
                  .q_stride = static_cast<int64_t>(width + kOthers),
                  .out = out.data(),
                  .arena = cache.arena(),
                  .plan = {.rows = plan},
                  .table = table});
  return out.values();
}

// Attention of one query head over the tokens that `reads` admits.
template <typename Reads>
void ExpectAttention(const Cache& cache, const KvFormat& kv, int q_heads, const float* q,
                     const float* out, int head, int position, Reads reads,
                     const Rules& rules = {}) {
  const int64_t kv_head = head / (q_heads / static_cast<int>(kv.kv_heads));
  const int64_t dim = kv.head_dim;
  std::vector<double> score;
  std::vector<int> token;
  double most = -1e300;
  for (int t = 0; t <= position; ++t) {
    if (!reads(t) || (rules.window > 0 && t <= position - rules.window)) continue;
    double s = 0;
    for (int64_t d = 0; d < dim; ++d) {
      const float x = cache.bf16() ? Rounded(DType::kBF16, q[d]) : q[d];
      s += double{x} * cache.key(t, kv_head)[d];
    }
    token.push_back(t);
    score.push_back(s / std::sqrt(static_cast<double>(dim)));
    if (rules.softcap > 0) score.back() = rules.softcap * std::tanh(score.back() / rules.softcap);
    most = std::max(most, score.back());
  }
  double total = 0;
  if (!rules.sinks.empty()) {
    const double sink = rules.sinks[static_cast<size_t>(head)];
    most = std::max(most, sink);
    total = std::exp(sink - most);
  }
  for (double& s : score) total += s = std::exp(s - most);
  for (int64_t d = 0; d < dim; ++d) {
    double sum = 0;
    double scale = 0;
    for (size_t i = 0; i < token.size(); ++i) {
      const double term = score[i] / total * cache.value(token[i], kv_head)[d];
      sum += term;
      scale += std::abs(term);
    }
    ExpectClose(out[d], sum, scale, cache.bf16() ? kBf16AttentionTolerance : kAttentionTolerance,
                "position " + std::to_string(position) + " head " + std::to_string(head));
  }
}

struct Shape {
  DType dtype;
  uint32_t kv_heads;
  int group;
  uint32_t head_dim;
};
constexpr Shape kShapes[] = {
    {DType::kF32, 3, 3, 64},  {DType::kF16, 1, 4, 128},  {DType::kBF16, 2, 1, 96},
    {DType::kF16, 2, 2, 20},  {DType::kF32, 2, 2, 8},    {DType::kBF16, 1, 8, 80},
    {DType::kF32, 1, 13, 16}, {DType::kF16, 1, 5, 256},  {DType::kBF16, 1, 3, 33},
    {DType::kBF16, 3, 3, 64}, {DType::kBF16, 1, 12, 128}};

class AttentionTest : public ::testing::TestWithParam<Arithmetic> {};
INSTANTIATE_TEST_SUITE_P(Isa, AttentionTest, ::testing::ValuesIn(Arithmetics()),
                         [](const ::testing::TestParamInfo<Arithmetic>& info) {
                           return info.param.name();
                         });

TEST_P(AttentionTest, DenseMatchesFloat64AtEveryLength) {
  AttentionMachine machine(GetParam(), 2);
  for (const Shape& shape : kShapes) {
    const KvFormat kv = {shape.dtype, shape.kv_heads, shape.head_dim, false};
    const int q_heads = static_cast<int>(shape.kv_heads) * shape.group;
    for (const int tokens : {1, 15, 17, 64, 65, 130}) {
      Cache cache(machine, kv, tokens, 7);
      Random random(8);
      const int64_t width = int64_t{q_heads} * shape.head_dim;
      const int queries = std::min(tokens, 11);
      const std::vector<float> q = random.Floats(static_cast<size_t>(queries * width), 2.0f);
      const AttentionRow row = {
          .q_rows = queries, .position = tokens - queries, .page_table = cache.table().data()};
      const std::vector<float> out = Attend(machine, kv, q_heads, cache, q, {&row, 1});
      for (int i = 0; i < queries; ++i) {
        for (int h = 0; h < q_heads; ++h) {
          const int64_t at = i * width + h * int64_t{shape.head_dim};
          ExpectAttention(cache, kv, q_heads, &q[static_cast<size_t>(at)],
                          &out[static_cast<size_t>(at)], h, row.position + i,
                          [](int) { return true; });
        }
      }
      if (HasFailure()) return;
    }
  }
}

// Windows, soft caps and sinks, at lengths and windows around page and vector edges. Pages before
// the window have no address.
TEST_P(AttentionTest, WindowsCapsAndSinksMatchFloat64) {
  AttentionMachine machine(GetParam(), 2);
  Random random(30);
  for (const Shape& shape : kShapes) {
    const KvFormat kv = {shape.dtype, shape.kv_heads, shape.head_dim, false};
    const int q_heads = static_cast<int>(shape.kv_heads) * shape.group;
    const int64_t width = int64_t{q_heads} * shape.head_dim;
    for (const auto& [tokens, window] : {std::pair{1, 1},
                                         {17, 1},
                                         {65, 16},
                                         {70, 63},
                                         {130, 64},
                                         {200, 65},
                                         {200, 3},
                                         {90, 500}}) {
      Rules rules{.window = window, .softcap = random.Int(0, 2) == 0 ? 0.0f : 1.5f, .sinks = {}};
      if (random.Int(0, 2) > 0) rules.sinks = random.Floats(static_cast<size_t>(q_heads), 3.0f);
      Cache cache(machine, kv, tokens, 31);
      const int queries = std::min(tokens, 23);
      const std::vector<float> q = random.Floats(static_cast<size_t>(queries * width), 2.0f);
      std::vector<PageId> table = cache.table();
      const int first_seen = std::max(0, tokens - queries + 1 - window);
      for (int page = 0; page < first_seen / 64; ++page)
        table[static_cast<size_t>(page)] = PageId();
      const AttentionRow row = {
          .q_rows = queries, .position = tokens - queries, .page_table = table.data()};
      const std::vector<float> out = Attend(machine, kv, q_heads, cache, q, {&row, 1}, 0, rules);
      for (int i = 0; i < queries; ++i) {
        for (int h = 0; h < q_heads; ++h) {
          const int64_t at = i * width + h * int64_t{shape.head_dim};
          ExpectAttention(
              cache, kv, q_heads, &q[static_cast<size_t>(at)], &out[static_cast<size_t>(at)], h,
              row.position + i, [](int) { return true; }, rules);
        }
      }
      if (HasFailure()) return;
    }
  }
}

// A sink that outweighs every score by far leaves nothing; one of minus infinity is none.
TEST_P(AttentionTest, ExtremeSinks) {
  AttentionMachine machine(GetParam(), 1);
  const KvFormat kv = {DType::kF32, 1, 16, false};
  Cache cache(machine, kv, 70, 32);
  const std::vector<float> q = Random(33).Floats(2 * 16);
  const AttentionRow row = {.q_rows = 1, .position = 69, .page_table = cache.table().data()};
  const std::vector<float> plain = Attend(machine, kv, 2, cache, q, {&row, 1});
  Rules rules{.window = 0, .softcap = 0, .sinks = {-INFINITY, 1e4f}};
  const std::vector<float> out = Attend(machine, kv, 2, cache, q, {&row, 1}, 0, rules);
  for (size_t i = 0; i < 16; ++i) {
    EXPECT_EQ(out[i], plain[i]);
    EXPECT_EQ(out[16 + i], 0.0f);
  }
}

TEST(AttentionBits, OfWindowsCapsAndSinksDoNotDependOnChunkPlanOrMachine) {
  for (const Shape& shape : kShapes) {
    const KvFormat kv = {shape.dtype, shape.kv_heads, shape.head_dim, false};
    const int q_heads = static_cast<int>(shape.kv_heads) * shape.group;
    constexpr int kTokens = 150;
    Random random(34);
    const std::vector<float> q =
        random.Floats(static_cast<size_t>(kTokens * q_heads) * shape.head_dim, 2.0f);
    const Rules rules{
        .window = 37, .softcap = 2.0f, .sinks = random.Floats(static_cast<size_t>(q_heads))};
    std::vector<float> expected;
    for (const Arithmetic& how : Arithmetics()) {
      for (const int threads : {1, 2}) {
        AttentionMachine machine(how, threads);
        Cache cache(machine, kv, kTokens, 35);
        const PageId* table = cache.table().data();
        std::vector<PageEntry> entries;
        for (uint32_t i = 0; i < cache.table().size(); ++i) entries.push_back({table[i], i, 255});
        const AttentionRow whole = {.q_rows = kTokens, .page_table = table};
        const std::vector<float> chunk =
            Attend(machine, kv, q_heads, cache, q, {&whole, 1}, 0, rules);
        if (expected.empty()) expected = chunk;
        ASSERT_TRUE(SameBits(expected, chunk)) << how.name() << " head_dim " << shape.head_dim;
        std::vector<AttentionRow> rows;
        for (int i = 0; i < kTokens; ++i) {
          rows.push_back({.q_begin = i, .q_rows = 1, .position = i, .page_table = table});
        }
        ASSERT_TRUE(SameBits(expected, Attend(machine, kv, q_heads, cache, q, rows, 0, rules)));
        if (shape.group > 8) continue;
        const AttentionRow listed = {.q_rows = kTokens, .entries = entries};
        ASSERT_TRUE(
            SameBits(expected, Attend(machine, kv, q_heads, cache, q, {&listed, 1}, 0, rules)));
      }
    }
  }
}

// A chunk, its queries one by one, a list of all pages, other threads and instruction sets: one
// result.
TEST(AttentionBits, DoNotDependOnChunkPlanOrMachine) {
  for (const Shape& shape : kShapes) {
    const KvFormat kv = {shape.dtype, shape.kv_heads, shape.head_dim, false};
    const int q_heads = static_cast<int>(shape.kv_heads) * shape.group;
    constexpr int kTokens = 150;
    const int64_t width = int64_t{q_heads} * shape.head_dim;
    Random random(9);
    const std::vector<float> q = random.Floats(static_cast<size_t>(kTokens * width), 2.0f);
    std::vector<float> expected;
    for (const Arithmetic& how : Arithmetics()) {
      for (const int threads : {1, 2}) {
        AttentionMachine machine(how, threads);
        Cache cache(machine, kv, kTokens, 10);
        const PageId* table = cache.table().data();
        std::vector<PageEntry> entries;
        for (uint32_t i = 0; i < cache.table().size(); ++i) entries.push_back({table[i], i, 255});
        const AttentionRow whole = {.q_rows = kTokens, .page_table = table};
        const std::vector<float> chunk = Attend(machine, kv, q_heads, cache, q, {&whole, 1});
        if (expected.empty()) expected = chunk;
        ASSERT_TRUE(SameBits(expected, chunk)) << how.name() << " head_dim " << shape.head_dim;
        std::vector<AttentionRow> rows;
        for (int i = 0; i < kTokens; ++i) {
          rows.push_back({.q_begin = i, .q_rows = 1, .position = i, .page_table = table});
        }
        ASSERT_TRUE(SameBits(expected, Attend(machine, kv, q_heads, cache, q, rows)));
        // One of several tables.
        std::vector<PageId> tables(5 * (cache.table().size() + 3));
        const auto stride = static_cast<uint32_t>(tables.size() / 5);
        std::copy(cache.table().begin(), cache.table().end(), tables.begin() + 3 * stride);
        const AttentionRow third = {
            .q_rows = kTokens, .table_stride = stride, .page_table = tables.data()};
        ASSERT_TRUE(SameBits(expected, Attend(machine, kv, q_heads, cache, q, {&third, 1}, 3)));
        if (shape.group > 8) continue;
        const AttentionRow listed = {.q_rows = kTokens, .entries = entries};
        ASSERT_TRUE(SameBits(expected, Attend(machine, kv, q_heads, cache, q, {&listed, 1})));
        rows.clear();
        for (int h = 0; h < static_cast<int>(shape.kv_heads); ++h) {
          rows.push_back({.q_rows = 70, .kv_head = h, .page_table = table});
          rows.push_back({.q_begin = 70,
                          .q_rows = kTokens - 70,
                          .position = 70,
                          .kv_head = h,
                          .entries = entries});
        }
        ASSERT_TRUE(SameBits(expected, Attend(machine, kv, q_heads, cache, q, rows)));
      }
    }
  }
}

// Contexts of many runs of pages: a chunk, whose threads take whole rows, and its last queries
// alone, whose runs are shared by threads, some of them in several waves.
TEST(AttentionBits, OfLongContextsDoNotDependOnWhoTakesTheirRuns) {
  constexpr int kTokens = 7000, kQueries = 9;
  for (const Shape& shape : {Shape{DType::kF16, 2, 3, 64}, Shape{DType::kBF16, 2, 3, 64},
                             Shape{DType::kBF16, 1, 9, 40}, Shape{DType::kF32, 1, 1, 24}}) {
    const KvFormat kv = {shape.dtype, shape.kv_heads, shape.head_dim, false};
    const int q_heads = static_cast<int>(shape.kv_heads) * shape.group;
    const int64_t width = int64_t{q_heads} * shape.head_dim;
    Random random(50);
    const std::vector<float> q = random.Floats(static_cast<size_t>(kQueries * width), 2.0f);
    for (const int window : {0, 1500}) {
      const Rules rules{.window = window,
                        .softcap = 0,
                        .sinks = random.Floats(static_cast<size_t>(q_heads), 3.0f)};
      std::vector<float> expected;
      for (const Arithmetic& how : Arithmetics()) {
        for (const int threads : {1, 2, 5}) {
          AttentionMachine machine(how, threads);
          Cache cache(machine, kv, kTokens, 51);
          const PageId* table = cache.table().data();
          const AttentionRow chunk = {
              .q_rows = kQueries, .position = kTokens - kQueries, .page_table = table};
          const std::vector<float> all =
              Attend(machine, kv, q_heads, cache, q, {&chunk, 1}, 0, rules);
          if (expected.empty()) {
            expected = all;
            for (int h = 0; h < q_heads; ++h) {
              ExpectAttention(
                  cache, kv, q_heads, &q[static_cast<size_t>(h * int64_t{shape.head_dim})],
                  &all[static_cast<size_t>(h * int64_t{shape.head_dim})], h, chunk.position,
                  [](int) { return true; }, rules);
            }
          }
          ASSERT_TRUE(SameBits(expected, all)) << how.name() << " threads " << threads;
          // One query a launch, then two sequences' queries in one.
          for (int i = 0; i + 1 < kQueries; ++i) {
            const int count = i % 2 + 1;
            const auto begin = static_cast<size_t>(i * width);
            const auto end = begin + static_cast<size_t>(count * width);
            std::vector<AttentionRow> rows;
            for (int j = 0; j < count; ++j) {
              rows.push_back({.q_begin = j,
                              .q_rows = 1,
                              .position = chunk.position + i + j,
                              .page_table = table});
            }
            const auto at = [&](const std::vector<float>& v) {
              return std::vector<float>(v.begin() + static_cast<ptrdiff_t>(begin),
                                        v.begin() + static_cast<ptrdiff_t>(end));
            };
            const std::vector<float> out =
                Attend(machine, kv, q_heads, cache, at(q), rows, 0, rules);
            ASSERT_TRUE(SameBits(at(expected), out))
                << how.name() << " threads " << threads << " query " << i;
          }
        }
      }
      if (::testing::Test::HasFailure()) return;
    }
  }
}

TEST_P(AttentionTest, ListedRowsReadWhatTheirMasksName) {
  AttentionMachine machine(GetParam(), 2);
  const KvFormat kv = {DType::kF16, 2, 48, false};
  constexpr int kQHeads = 8, kTokens = 300, kPosition = 290;
  Cache cache(machine, kv, kTokens, 11);
  Random random(12);
  const std::vector<float> q = random.Floats(3 * kQHeads * 48, 2.0f);
  const std::vector<PageEntry> entries = {{cache.table()[0], 0, 0b1111},
                                          {cache.table()[2], 2, 0b0101},
                                          {cache.table()[3], 3, 0b0010},
                                          {cache.table()[4], 4, 0b0011}};
  const AttentionRow row = {.q_rows = 3, .position = kPosition, .entries = entries};
  const std::vector<float> out = Attend(machine, kv, kQHeads, cache, q, {&row, 1});
  for (int i = 0; i < 3; ++i) {
    for (int h = 0; h < kQHeads; ++h) {
      const size_t at = static_cast<size_t>((i * kQHeads + h) * 48);
      ExpectAttention(cache, kv, kQHeads, &q[at], &out[at], h, kPosition + i, [&](int t) {
        return std::any_of(entries.begin(), entries.end(), [&](const PageEntry& e) {
          return static_cast<int>(e.logical_page) == t / 64 && (e.query_heads >> h % 4 & 1) != 0;
        });
      });
    }
  }
}

TEST_P(AttentionTest, ARowThatReadsNothingIsZero) {
  AttentionMachine machine(GetParam(), 1);
  const KvFormat kv = {DType::kF32, 1, 24, false};
  Cache cache(machine, kv, 3, 13);
  const std::vector<float> q(24, 1.0f);
  const AttentionRow row = {.q_rows = 1, .position = 2};
  for (const float v : Attend(machine, kv, 1, cache, q, {&row, 1})) EXPECT_EQ(v, 0.0f);
}

// A value that is no finite number reaches those who see it and nobody else, whoever shares their
// page: as later tokens of a chunk do, and earlier ones that a window has left behind.
TEST_P(AttentionTest, WhatIsNotFiniteReachesOnlyThoseWhoSeeIt) {
  AttentionMachine machine(GetParam(), 2);
  constexpr int kTokens = 100, kWindow = 20, kBad = 70, kDim = 40;
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    const KvFormat kv = {dtype, 2, kDim, false};
    Cache clean(machine, kv, kTokens, 40);
    Cache cache(machine, kv, kTokens, 40);
    const std::vector<float> q = Random(41).Floats(size_t{kTokens} * 6 * kDim, 2.0f);
    for (const uint16_t bits : {uint16_t{0x7fff}, uint16_t{0x7f80}, uint16_t{0xff80}}) {
      cache.Poison(kBad, dtype == DType::kF16 ? uint16_t{0xfc00} : bits);
      for (const int window : {0, kWindow}) {
        const Rules rules{.window = window, .softcap = 0, .sinks = {}};
        const AttentionRow row = {.q_rows = kTokens, .page_table = cache.table().data()};
        const std::vector<float> want = Attend(machine, kv, 6, clean, q, {&row, 1}, 0, rules);
        const std::vector<float> out = Attend(machine, kv, 6, cache, q, {&row, 1}, 0, rules);
        for (size_t i = 0; i < out.size(); ++i) {
          const int token = static_cast<int>(i) / (6 * kDim);
          const bool sees = token >= kBad && (window == 0 || token < kBad + window);
          ASSERT_TRUE(sees ? !std::isfinite(out[i]) : out[i] == want[i])
              << "token " << token << ": " << out[i] << ", clean " << want[i];
        }
      }
    }
  }
}

TEST_P(AttentionTest, PageStatsAreMinimaAndMaximaOfKeys) {
  AttentionMachine machine(GetParam(), 2);
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    const KvFormat kv = {dtype, 3, 20, true};
    Cache cache(machine, kv, 128, 15);
    machine.Run<PageStatsOp>({.kv = kv},
                             {.kv = kv, .arena = cache.arena(), .pages = cache.table()});
    for (int p = 0; p < 2; ++p) {
      const float* stats = reinterpret_cast<const float*>(
          PageAddress(cache.arena(), cache.table()[static_cast<size_t>(p)]) +
          kv.statistics_offset());
      for (int h = 0; h < 3; ++h) {
        for (int part = 0; part < 4; ++part) {
          for (int d = 0; d < 20; ++d) {
            float low = INFINITY;
            float high = -INFINITY;
            for (int t = p * 64 + part * 16; t < p * 64 + part * 16 + 16; ++t) {
              low = std::min(low, cache.key(t, h)[d]);
              high = std::max(high, cache.key(t, h)[d]);
            }
            EXPECT_EQ(stats[((h * 4 + part) * 2) * 20 + d], low);
            EXPECT_EQ(stats[((h * 4 + part) * 2 + 1) * 20 + d], high);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace tessera::kernels
