#include "kernels/cpu/ops/sample_row.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "kernels/cpu/ops/random.h"

namespace tessera::kernels::cpu {
namespace {

constexpr float kNothing = -std::numeric_limits<float>::infinity();
// Below this a temperature is greedy: its inverse would leave no second candidate anyway.
constexpr float kGreedyTemperature = 1e-5f;

struct Candidate {
  float value;  // logit, then weight
  TokenId id;
};

// As the vector passes read a logit: not-a-number is -infinity, +infinity the largest float.
float Clean(float logit) {
  if (std::isnan(logit)) return kNothing;
  return std::min(logit, std::numeric_limits<float>::max());
}

bool Better(const Candidate& a, const Candidate& b) {
  return a.value != b.value ? a.value > b.value : a.id < b.id;
}

int32_t ChunksOf(int32_t vocab) { return (vocab + kLogitChunk - 1) / kLogitChunk; }

class RowSampler {
 public:
  RowSampler(const SampleKernels& micro, const SampleRow& row, int32_t vocab, std::byte* scratch)
      : micro_(micro), row_(row), vocab_(vocab), chunks_(ChunksOf(vocab)) {
    candidates_ = reinterpret_cast<Candidate*>(scratch);
    changed_ = reinterpret_cast<float*>(candidates_ + vocab);
    weights_ = changed_ + vocab;
    chunk_max_ = weights_ + vocab;
    chunk_sum_ = chunk_max_ + chunks_;
  }

  void Run(SampleResult* result, TokenLogprob* top) {
    logits_ = row_.logits;
    Scan();
    const TokenId raw_argmax = argmax_;
    const bool report =
        row_.want_logprob || row_.top_logprobs > 0 || !row_.logprob_ids.empty() || row_.forced >= 0;
    double log_total = 0;
    if (report) {
      micro_.weights(logits_, vocab_, max_ == kNothing ? 0.0f : max_, 1.0f, nullptr, chunk_sum_);
      log_total = static_cast<double>(max_) + std::log(SumOfChunks(chunks_));
      if (top != nullptr) ReportTop(log_total, top);
    }
    result->token = row_.forced >= 0 ? static_cast<TokenId>(row_.forced) : Choose();
    result->is_argmax = result->token == raw_argmax;
    result->rank = 0;
    result->logprob = 0;
    if (!report) return;
    const float logit = Clean(row_.logits[result->token]);
    result->logprob = LogprobOf(logit, log_total);
    result->rank = 1 + static_cast<uint32_t>(micro_.count_greater(row_.logits, vocab_, logit));
  }

 private:
  // Maxima of logits_ and their lowest id.
  void Scan() {
    micro_.chunk_max(logits_, vocab_, chunk_max_);
    const float* chunk = std::max_element(chunk_max_, chunk_max_ + chunks_);
    max_ = *chunk;
    int32_t id = static_cast<int32_t>(chunk - chunk_max_) * kLogitChunk;
    while (id + 1 < vocab_ && Clean(logits_[id]) != max_) ++id;
    argmax_ = static_cast<TokenId>(id);
  }

  [[nodiscard]] double SumOfChunks(int32_t chunks) const {
    double sum = 0;
    for (int32_t i = 0; i < chunks; ++i) sum += static_cast<double>(chunk_sum_[i]);
    return sum;
  }

  static float LogprobOf(float logit, double log_total) {
    if (logit == kNothing) return kNothing;
    return static_cast<float>(static_cast<double>(logit) - log_total);
  }

  // All tokens with logit >= bound into candidates_, by id.
  int32_t Collect(float bound) {
    int32_t count = 0;
    for (int32_t c = 0; c < chunks_; ++c) {
      if (chunk_max_[c] < bound) continue;
      const int32_t end = std::min(vocab_, (c + 1) * kLogitChunk);
      for (int32_t id = c * kLogitChunk; id < end; ++id) {
        const float logit = Clean(logits_[id]);
        candidates_[count] = {logit, static_cast<TokenId>(id)};
        count += logit >= bound ? 1 : 0;
      }
    }
    return count;
  }

  // A logit that at least `wanted` tokens reach: as many chunks have a maximum that does.
  float BoundOfBest(int32_t wanted) {
    if (wanted > chunks_) return kNothing;
    std::copy(chunk_max_, chunk_max_ + chunks_, chunk_sum_);
    std::nth_element(chunk_sum_, chunk_sum_ + wanted - 1, chunk_sum_ + chunks_, std::greater<>());
    return chunk_sum_[wanted - 1];
  }

  void ReportTop(double log_total, TokenLogprob* top) {
    const int32_t wanted = std::min(static_cast<int32_t>(row_.top_logprobs), vocab_);
    if (wanted > 0) {
      const int32_t count = Collect(BoundOfBest(wanted));
      std::partial_sort(candidates_, candidates_ + wanted, candidates_ + count, Better);
      for (int32_t i = 0; i < wanted; ++i) {
        *top++ = {candidates_[i].id, LogprobOf(candidates_[i].value, log_total)};
      }
    }
    for (const TokenId id : row_.logprob_ids) {
      *top++ = {id, LogprobOf(Clean(row_.logits[id]), log_total)};
    }
  }

