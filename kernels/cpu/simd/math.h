// exp and the sigmoid family over sixteen lanes, the same bits on every instruction set.
#pragma once

#include "kernels/cpu/simd/inline.h"

namespace tessera::kernels::cpu {

template <class S>
struct Math {
  using F = typename S::F;

  // exp(x), relative error below 2e-7. Below -87.33 the result is 0, above 88.7228 infinity; exp(0)
  // is 1 exactly; not-a-number stays.
  TESSERA_SIMD F Exp(F x) {
    const F p = ExpUpTo90(S::Min(x, S::Set1(90.0f)));
    return S::SelectGreater(x, S::Set1(88.7228f), S::Set1(__builtin_inff()), p);
  }

  // The same for x <= 90.
  TESSERA_SIMD F ExpUpTo90(F x) {
    // Max and Min keep their first argument where it is not a number.
    const F bounded = S::Max(x, S::Set1(-90.0f));
    const F n = S::RoundEven(S::Mul(bounded, S::Set1(1.44269504f)));
    F r = S::NegFma(n, S::Set1(0.693145751953125f), bounded);
    r = S::NegFma(n, S::Set1(1.42860677e-6f), r);
    F p = S::Set1(1.0f / 720);
    p = S::Fma(p, r, S::Set1(1.0f / 120));
    p = S::Fma(p, r, S::Set1(1.0f / 24));
    p = S::Fma(p, r, S::Set1(1.0f / 6));
    p = S::Fma(p, r, S::Set1(0.5f));
    p = S::Fma(S::Mul(r, r), p, r);
    p = S::Add(p, S::Set1(1.0f));
    // Between -87.33 and 88.7228 the exponent stays in 1..254; what wraps outside is replaced.
    p = S::FromBits(S::IAdd(S::Bits(p), S::template IShl<23>(S::ToInt(n))));
    return S::ZeroWhereLess(x, S::Set1(-87.33f), p);
  }

  // x / (1 + exp(-x))
  TESSERA_SIMD F Silu(F x) { return S::Div(x, S::Add(S::Set1(1.0f), Exp(S::Sub(S::Zero(), x)))); }

  // x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))), written as x * sigmoid(2u).
  TESSERA_SIMD F GeluTanh(F x) {
    const F inner = S::Fma(S::Mul(S::Mul(x, x), x), S::Set1(0.044715f), x);
    return S::Div(x, S::Add(S::Set1(1.0f), Exp(S::Mul(inner, S::Set1(-1.5957691216f)))));
  }
};

}  // namespace tessera::kernels::cpu
