// Routing of rows to experts, and what surrounds the experts' products.
#include <algorithm>
#include <numeric>

#include "tests/kernels/kernel_test_support.h"

namespace tessera::kernels {
namespace {

class ExpertsTest : public IsaTest {};
TESSERA_EACH_ISA(ExpertsTest);

struct Routed {
  std::vector<int32_t> experts, slot_of, row_of, first;
  std::vector<float> weights;
};

Routed Route(Machine& machine, const ExpertRouter& router, std::vector<float> logits,
             std::span<const RouteTask> tasks) {
  const size_t rows = logits.size() / static_cast<size_t>(router.experts);
  const size_t chosen = rows * static_cast<size_t>(router.used);
  Guarded<float> choice(logits.size()), weights(chosen);
  Guarded<int32_t> experts(chosen), slot_of(chosen), row_of(chosen),
      first(tasks.size() * static_cast<size_t>(router.experts + 1));
  machine.Run<RouteExpertsOp>({.router = router}, {.router = router,
                                                   .tasks = tasks,
                                                   .logits = logits.data(),
                                                   .choice = choice.data(),
                                                   .experts = experts.data(),
                                                   .weights = weights.data(),
                                                   .slot_of = slot_of.data(),
                                                   .row_of = row_of.data(),
                                                   .first = first.data()});
  return {experts.values(), slot_of.values(), row_of.values(), first.values(), weights.values()};
}

// The same by sorting, in float64.
void ExpectRow(const ExpertRouter& router, const float* logits, const float* bias,
               const int32_t* experts, const float* weights) {
  const int n = router.experts, size = n / router.groups;
  std::vector<double> score(logits, logits + n);
  if (router.score == RouterScore::kSoftmax) {
    const double most = *std::max_element(score.begin(), score.end());
    double total = 0;
    for (double& s : score) total += s = std::exp(s - most);
    for (double& s : score) s /= total;
  } else if (router.score == RouterScore::kSigmoid) {
    for (double& s : score) s = 1 / (1 + std::exp(-s));
  }
  std::vector<double> choice = score;
  for (int i = 0; bias != nullptr && i < n; ++i) choice[static_cast<size_t>(i)] += double{bias[i]};
  const auto falling = [](const std::vector<double>& values) {
    std::vector<int> order(values.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
      return values[static_cast<size_t>(a)] > values[static_cast<size_t>(b)];
    });
    return order;
  };
  std::vector<double> worth;
  for (int g = 0; g < router.groups; ++g) {
    std::vector<double> group(choice.begin() + g * size, choice.begin() + (g + 1) * size);
    std::sort(group.rbegin(), group.rend());
    worth.push_back(router.group_score == GroupScore::kMax ? group[0] : group[0] + group[1]);
  }
  const std::vector<int> best = falling(worth);
  for (int i = router.groups_used; i < router.groups; ++i) {
    std::fill_n(choice.begin() + best[static_cast<size_t>(i)] * size, size, -1e300);
  }
  const std::vector<int> order = falling(choice);
  std::vector<double> want;
  for (int k = 0; k < router.used; ++k) {
    EXPECT_EQ(experts[k], order[static_cast<size_t>(k)]) << "choice " << k;
    want.push_back(score[static_cast<size_t>(order[static_cast<size_t>(k)])]);
  }
  if (router.score == RouterScore::kSoftmaxOfTop) {
    const double most = want[0];
    double total = 0;
    for (double& w : want) total += w = std::exp(w - most);
    for (double& w : want) w /= total;
  }
  const double total =
      router.normalise ? std::accumulate(want.begin(), want.end(), 0.0) + 1e-20 : 1.0;
  for (int k = 0; k < router.used; ++k) {
    const double w = want[static_cast<size_t>(k)] / total * double{router.scale};
    ExpectClose(weights[k], w, w, kActivationTolerance, "weight " + std::to_string(k));
  }
}

constexpr ExpertRouter kRouters[] = {
    {.experts = 8, .used = 2, .normalise = true},
    {.experts = 1, .used = 1},
    {.experts = 60, .used = 4},
    {.experts = 32, .used = 4, .score = RouterScore::kSoftmaxOfTop},
    {.experts = 160, .used = 6, .groups = 8, .groups_used = 3, .scale = 16.0f},
    {.experts = 256,
     .used = 8,
     .groups = 8,
     .groups_used = 4,
     .score = RouterScore::kSigmoid,
     .group_score = GroupScore::kTopTwo,
     .normalise = true,
     .scale = 2.5f},
};

TEST_P(ExpertsTest, RoutesAsDefined) {
  Machine machine(GetParam(), 2);
  Random random(1);
  for (const ExpertRouter& router : kRouters) {
    for (const bool biased : {false, true}) {
      constexpr int kRows = 37;
      const std::vector<float> logits =
          random.Floats(static_cast<size_t>(kRows * router.experts), 2.0f);
      const std::vector<float> bias = random.Floats(static_cast<size_t>(router.experts), 0.2f);
      const RouteTask tasks[] = {{biased ? bias.data() : nullptr, 0, 20}, {nullptr, 20, 17}};
      const Routed routed = Route(machine, router, logits, tasks);
      for (int r = 0; r < kRows; ++r) {
        ExpectRow(router, logits.data() + r * router.experts,
                  r < 20 ? tasks[0].selection_bias : nullptr,
                  &routed.experts[static_cast<size_t>(r * router.used)],
                  &routed.weights[static_cast<size_t>(r * router.used)]);
      }
    }
  }
}

// Slots are the rows by task, expert and row; each knows its row and each row its slots.
TEST_P(ExpertsTest, SlotsAreRowsInOrderOfTheirExperts) {
  Machine machine(GetParam(), 2);
  Random random(2);
  const ExpertRouter router = {.experts = 12, .used = 3};
  const RouteTask tasks[] = {{nullptr, 0, 5}, {nullptr, 5, 0}, {nullptr, 5, 26}};
  const Routed routed = Route(machine, router, random.Floats(31 * 12, 2.0f), tasks);
  int32_t slot = 0;
  for (size_t t = 0; t < std::size(tasks); ++t) {
    const int32_t* first = &routed.first[t * 13];
    for (int32_t e = 0; e < 12; ++e) {
      EXPECT_EQ(first[e], slot);
      for (int32_t r = tasks[t].row_begin; r < tasks[t].row_begin + tasks[t].row_count; ++r) {
        for (int32_t k = 0; k < 3; ++k) {
          const auto at = static_cast<size_t>(r * 3 + k);
          if (routed.experts[at] != e) continue;
          EXPECT_EQ(routed.slot_of[at], slot);
          EXPECT_EQ(routed.row_of[static_cast<size_t>(slot)], r);
          ++slot;
        }
      }
    }
    EXPECT_EQ(first[12], slot);
  }
  EXPECT_EQ(slot, 31 * 3);
}

TEST_P(ExpertsTest, TiesGoToTheLowerIndexAndABadLogitIsNeverPreferred) {
  Machine machine(GetParam(), 1);
  const ExpertRouter router = {.experts = 4, .used = 2, .score = RouterScore::kSoftmaxOfTop};
  const RouteTask tasks[] = {{nullptr, 0, 4}};
  const Routed routed = Route(machine, router,
                              {1, 1, 1, 1,          //
                               NAN, 0, 2, 2,        //
                               NAN, NAN, NAN, NAN,  //
                               NAN, -INFINITY, NAN, 3},
                              tasks);
  EXPECT_EQ(routed.experts, (std::vector<int32_t>{0, 1, 2, 3, 0, 1, 3, 0}));
  EXPECT_EQ(routed.weights[0], 0.5f);
}

TEST_P(ExpertsTest, ARowsBitsDoNotDependOnTheBatch) {
  Machine one(GetParam(), 1), two(GetParam(), 2);
  Random random(3);
  for (const ExpertRouter& router : kRouters) {
    const std::vector<float> logits = random.Floats(static_cast<size_t>(64 * router.experts));
    const RouteTask all[] = {{nullptr, 0, 64}};
    const Routed batch = Route(two, router, logits, all);
    for (int r : {0, 31, 63}) {
      const RouteTask single[] = {{nullptr, 0, 1}};
      const Routed alone = Route(
          one, router,
          {logits.begin() + r * router.experts, logits.begin() + (r + 1) * router.experts}, single);
      const auto begin = batch.weights.begin() + r * router.used;
      EXPECT_TRUE(SameBits(alone.weights, {begin, begin + router.used}));
    }
  }
}

TEST_P(ExpertsTest, RoutersThatCannotWorkAreRefusedByName) {
  const auto backend = MakeCpuBackend(GetParam()).value();
  const std::pair<ExpertRouter, const char*> bad[] = {
      {{.experts = 4097, .used = 1}, "experts 4097"},
      {{.experts = 8, .used = 9}, "experts_used 9"},
      {{.experts = 8, .used = 2, .groups = 3}, "groups 3"},
      {{.experts = 8, .used = 2, .groups = 4, .groups_used = 5}, "groups_used 5"},
      {{.experts = 8, .used = 3, .groups = 4, .groups_used = 1}, "experts_used 3"}};
  for (const auto& [router, name] : bad) {
    const Status status = backend->catalog().Find<RouteExpertsOp>({.router = router}).status();
    EXPECT_NE(status.message().find(name), absl::string_view::npos) << status;
  }
}

TEST_P(ExpertsTest, ClampedSwigluMatchesFloat64) {
  Machine machine(GetParam(), 2);
  Random random(4);
  for (const int count : {1, 17, 2880}) {
    const std::vector<float> gate = random.Floats(static_cast<size_t>(count), 6.0f);
    const std::vector<float> up = random.Floats(gate.size(), 6.0f);
    Guarded<float> y(gate.size());
    machine.Run<ClampedSwigluOp>({.limit = 7.0f}, {.gate = gate.data(),
                                                   .up = up.data(),
                                                   .y = y.data(),
                                                   .count = count,
                                                   .limit = 7.0f,
                                                   .alpha = 1.702f});
    for (size_t i = 0; i < gate.size(); ++i) {
      const double g = std::min(double{gate[i]}, 7.0);
      const double u = std::clamp(double{up[i]}, -7.0, 7.0);
      const double glu = g / (1 + std::exp(-double{1.702f} * g));
      // The sum with 1 may cancel.
      ExpectClose(y[i], (u + 1) * glu, (std::abs(u) + 1) * glu, kActivationTolerance, "swiglu");
    }
  }
}

TEST_P(ExpertsTest, GathersRows) {
  Machine machine(GetParam(), 2);
  Random random(5);
  const std::vector<float> x = random.Floats(7 * 33);
  const int32_t rows[] = {6, 0, 0, 3};
  Guarded<float> y(4 * 33);
  machine.Run<GatherRowsOp>({.width = 33},
                            {.x = x.data(), .rows = rows, .y = y.data(), .count = 4, .width = 33});
  for (size_t i = 0; i < 4; ++i) {
    for (size_t d = 0; d < 33; ++d) {
      EXPECT_EQ(y[i * 33 + d], x[static_cast<size_t>(rows[i]) * 33 + d]);
    }
  }
}

TEST_P(ExpertsTest, CombinesExpertsAndWhatIsShared) {
  Machine machine(GetParam(), 2);
  Random random(6);
  constexpr int kRows = 5, kUsed = 3;
  for (const int width : {1, 33, 1500}) {
    for (const int shared : {0, 1, 2}) {
      const std::vector<float> outputs = random.Floats(static_cast<size_t>(kRows * kUsed * width));
      const std::vector<float> common = random.Floats(static_cast<size_t>(kRows * width));
      const std::vector<float> weights = random.Floats(kRows * kUsed);
      const std::vector<float> logits = random.Floats(kRows, 3.0f);
      std::vector<int32_t> slot_of(kRows * kUsed);
      for (int i = 0; i < kRows * kUsed; ++i) slot_of[static_cast<size_t>(i)] = i * 4 % 15;
      const int32_t y_rows[] = {4, 2, 0, 1, 3};
      const std::vector<float> before = random.Floats(common.size());
      std::vector<float> y = before;
      machine.Run<CombineExpertsOp>({.width = width},
                                    {.outputs = outputs.data(),
                                     .slot_of = slot_of.data(),
                                     .weights = weights.data(),
                                     .shared = shared > 0 ? common.data() : nullptr,
                                     .shared_logit = shared > 1 ? logits.data() : nullptr,
                                     .residual = y.data(),
                                     .y_rows = y_rows,
                                     .rows = kRows,
                                     .used = kUsed,
                                     .width = width,
                                     .scale = 0.5f});
      for (int r = 0; r < kRows; ++r) {
        for (int d = 0; d < width; ++d) {
          double sum = 0, scale = 0;
          for (int k = 0; k < kUsed; ++k) {
            const auto at = static_cast<size_t>(r * kUsed + k);
            const double term =
                double{weights[at]} * outputs[static_cast<size_t>(slot_of[at] * width + d)];
            sum += term;
            scale += std::abs(term);
          }
          const double gate =
              shared > 1 ? 1 / (1 + std::exp(-double{logits[static_cast<size_t>(r)]})) : shared;
          const double term = gate * common[static_cast<size_t>(r * width + d)];
          const auto to = static_cast<size_t>(y_rows[r] * width + d);
          ExpectClose(y[to], before[to] + 0.5 * (sum + term),
                      std::abs(before[to]) + scale + std::abs(term), kLinearTolerance, "combine");
        }
      }
    }
  }
}

}  // namespace
}  // namespace tessera::kernels
