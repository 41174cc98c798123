// Sampling against a plain float64 reading of the order of filters.
#include <algorithm>
#include <map>
#include <numeric>

#include "tests/kernels/kernel_test_support.h"

namespace tessera::kernels {
namespace {

class SampleTest : public IsaTest {};
TESSERA_EACH_ISA(SampleTest);

SampleResult RunOne(Machine& machine, const SampleRow& row, int vocab,
                    TokenLogprob* top = nullptr) {
  SampleResult result;
  machine.Run<SampleOp>(
      {.vocab = vocab},
      {.rows = {&row, 1}, .vocab = vocab, .results = &result, .top = top, .top_stride = 256});
  return result;
}

// The tokens that a row may give, with their probabilities.
std::map<TokenId, double> Allowed(const SampleRow& row, int vocab) {
  std::vector<double> logit(row.logits, row.logits + vocab);
  for (const TokenBias& b : row.bias) logit[b.id] += b.bias;
  if (!row.allowed.empty()) {
    for (int i = 0; i < vocab; ++i) {
      if (!std::binary_search(row.allowed.begin(), row.allowed.end(), static_cast<TokenId>(i))) {
        logit[static_cast<size_t>(i)] = -INFINITY;
      }
    }
  }
  for (const TokenId id : row.banned) logit[id] = -INFINITY;
  for (const TokenCount& c : row.counts) {
    logit[c.id] *= logit[c.id] > 0 ? 1 / row.repetition_penalty : row.repetition_penalty;
    if (c.in_output > 0) logit[c.id] -= row.presence_penalty + row.frequency_penalty * c.in_output;
  }
  std::vector<TokenId> order(static_cast<size_t>(vocab));
  std::iota(order.begin(), order.end(), 0);
  std::erase_if(order, [&](TokenId id) { return logit[id] == -INFINITY; });
  std::sort(order.begin(), order.end(), [&](TokenId a, TokenId b) {
    return logit[a] != logit[b] ? logit[a] > logit[b] : a < b;
  });
  std::map<TokenId, double> p;
  const double most = logit[order[0]];
  for (const TokenId id : order) p[id] = std::exp((logit[id] - most) / double{row.temperature});
  std::erase_if(order, [&](TokenId id) { return p[id] < double{row.min_p}; });
  if (row.top_k > 0 && order.size() > row.top_k) order.resize(row.top_k);
  const auto keep = [&](double mass) {
    double total = 0;
    for (const TokenId id : order) total += p[id];
    double sum = 0;
    size_t n = 0;
    while (n < order.size() && (n == 0 || sum < mass * total)) sum += p[order[n++]];
    order.resize(n);
  };
  if (row.typical_p < 1) {
    double total = 0;
    for (const TokenId id : order) total += p[id];
    double entropy = 0;
    for (const TokenId id : order) entropy -= p[id] / total * std::log(p[id] / total);
    std::stable_sort(order.begin(), order.end(), [&](TokenId a, TokenId b) {
      return std::abs(-std::log(p[a] / total) - entropy) <
             std::abs(-std::log(p[b] / total) - entropy);
    });
    keep(double{row.typical_p});
    std::sort(order.begin(), order.end(),
              [&](TokenId a, TokenId b) { return logit[a] > logit[b]; });
  }
  if (row.top_p < 1) keep(double{row.top_p});
  double total = 0;
  for (const TokenId id : order) total += p[id];
  std::map<TokenId, double> result;
  for (const TokenId id : order) result[id] = p[id] / total;
  return result;
}

TEST_P(SampleTest, GreedyTakesTheLowestOfTheBest) {
  Machine machine(GetParam(), 2);
  for (const int vocab : {1, 5, 63, 64, 65, 1000}) {
    std::vector<float> logits(static_cast<size_t>(vocab), 1.0f);
    logits[static_cast<size_t>(vocab / 2)] = 2.0f;
    logits[static_cast<size_t>(vocab - 1)] = 2.0f;
    const SampleResult r = RunOne(machine, {.logits = logits.data(), .temperature = 0}, vocab);
    EXPECT_EQ(r.token, static_cast<TokenId>(vocab / 2));
    EXPECT_TRUE(r.is_argmax);
    EXPECT_EQ(r.rank, 0u);
  }
}

TEST_P(SampleTest, BadLogitsAreNeverChosen) {
  Machine machine(GetParam(), 1);
  std::vector<float> logits(300, NAN);
  logits[250] = -3.0f;
  logits[7] = -INFINITY;
  for (const float temperature : {0.0f, 1.0f, 2.0f}) {
    for (const float top_p : {1.0f, 0.5f}) {
      const SampleResult r = RunOne(machine,
                                    {.logits = logits.data(),
                                     .temperature = temperature,
                                     .top_p = top_p,
                                     .want_logprob = true},
                                    300);
      EXPECT_EQ(r.token, 250u);
      EXPECT_EQ(r.logprob, 0.0f);
      EXPECT_EQ(r.rank, 1u);
    }
  }
  logits[250] = NAN;
  const TokenId allowed[] = {9, 12};
  EXPECT_EQ(RunOne(machine, {.logits = logits.data()}, 300).token, 0u);
  EXPECT_EQ(RunOne(machine, {.logits = logits.data(), .allowed = allowed}, 300).token, 9u);
  logits[3] = INFINITY;
  EXPECT_EQ(RunOne(machine, {.logits = logits.data()}, 300).token, 3u);
}

// Every filter alone and together: only allowed tokens appear, as often as they should.
TEST_P(SampleTest, FrequenciesFollowTheFilters) {
  Machine machine(GetParam(), 2);
  constexpr int kVocab = 150, kDraws = 20000;
  Random random(1);
  const std::vector<float> logits = random.Floats(kVocab, 2.0f);
  const TokenBias bias[] = {{3, 5.0f}, {90, -100.0f}};
  const TokenId banned[] = {1, 2, 60};
  const TokenCount counts[] = {{4, 1, 0}, {5, 0, 3}, {77, 2, 2}};
  std::vector<TokenId> allowed;
  for (TokenId i = 0; i < kVocab; i += 2) allowed.push_back(i);
  std::vector<SampleRow> cases(12, SampleRow{.logits = logits.data()});
  cases[1].top_k = 5;
  cases[2].top_p = 0.7f;
  cases[3].min_p = 0.1f;
  cases[4].typical_p = 0.5f;
  cases[5].temperature = 0.4f;
  cases[6].bias = bias;
  cases[7].banned = banned;
  cases[8].allowed = allowed;
  cases[9].counts = counts;
  cases[9].repetition_penalty = 1.8f;
  cases[9].presence_penalty = 0.5f;
  cases[9].frequency_penalty = 0.3f;
  cases[10] = {.logits = logits.data(),
               .temperature = 1.7f,
               .top_p = 0.8f,
               .min_p = 0.02f,
               .typical_p = 0.9f,
               .top_k = 60,
               .bias = bias,
               .allowed = allowed,
               .banned = banned};
  cases[11].top_p = 1e-6f;
  for (size_t c = 0; c < cases.size(); ++c) {
    const std::map<TokenId, double> want = Allowed(cases[c], kVocab);
    std::vector<SampleRow> rows(kDraws, cases[c]);
    for (size_t i = 0; i < rows.size(); ++i) {
      rows[i].seed = 42;
      rows[i].counter = i;
    }
    std::vector<SampleResult> results(kDraws);
    machine.Run<SampleOp>({.vocab = kVocab},
                          {.rows = rows, .vocab = kVocab, .results = results.data()});
    std::map<TokenId, int> seen;
    for (const SampleResult& r : results) ++seen[r.token];
    double chi = 0;
    for (const auto& [token, count] : seen) {
      ASSERT_TRUE(want.contains(token)) << "case " << c << " token " << token;
    }
    for (const auto& [token, p] : want) {
      const double mean = p * kDraws;
      if (mean > 10) chi += (seen[token] - mean) * (seen[token] - mean) / mean;
    }
    const double freedom = static_cast<double>(want.size());
    EXPECT_LT(chi, freedom + 5 * std::sqrt(2 * freedom) + 10) << "case " << c;
  }
}

TEST_P(SampleTest, LogprobsRanksAndTopAreOfRawLogits) {
  Machine machine(GetParam(), 2);
  Random random(2);
  for (const int vocab : {100, 5000, 49152}) {
    std::vector<float> logits = random.Floats(static_cast<size_t>(vocab), 3.0f);
    logits[20] = logits[10];  // a tie
    double most = -1e300;
    for (const float l : logits) most = std::max(most, double{l});
    double total = 0;
    for (const float l : logits) total += std::exp(l - most);
    const double log_total = most + std::log(total);
    std::vector<TokenId> order(static_cast<size_t>(vocab));
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](TokenId a, TokenId b) {
      return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
    });
    for (const uint32_t want : {0u, 1u, 20u, 80u}) {
      const TokenId ids[] = {77, 3};
      std::vector<TokenLogprob> top(256);
      const SampleRow row = {.logits = logits.data(),
                             .temperature = 0.5f,
                             .logprob_ids = ids,
                             .top_logprobs = want,
                             .forced = 20,
                             .want_logprob = true};
      const SampleResult r = RunOne(machine, row, vocab, top.data());
      EXPECT_EQ(r.token, 20u);
      ExpectClose(r.logprob, logits[20] - log_total, logits[20] - log_total, kLogprobTolerance,
                  "logprob");
      const auto above =
          std::count_if(logits.begin(), logits.end(), [&](float l) { return l > logits[20]; });
      EXPECT_EQ(r.rank, static_cast<uint32_t>(above) + 1);
      for (uint32_t i = 0; i < want + 2; ++i) {
        const TokenId id = i < want ? order[i] : ids[i - want];
        EXPECT_EQ(top[i].id, id);
        ExpectClose(top[i].logprob, logits[id] - log_total, logits[id] - log_total,
                    kLogprobTolerance, "top");
      }
    }
  }
}

