// Which experts of a mixture compute a row, with what weight, and the rows in order of their
// experts, so that an expert's weights are read once for all rows that chose it.
//
// Arithmetic of a row, in float32, whatever the batch:
//   score   kSoftmax: e_i / sum, e_i = exp(l_i - largest l), the sum in 16 lanes of each 64 experts
//           as sample.h adds, those in order; kSigmoid: 1 / (1 + exp(-l)); kSoftmaxOfTop: l
//   choice  c = score + selection bias where there is one; not-a-number counts as -infinity.
//   Experts
//           fall into `groups` equal runs; a group's score is its largest c (kMax) or the sum of
//           its two largest (kTopTwo); the groups_used best groups remain. Of them the `used`
//           largest c are chosen. Ties go to the lower index.
//   weight  the score of each chosen one (kSoftmaxOfTop: softmax over the chosen); with `normalise`
//           divided by (their sum in order of choice + 1e-20); then times `scale`.
// Sources: Mixtral (arXiv 2401.04088), DeepSeek-V2 and V3 (2405.04434, 2412.19437), gpt-oss.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace tessera::kernels {

enum class RouterScore : uint8_t { kSoftmax, kSigmoid, kSoftmaxOfTop };
enum class GroupScore : uint8_t { kMax, kTopTwo };

struct ExpertRouter {
  int32_t experts = 0;      // 1..kMaxExperts
  int32_t used = 0;         // 1..experts of the groups used
  int32_t groups = 1;       // divides experts
  int32_t groups_used = 1;  // 1..groups
  RouterScore score = RouterScore::kSoftmax;
  GroupScore group_score = GroupScore::kMax;
  bool normalise = false;
  float scale = 1.0f;
};

// Rows of one member of a launch.
struct RouteTask {
  const float* selection_bias = nullptr;  // [experts] or null
  int32_t row_begin = 0;
  int32_t row_count = 0;
};

struct RouteExpertsOp {
  static constexpr const char* kName = "route_experts";
  static constexpr int32_t kMaxExperts = 4096;
  struct Desc {
    ExpertRouter router;
  };
  // A slot is one (row, chosen expert). Slots are ordered by task, then expert, then row.
  struct Params {
    ExpertRouter router;
    std::span<const RouteTask> tasks;  // ascending and gapless rows
    float* logits = nullptr;           // [rows, experts]; overwritten
    float* choice = nullptr;           // scratch, [rows, experts]
    int32_t* experts = nullptr;        // [rows, used] in order of choice
    float* weights = nullptr;          // [rows, used]
    int32_t* slot_of = nullptr;        // [rows, used]
    int32_t* row_of = nullptr;         // [rows * used], by slot
    int32_t* first = nullptr;  // [tasks, experts + 1]: slots of expert e are first[e]..first[e + 1]
  };
};
[[nodiscard]] std::string Describe(const RouteExpertsOp::Desc& desc);

}  // namespace tessera::kernels