  TokenId Choose() {
    const bool penalties =
        !row_.counts.empty() && (row_.repetition_penalty != 1.0f || row_.presence_penalty != 0.0f ||
                                 row_.frequency_penalty != 0.0f);
    if (penalties || !row_.bias.empty() || !row_.allowed.empty() || !row_.banned.empty()) {
      Change(penalties);
      logits_ = changed_;
      Scan();
    }
    if (max_ == kNothing) return row_.allowed.empty() ? argmax_ : row_.allowed.front();
    if (row_.temperature < kGreedyTemperature) return argmax_;
    return Draw();
  }

  // Bias, allowed and banned ids, then penalties, on a copy of the logits.
  void Change(bool penalties) {
    for (int32_t i = 0; i < vocab_; ++i) changed_[i] = Clean(row_.logits[i]);
    for (const TokenBias& b : row_.bias) changed_[b.id] += b.bias;
    if (!row_.allowed.empty()) {
      float* kept = weights_;
      size_t n = 0;
      for (const TokenId id : row_.allowed) kept[n++] = changed_[id];
      std::fill(changed_, changed_ + vocab_, kNothing);
      n = 0;
      for (const TokenId id : row_.allowed) changed_[id] = kept[n++];
    }
    for (const TokenId id : row_.banned) changed_[id] = kNothing;
    if (!penalties) return;
    for (const TokenCount& c : row_.counts) {
      float& logit = changed_[c.id];
      if (c.in_prompt + c.in_output > 0 && row_.repetition_penalty != 1.0f) {
        logit = logit > 0 ? logit / row_.repetition_penalty : logit * row_.repetition_penalty;
      }
      if (c.in_output > 0) {
        logit -= row_.presence_penalty + row_.frequency_penalty * static_cast<float>(c.in_output);
      }
    }
  }

  TokenId Draw() {
    const bool top_k = row_.top_k > 0 && row_.top_k < static_cast<uint32_t>(vocab_);
    const bool typical = row_.typical_p < 1.0f;
    const bool top_p = row_.top_p < 1.0f;
    if (!top_k && !typical && row_.min_p <= 0 && !top_p) return DrawFromAll();
    int32_t count = FirstCandidates(top_k, top_p && !typical);
    if (top_k && count > static_cast<int32_t>(row_.top_k)) {
      std::nth_element(candidates_, candidates_ + row_.top_k, candidates_ + count, Better);
      count = static_cast<int32_t>(row_.top_k);
      std::sort(candidates_, candidates_ + count, Better);
    }
    double total = WeighCandidates(count);
    if (typical) {
      count = KeepTypical(count, total);
      total = CandidateTotal(count);
    }
    if (top_p) {
      count = KeepNucleus(count, nucleus_total_ > 0 ? nucleus_total_ : total);
      total = CandidateTotal(count);
    }
    const double target = Uniform(row_.seed, row_.counter) * total;
    double sum = 0;
    for (int32_t i = 0; i < count; ++i) {
      sum += static_cast<double>(candidates_[i].value);
      if (sum > target) return candidates_[i].id;
    }
    return candidates_[0].id;
  }

  TokenId DrawFromAll() {
    micro_.weights(logits_, vocab_, max_, 1.0f / row_.temperature, weights_, chunk_sum_);
    const double target = Uniform(row_.seed, row_.counter) * SumOfChunks(chunks_);
    double sum = 0;
    TokenId last = argmax_;
    for (int32_t c = 0; c < chunks_; ++c) {
      if (sum + static_cast<double>(chunk_sum_[c]) <= target) {
        sum += static_cast<double>(chunk_sum_[c]);
        continue;
      }
      // The chunk's own rounding may leave the target just past its last token.
      for (int32_t i = c * kLogitChunk; i < std::min(vocab_, (c + 1) * kLogitChunk); ++i) {
        if (weights_[i] > 0) last = static_cast<TokenId>(i);
        sum += static_cast<double>(weights_[i]);
        if (sum > target) break;
      }
      return last;
    }
    return last;
  }

