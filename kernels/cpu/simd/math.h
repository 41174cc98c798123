// exp, tanh and the sigmoid family over sixteen lanes, the same bits on every instruction set.
#pragma once

#include <cstdint>

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

  // x/2 * (1 + erf(x / sqrt(2))) = x * Phi(x). With z = |x| / sqrt(2), erfc(z) is
  // t exp(-z^2 + P(t)), t = 1 / (1 + z/2): the Chebyshev fit of Numerical Recipes (6.2), relative
  // error below 1.2e-7.
  TESSERA_SIMD F Gelu(F x) {
    const F z = S::Mul(Abs(x), S::Set1(0.70710678f));
    const F t = S::Div(S::Set1(1.0f), S::Fma(z, S::Set1(0.5f), S::Set1(1.0f)));
    F p = S::Set1(0.17087277f);
    p = S::Fma(p, t, S::Set1(-0.82215223f));
    p = S::Fma(p, t, S::Set1(1.48851587f));
    p = S::Fma(p, t, S::Set1(-1.13520398f));
    p = S::Fma(p, t, S::Set1(0.27886807f));
    p = S::Fma(p, t, S::Set1(-0.18628806f));
    p = S::Fma(p, t, S::Set1(0.09678418f));
    p = S::Fma(p, t, S::Set1(0.37409196f));
    p = S::Fma(p, t, S::Set1(1.00002368f));
    p = S::Fma(p, t, S::Set1(-1.26551223f));
    const F tail = S::Mul(S::Mul(t, S::Set1(0.5f)), ExpUpTo90(S::NegFma(z, z, p)));
    return S::Mul(x, S::SelectGreater(x, S::Zero(), S::Sub(S::Set1(1.0f), tail), tail));
  }

  // tanh(x): below 0.625 an odd polynomial (that of Cephes's tanhf), so that small x keep their
  // digits; above 1 - 2 / (exp(2 |x|) + 1).
  TESSERA_SIMD F Tanh(F x) {
    const F a = Abs(x);
    const F s = S::Mul(a, a);
    F p = S::Set1(-5.70498872745e-3f);
    p = S::Fma(p, s, S::Set1(2.06390887954e-2f));
    p = S::Fma(p, s, S::Set1(-5.37397155531e-2f));
    p = S::Fma(p, s, S::Set1(1.33314422036e-1f));
    p = S::Fma(p, s, S::Set1(-3.33332819422e-1f));
    p = S::Fma(S::Mul(p, s), a, a);
    const F e = S::Add(Exp(S::Add(a, a)), S::Set1(1.0f));
    const F big = S::Sub(S::Set1(1.0f), S::Div(S::Set1(2.0f), e));
    const F positive = S::SelectGreater(a, S::Set1(0.625f), big, p);
    return S::SelectGreater(S::Zero(), x, S::Sub(S::Zero(), positive), positive);
  }

  // cap * tanh(x / cap)
  TESSERA_SIMD F SoftCap(F x, F cap) { return S::Mul(cap, Tanh(S::Div(x, cap))); }

 private:
  TESSERA_SIMD F Abs(F x) { return S::FromBits(S::IAnd(S::Bits(x), S::ISet1(0x7fffffff))); }
};

template <class S>
struct Bf16 {
  using F = typename S::F;
  using I = typename S::I;

  // The high half of each lane is x in bf16: nearest, ties to even; not-a-number stays.
  TESSERA_SIMD I Round(F x) {
    const I bits = S::Bits(x);
    const I odd = S::IAnd(S::template IShr<16>(bits), S::ISet1(1));
    const I rounded = S::IAdd(bits, S::IAdd(odd, S::ISet1(0x7fff)));
    const I quiet = S::IOr(bits, S::ISet1(0x400000));
    // What is not a number could round to one.
    const F magnitude = S::FromBits(S::IAnd(bits, S::ISet1(0x7fffffff)));
    return S::Bits(
        S::SelectGreater(magnitude, S::Set1(-1.0f), S::FromBits(rounded), S::FromBits(quiet)));
  }
  // The same with zeros below: as a float.
  TESSERA_SIMD I Rounded(F x) {
    return S::IAnd(Round(x), S::ISet1(static_cast<int32_t>(0xffff0000)));
  }
};

}  // namespace tessera::kernels::cpu
