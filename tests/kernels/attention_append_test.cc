// Attention that appends what its launch brings, beside the two ops one after the other: the same
// bits in pages and results, whichever of its units append for themselves.
#include <algorithm>
#include <string>

#include "tests/kernels/kernel_test_support.h"

namespace tessera::kernels {
namespace {

struct Sequence {
  int before;  // tokens that are in its pages
  int rows;    // that the launch brings
};

// Some sequences in an arena where every byte that no token owns is 0xff, which reads as
// not-a-number in each type.
class Step {
 public:
  Step(Machine& machine, KvFormat kv, RopeStyle style, int group, std::vector<Sequence> sequences)
      : kv_(kv), style_(style), q_heads_(static_cast<int>(kv.kv_heads) * group) {
    const auto page = static_cast<uint32_t>(kv.page_bytes() / kPageUnitBytes);
    uint32_t pages = 1;
    for (const Sequence& s : sequences) {
      std::vector<PageId>& table = tables_.emplace_back();
      for (int t = 0; t < s.before + s.rows; t += 64) table.push_back(PageId(page * pages++));
    }
    arena_.assign(static_cast<size_t>(pages) * kv.page_bytes(), 0xff);
    for (size_t i = 0; i < sequences.size(); ++i) {
      const Rows earlier(*this, {{i, 0, sequences[i].before}});
      if (sequences[i].before > 0) machine.Run<RopeAppendOp>(Append(), earlier.Params(*this));
    }
    std::vector<Rows::Run> runs;
    int row = 0;
    for (size_t i = 0; i < sequences.size(); row += sequences[i++].rows) {
      runs.push_back({i, sequences[i].before, sequences[i].rows});
      plan_.push_back({.q_begin = row,
                       .q_rows = sequences[i].rows,
                       .position = sequences[i].before,
                       .page_table = tables_[i].data()});
    }
    brought_ = Rows(*this, runs);
  }

  // Both ops, or the one that does both; what is left in the arena, then the results.
  template <typename Attend>
  std::vector<uint8_t> Run(Machine& machine, bool fused, Attend attend) const {
    Step copy = *this;
    const RopeAppendOp::Params append = copy.brought_.Params(copy);
    if (!fused) machine.Run<RopeAppendOp>(Append(), append);
    Guarded<float> out(copy.brought_.q.size());
    AttentionOp::Desc desc = {.kv = kv_, .q_heads = q_heads_};
    if (fused) desc.append = Append();
    attend(desc, {.kv = kv_,
                  .q_heads = q_heads_,
                  .scale = 0.2f,
                  .append = fused ? &append : nullptr,
                  .q = append.q,
                  .q_stride = append.q_stride,
                  .out = out.data(),
                  .arena = append.arena,
                  .plan = {.rows = plan_}});
    const std::vector<float> values = out.values();
    EXPECT_TRUE(std::none_of(values.begin(), values.end(), [](float x) { return std::isnan(x); }));
    std::vector<uint8_t> all = std::move(copy.arena_);
    const auto* bytes = reinterpret_cast<const uint8_t*>(values.data());
    all.insert(all.end(), bytes, bytes + values.size() * sizeof(float));
    return all;
  }

