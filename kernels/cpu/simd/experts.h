// Row-wise arithmetic of experts.
#pragma once

#include "kernels/cpu/micro.h"
#include "kernels/cpu/simd/math.h"

namespace tessera::kernels::cpu {

template <class S>
struct ExpertOps {
  using F = typename S::F;

  TESSERA_SIMD F Clamped(F gate, F up, float limit, float alpha) {
    const F one = S::Set1(1.0f);
    // Min and Max keep their first argument where it is not a number.
    const F g = S::Min(gate, S::Set1(limit));
    const F u = S::Max(S::Min(up, S::Set1(limit)), S::Set1(-limit));
    const F glu = S::Div(g, S::Add(one, Math<S>::Exp(S::Mul(g, S::Set1(-alpha)))));
    return S::Mul(S::Add(u, one), glu);
  }

  static void ClampedSwiglu(const float* gate, const float* up, float* y, int64_t count,
                            float limit, float alpha) {
    int64_t i = 0;
    for (; i + 16 <= count; i += 16) {
      S::Store(y + i, Clamped(S::Load(gate + i), S::Load(up + i), limit, alpha));
    }
    if (i < count) {
      const int left = static_cast<int>(count - i);
      S::StoreN(y + i, Clamped(S::LoadN(gate + i, left), S::LoadN(up + i, left), limit, alpha),
                left);
    }
  }
};

}  // namespace tessera::kernels::cpu
