#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/registry.h"

namespace tessera::kernels::cpu {
namespace {

void Gather(ExecContext& context, const GatherRowsOp::Params& p) {
  const auto* x = static_cast<const float*>(p.x);
  auto* y = static_cast<float*>(p.y);
  const double ns = 0.2 * p.width * p.count;
  ForShares(context, p.count, ns, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      std::memcpy(y + i * p.width, x + int64_t{p.rows[i]} * p.width,
                  static_cast<size_t>(p.width) * sizeof(float));
    }
  });
}

template <CpuIsa isa>
void Gate(ExecContext& context, const ClampedSwigluOp::Params& p) {
  const auto* gate = static_cast<const float*>(p.gate);
  const auto* up = static_cast<const float*>(p.up);
  auto* y = static_cast<float*>(p.y);
  const int64_t vectors = (p.count + 15) / 16;
  ForShares(context, vectors, 0.5 * static_cast<double>(p.count),
            [&](int64_t begin, int64_t end, int) {
              const int64_t from = begin * 16;
              const int64_t to = std::min(p.count, end * 16);
              Micro<isa>::kExpert.clamped_swiglu(gate + from, up + from, y + from, to - from,
                                                 p.limit, p.alpha);
            });
}

// 1 / (1 + exp(-logit)).
template <CpuIsa isa>
float Sigmoid(float logit) {
  float e, sum;
  Micro<isa>::kSample.weights(&logit, 1, 0.0f, -1.0f, &e, &sum);
  return 1.0f / (1.0f + e);
}

// Columns stay in the first-level cache while the row's experts pass.
constexpr int64_t kColumns = 512;

template <CpuIsa isa>
void CombineRow(const CombineExpertsOp::Params& p, int64_t row) {
  const auto* outputs = static_cast<const float*>(p.outputs);
  const float* shared =
      p.shared == nullptr ? nullptr : static_cast<const float*>(p.shared) + row * p.width;
  const float share = p.shared_logit == nullptr ? 1.0f : Sigmoid<isa>(p.shared_logit[row]);
  float* y = p.residual + (p.y_rows != nullptr ? p.y_rows[row] : row) * p.width;
  for (int64_t from = 0; from < p.width; from += kColumns) {
    const int64_t count = std::min<int64_t>(kColumns, p.width - from);
    float sum[kColumns] = {};
    for (int32_t k = 0; k < p.used; ++k) {
      const float* output = outputs + int64_t{p.slot_of[row * p.used + k]} * p.width + from;
      const float weight = p.weights[row * p.used + k];
      for (int64_t i = 0; i < count; ++i) sum[i] += weight * output[i];
    }
    for (int64_t i = 0; shared != nullptr && i < count; ++i) sum[i] += share * shared[from + i];
    for (int64_t i = 0; i < count; ++i) y[from + i] += p.scale * sum[i];
  }
}

template <CpuIsa isa>
void Combine(ExecContext& context, const CombineExpertsOp::Params& p) {
  const double ns = 0.2 * p.width * p.rows * (p.used + 2.0);
  ForShares(context, p.rows, ns, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) CombineRow<isa>(p, row);
  });
}

std::string MissingGather(const GatherRowsOp::Desc& desc) {
  return desc.width > 0 ? "" : absl::StrCat("width ", desc.width);
}
std::string MissingGate(const ClampedSwigluOp::Desc& desc) {
  return desc.limit > 0 ? "" : absl::StrCat("limit ", desc.limit, " (above 0)");
}
std::string MissingCombine(const CombineExpertsOp::Desc& desc) {
  return desc.width > 0 ? "" : absl::StrCat("width ", desc.width);
}

}  // namespace

void Register_expert_rows(Registry& registry) {
  registry.Add<GatherRowsOp>("gather_rows", MissingGather, Gather, Gather);
  registry.Add<ClampedSwigluOp>("clamped_swiglu", MissingGate, Gate<CpuIsa::kAvx512>,
                                Gate<CpuIsa::kAvx2>);
  registry.Add<CombineExpertsOp>("combine_experts", MissingCombine, Combine<CpuIsa::kAvx512>,
                                 Combine<CpuIsa::kAvx2>);
}

}  // namespace tessera::kernels::cpu