  // The tokens that min_p keeps; fewer where a filter that follows cannot want the rest.
  int32_t FirstCandidates(bool top_k, bool nucleus) {
    float bound = -std::numeric_limits<float>::max();
    nucleus_total_ = 0;
    if (row_.min_p > 0) bound = std::max(bound, max_ + row_.temperature * std::log(row_.min_p));
    if (top_k) {
      bound = std::max(bound, BoundOfBest(static_cast<int32_t>(row_.top_k)));
    } else if (nucleus && row_.min_p <= 0) {
      micro_.weights(logits_, vocab_, max_, 1.0f / row_.temperature, nullptr, chunk_sum_);
      nucleus_total_ = SumOfChunks(chunks_);
      // Tokens below this weight have less than 1 - top_p of the mass together: the nucleus is
      // above.
      const double rest = 0.5 * (1.0 - static_cast<double>(row_.top_p)) * nucleus_total_ / vocab_;
      const double logit =
          static_cast<double>(max_) + static_cast<double>(row_.temperature) * std::log(rest);
      bound = std::max(bound, static_cast<float>(logit));
    }
    // Rounding of the bound must not lose the best token.
    return Collect(std::min(bound, max_));
  }

  // Logits to weights; the total. The logits are in the candidates by now, so their copy can go.
  double WeighCandidates(int32_t count) {
    for (int32_t i = 0; i < count; ++i) changed_[i] = candidates_[i].value;
    micro_.weights(changed_, count, max_, 1.0f / row_.temperature, weights_, chunk_sum_);
    for (int32_t i = 0; i < count; ++i) candidates_[i].value = weights_[i];
    return SumOfChunks(ChunksOf(count));
  }

  [[nodiscard]] double CandidateTotal(int32_t count) const {
    double total = 0;
    for (int32_t i = 0; i < count; ++i) total += static_cast<double>(candidates_[i].value);
    return total;
  }

  // Moves the candidates that `before` puts first to the front, until they have `mass`.
  template <typename Before>
  int32_t KeepMass(int32_t count, double mass, Before before) {
    double sum = 0;
    int32_t kept = 0;
    int32_t sorted = 0;
    for (int32_t step = 128; kept < count && (kept == 0 || sum < mass); ++kept) {
      if (kept == sorted) {
        sorted = std::min(count, sorted + step);
        step *= 4;
        std::nth_element(candidates_ + kept, candidates_ + sorted - 1, candidates_ + count, before);
        std::sort(candidates_ + kept, candidates_ + sorted, before);
      }
      sum += static_cast<double>(candidates_[kept].value);
    }
    return kept;
  }

  int32_t KeepNucleus(int32_t count, double total) {
    return KeepMass(count, static_cast<double>(row_.top_p) * total, Better);
  }

  // Tokens whose surprise is nearest to the entropy (Meister et al., 2022).
  int32_t KeepTypical(int32_t count, double total) {
    double entropy = 0;
    for (int32_t i = 0; i < count; ++i) {
      const double p = static_cast<double>(candidates_[i].value) / total;
      if (p > 0) entropy -= p * std::log(p);
    }
    // Distances have a plane of their own, because a comparison must not compute logarithms.
    for (int32_t i = 0; i < count; ++i) {
      const double p = static_cast<double>(candidates_[i].value) / total;
      changed_[i] = p > 0 ? static_cast<float>(std::abs(-std::log(p) - entropy))
                          : std::numeric_limits<float>::max();
    }
    return SelectTypical(count, static_cast<double>(row_.typical_p) * total);
  }

  int32_t SelectTypical(int32_t count, double mass) {
    int32_t* order = reinterpret_cast<int32_t*>(chunk_sum_ + chunks_);
    for (int32_t i = 0; i < count; ++i) order[i] = i;
    std::sort(order, order + count, [&](int32_t a, int32_t b) {
      if (changed_[a] != changed_[b]) return changed_[a] < changed_[b];
      return Better(candidates_[a], candidates_[b]);
    });
    double sum = 0;
    int32_t kept = 0;
    while (kept < count && (kept == 0 || sum < mass)) {
      sum += static_cast<double>(candidates_[order[kept++]].value);
    }
    // The kept positions, rising, so that the move never overwrites one still wanted.
    std::sort(order, order + kept);
    for (int32_t i = 0; i < kept; ++i) candidates_[i] = candidates_[order[i]];
    return kept;
  }

  const SampleKernels& micro_;
  const SampleRow& row_;
  int32_t vocab_;
  int32_t chunks_;
  const float* logits_ = nullptr;
  float max_ = 0;
  TokenId argmax_ = 0;
  double nucleus_total_ = 0;
  Candidate* candidates_;
  float* changed_;
  float* weights_;
  float* chunk_max_;
  float* chunk_sum_;
};

}  // namespace

size_t SampleScratchBytes(uint64_t vocab) {
  const size_t chunks = (vocab + kLogitChunk - 1) / kLogitChunk;
  return vocab * (sizeof(Candidate) + 2 * sizeof(float) + sizeof(int32_t)) +
         2 * chunks * sizeof(float) + 64;
}

void SampleRowToToken(const SampleKernels& micro, const SampleRow& row, int32_t vocab,
                      std::byte* scratch, SampleResult* result, TokenLogprob* top) {
  RowSampler(micro, row, vocab, scratch).Run(result, top);
}

}  // namespace tessera::kernels::cpu
