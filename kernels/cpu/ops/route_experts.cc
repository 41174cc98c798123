#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/registry.h"

namespace tessera::kernels::cpu {
namespace {

constexpr float kNotChosen = -std::numeric_limits<float>::infinity();
// Marks what is chosen: no comparison with it holds.
constexpr float kTaken = std::numeric_limits<float>::quiet_NaN();

// exp(l - largest l) of `count` logits in place; the sum.
template <CpuIsa isa>
float Exponentials(float* logits, int32_t count) {
  float largest = kNotChosen;
  for (int32_t i = 0; i < count; ++i) largest = logits[i] > largest ? logits[i] : largest;
  std::array<float, RouteExpertsOp::kMaxExperts / kLogitChunk> sums;
  Micro<isa>::kSample.weights(logits, count, largest, 1.0f, logits, sums.data());
  float sum = 0;
  for (int32_t i = 0; i < (count + kLogitChunk - 1) / kLogitChunk; ++i) {
    sum += sums[static_cast<size_t>(i)];
  }
  return sum;
}

template <CpuIsa isa>
void Softmax(float* logits, int32_t count) {
  const float sum = Exponentials<isa>(logits, count);
  for (int32_t i = 0; i < count; ++i) logits[i] /= sum;
}

template <CpuIsa isa>
void Sigmoid(float* logits, int32_t count) {
  std::array<float, RouteExpertsOp::kMaxExperts / kLogitChunk> sums;
  Micro<isa>::kSample.weights(logits, count, 0.0f, -1.0f, logits, sums.data());
  for (int32_t i = 0; i < count; ++i) logits[i] = 1.0f / (1.0f + logits[i]);
}

// The index of the largest value that is not taken, the first of equals; marks it as taken.
int32_t TakeLargest(float* values, int32_t count) {
  int32_t best = -1;
  for (int32_t i = 0; i < count; ++i) {
    if (best < 0 ? !std::isnan(values[i]) : values[i] > values[best]) best = i;
  }
  values[best] = kTaken;
  return best;
}

float WorthOfGroup(const ExpertRouter& router, const float* choice, int32_t size) {
  float first = kNotChosen, second = kNotChosen;
  for (int32_t i = 0; i < size; ++i) {
    if (choice[i] > first) {
      second = first;
      first = choice[i];
    } else if (choice[i] > second) {
      second = choice[i];
    }
  }
  if (router.group_score == GroupScore::kMax) return first;
  const float sum = first + second;
  return std::isnan(sum) ? kNotChosen : sum;
}

// Leaves only the best groups to choose from.
void LimitGroups(const ExpertRouter& router, float* choice) {
  const int32_t size = router.experts / router.groups;
  std::array<float, RouteExpertsOp::kMaxExperts> worth;
  for (int32_t g = 0; g < router.groups; ++g) {
    worth[static_cast<size_t>(g)] = WorthOfGroup(router, choice + g * size, size);
  }
  for (int32_t i = 0; i < router.groups_used; ++i) TakeLargest(worth.data(), router.groups);
  for (int32_t g = 0; g < router.groups; ++g) {
    if (std::isnan(worth[static_cast<size_t>(g)])) continue;
    std::fill_n(choice + g * size, size, kTaken);
  }
}

template <CpuIsa isa>
void Choose(const RouteExpertsOp::Params& p, const float* bias, int64_t row) {
  const ExpertRouter& router = p.router;
  float* score = p.logits + row * router.experts;
  float* choice = p.choice + row * router.experts;
  int32_t* experts = p.experts + row * router.used;
  float* weights = p.weights + row * router.used;
  if (router.score == RouterScore::kSoftmax) Softmax<isa>(score, router.experts);
  if (router.score == RouterScore::kSigmoid) Sigmoid<isa>(score, router.experts);
  for (int32_t e = 0; e < router.experts; ++e) {
    const float c = bias != nullptr ? score[e] + bias[e] : score[e];
    choice[e] = std::isnan(c) ? kNotChosen : c;
  }
  if (router.groups_used < router.groups) LimitGroups(router, choice);
  for (int32_t k = 0; k < router.used; ++k) {
    experts[k] = TakeLargest(choice, router.experts);
    weights[k] = score[experts[k]];
  }
  if (router.score == RouterScore::kSoftmaxOfTop) Softmax<isa>(weights, router.used);
  float sum = 0;
  for (int32_t k = 0; k < router.used; ++k) sum += weights[k];
  const float divisor = router.normalise ? sum + 1e-20f : 1.0f;
  for (int32_t k = 0; k < router.used; ++k) weights[k] = weights[k] / divisor * router.scale;
}

// Counts each expert's rows, then gives every row its slots in order.
void SortByExpert(const RouteExpertsOp::Params& p) {
  const int32_t used = p.router.used;
  int32_t slot = 0;
  for (size_t t = 0; t < p.tasks.size(); ++t) {
    const RouteTask& task = p.tasks[t];
    int32_t* first = p.first + static_cast<int64_t>(t) * (p.router.experts + 1);
    const int64_t begin = int64_t{task.row_begin} * used;
    const int64_t end = begin + int64_t{task.row_count} * used;
    std::fill_n(first, p.router.experts + 1, 0);
    for (int64_t i = begin; i < end; ++i) ++first[p.experts[i]];
    // To the end of each expert's slots, which filling from the last row on makes their begin.
    for (int32_t e = 0; e < p.router.experts; ++e) first[e] = slot += first[e];
    first[p.router.experts] = slot;
    for (int64_t i = end; i-- > begin;) {
      const int32_t at = --first[p.experts[i]];
      p.slot_of[i] = at;
      p.row_of[at] = static_cast<int32_t>(i / used);
    }
  }
}

template <CpuIsa isa>
void Run(ExecContext& context, const RouteExpertsOp::Params& p) {
  for (const RouteTask& task : p.tasks) {
    const double ns = static_cast<double>(task.row_count) * p.router.experts * p.router.used;
    ForShares(context, task.row_count, ns, [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; ++row) {
        Choose<isa>(p, task.selection_bias, task.row_begin + row);
      }
    });
  }
  SortByExpert(p);
}

std::string Missing(const RouteExpertsOp::Desc& desc) {
  const ExpertRouter& router = desc.router;
  if (router.experts < 1 || router.experts > RouteExpertsOp::kMaxExperts) {
    return absl::StrCat("experts ", router.experts, " (1 to ", RouteExpertsOp::kMaxExperts, ")");
  }
  if (router.groups < 1 || router.experts % router.groups != 0) {
    return absl::StrCat("groups ", router.groups, " (a divisor of ", router.experts, ")");
  }
  if (router.groups_used < 1 || router.groups_used > router.groups) {
    return absl::StrCat("groups_used ", router.groups_used, " (1 to ", router.groups, ")");
  }
  const int32_t most = router.experts / router.groups * router.groups_used;
  if (router.used < 1 || router.used > most) {
    return absl::StrCat("experts_used ", router.used, " (1 to ", most, ")");
  }
  return "";
}

}  // namespace

void Register_route_experts(Registry& registry) {
  registry.Add<RouteExpertsOp>("route_experts", Missing, Run<CpuIsa::kAvx512>, Run<CpuIsa::kAvx2>);
}

}  // namespace tessera::kernels::cpu
