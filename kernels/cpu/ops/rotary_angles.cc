#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/registry.h"

namespace tessera::kernels::cpu {
namespace {

void Run(ExecContext& context, const RotaryAnglesOp::Params& p) {
  ForShares(context, p.rows, 20.0 * p.pairs * p.rows, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t i = 0; i < p.pairs; ++i) {
        const float angle = static_cast<float>(p.positions[row]) * p.frequencies[i];
        p.cosine[row * p.pairs + i] = std::cos(angle) * p.scale;
        p.sine[row * p.pairs + i] = std::sin(angle) * p.scale;
      }
    }
  });
}

std::string Missing(const RotaryAnglesOp::Desc& desc) {
  return desc.pairs > 0 ? "" : absl::StrCat("pairs ", desc.pairs);
}

}  // namespace

void Register_rotary_angles(Registry& registry) {
  registry.Add<RotaryAnglesOp>("rotary_angles", Missing, Run, Run);
}

}  // namespace tessera::kernels::cpu