TEST(SampleBits, TokensAreTheSameOnEveryMachine) {
  constexpr int kVocab = 49152, kRows = 24;
  Random random(3);
  const std::vector<float> logits = random.Floats(kVocab, 2.5f);
  std::vector<SampleRow> rows(kRows, SampleRow{.logits = logits.data()});
  for (int i = 0; i < kRows; ++i) {
    SampleRow& row = rows[static_cast<size_t>(i)];
    row.seed = 9;
    row.counter = static_cast<uint64_t>(i);
    row.want_logprob = true;
    if (i % 4 == 1) row.top_p = 0.9f;
    if (i % 4 == 2) row.top_k = 1000;
    if (i % 4 == 3) row.typical_p = 0.8f, row.min_p = 0.001f;
  }
  std::vector<SampleResult> expected;
  for (const CpuIsa isa : SupportedCpuIsas()) {
    for (const int threads : {1, 2}) {
      Machine machine(isa, threads);
      std::vector<SampleResult> results(kRows);
      machine.Run<SampleOp>({.vocab = kVocab},
                            {.rows = rows, .vocab = kVocab, .results = results.data()});
      if (expected.empty()) expected = results;
      for (size_t i = 0; i < kRows; ++i) {
        EXPECT_EQ(results[i].token, expected[i].token);
        EXPECT_EQ(results[i].rank, expected[i].rank);
        EXPECT_EQ(results[i].logprob, expected[i].logprob);
      }
      // A row alone draws what it drew among others.
      EXPECT_EQ(RunOne(machine, rows[5], kVocab).token, expected[5].token);
    }
  }
}

}  // namespace
}  // namespace tessera::kernels