 private:
  // Tokens that one launch appends.
  struct Rows {
    struct Run {
      size_t sequence;
      int begin;
      int count;
    };
    Rows() = default;
    Rows(const Step& step, const std::vector<Run>& runs) {
      Random random(static_cast<uint32_t>(7 + runs.size() + runs[0].sequence));
      for (const Run& run : runs) {
        for (int t = run.begin; t < run.begin + run.count; ++t) {
          page.push_back(step.tables_[run.sequence][static_cast<size_t>(t / 64)]);
          slot.push_back(static_cast<uint8_t>(t % 64));
        }
      }
      q = random.Floats(page.size() * static_cast<size_t>(step.q_heads_) * step.kv_.head_dim);
      k = random.Floats(page.size() * step.kv_.kv_heads * step.kv_.head_dim);
      v = random.Floats(k.size());
      angles = random.Floats(page.size() * kRotary, 0.7f);
    }
    RopeAppendOp::Params Params(const Step& step) const {
      const int64_t dim = step.kv_.head_dim;
      return {.kv = step.kv_,
              .style = step.style_,
              .rows = static_cast<int32_t>(page.size()),
              .q_heads = step.q_heads_,
              .rotary_dim = kRotary,
              .q = const_cast<float*>(q.data()),
              .k = k.data(),
              .v = v.data(),
              .q_stride = step.q_heads_ * dim,
              .kv_stride = step.kv_.kv_heads * dim,
              .cosine = angles.data(),
              .sine = angles.data() + angles.size() / 2,
              .arena = reinterpret_cast<std::byte*>(const_cast<uint8_t*>(step.arena_.data())),
              .page = page.data(),
              .slot = slot.data()};
    }
    std::vector<PageId> page;
    std::vector<uint8_t> slot;
    std::vector<float> q, k, v, angles;
  };

  static constexpr int kRotary = 20;  // not whole vectors
  [[nodiscard]] RopeAppendOp::Desc Append() const {
    return {.kv = kv_, .style = style_, .q_heads = q_heads_, .rotary_dim = kRotary};
  }

  KvFormat kv_;
  RopeStyle style_;
  int q_heads_;
  std::vector<std::vector<PageId>> tables_;
  std::vector<uint8_t> arena_;
  std::vector<AttentionRow> plan_;  // of tables that copies share
  Rows brought_;
};

// Steps that decode, steps that bring prompts too, one whose context is shared by threads, heads
// that no unit has all of.
TEST(AttentionAppends, AsTheOpsDoOneByOne) {
  const std::vector<std::vector<Sequence>> steps = {
      {{0, 1}},
      {{63, 1}, {64, 1}, {0, 1}, {200, 1}, {5, 1}, {127, 1}, {128, 1}},
      {{70, 1}, {10, 40}, {90, 1}},
      {{900, 1}}};
  for (const auto& [dtype, group, head_dim] : {std::tuple{DType::kF16, 3, 64u},
                                               {DType::kBF16, 3, 64u},
                                               {DType::kF32, 1, 20u},
                                               {DType::kBF16, 9, 40u},
                                               {DType::kF16, 2, 96u}}) {
    const KvFormat kv = {dtype, 3, head_dim, false};
    for (const CpuIsa isa : SupportedCpuIsas()) {
      for (const int threads : {1, 3}) {
        Machine machine(isa, threads);
        for (size_t i = 0; i < steps.size(); ++i) {
          const RopeStyle style = i % 2 == 0 ? RopeStyle::kInterleaved : RopeStyle::kHalf;
          const Step step(machine, kv, style, group, steps[i]);
          const auto run = [&](const AttentionOp::Desc& desc, const AttentionOp::Params& params) {
            machine.Run<AttentionOp>(desc, params);
          };
          const std::vector<uint8_t> expected = step.Run(machine, false, run);
          EXPECT_EQ(expected, step.Run(machine, true, run))
              << NameOf(isa) << " threads " << threads << " step " << i;
        }
      }
    }
  }
}

// What is asked for is checked as that op checks it.
TEST(AttentionAppends, WhatCannotBeAppendedIsMissing) {
  const KvFormat kv = {DType::kF16, 1, 64, false};
  AttentionOp::Desc desc = {.kv = kv, .q_heads = 1};
  desc.append = {.kv = kv, .q_heads = 1, .rotary_dim = 7};
  const auto found = MakeCpuBackend(CpuIsa::kAuto).value()->catalog().Find<AttentionOp>(desc);
  EXPECT_FALSE(found.ok());
}

}  // namespace
}  // namespace tessera::kernels
