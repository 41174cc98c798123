// Row-wise arithmetic: norms, the int8 activation grid, activations, soft caps.
#pragma once

#include "kernels/cpu/micro.h"
#include "kernels/cpu/simd/math.h"

namespace tessera::kernels::cpu {

template <class S>
struct RowOps {
  using F = typename S::F;
  using I = typename S::I;

  static void RmsNorm(const float* x, const float* weight, float* y, int32_t width, float epsilon) {
    F squares = S::Zero();
    int32_t i = 0;
    for (; i + 16 <= width; i += 16) {
      const F v = S::Load(x + i);
      squares = S::Fma(v, v, squares);
    }
    if (i < width) {
      const F v = S::LoadN(x + i, width - i);
      squares = S::Fma(v, v, squares);
    }
    const float mean = S::ReduceAdd(squares) / static_cast<float>(width);
    const F scale = S::Set1(1.0f / __builtin_sqrtf(mean + epsilon));
    for (i = 0; i + 16 <= width; i += 16) {
      S::Store(y + i, S::Mul(S::Mul(S::Load(x + i), scale), S::Load(weight + i)));
    }
    if (i < width) {
      const int left = width - i;
      S::StoreN(y + i, S::Mul(S::Mul(S::LoadN(x + i, left), scale), S::LoadN(weight + i, left)),
                left);
    }
  }

  // Two passes over the row: the variance is that of what is left once the mean is gone.
  static void LayerNorm(const float* x, const float* weight, const float* bias, float* y,
                        int32_t width, float epsilon) {
    F sum = S::Zero();
    int32_t i = 0;
    for (; i + 16 <= width; i += 16) sum = S::Add(sum, S::Load(x + i));
    if (i < width) sum = S::Add(sum, S::LoadN(x + i, width - i));
    const F mean = S::Set1(S::ReduceAdd(sum) / static_cast<float>(width));
    F squares = S::Zero();
    for (i = 0; i + 16 <= width; i += 16) {
      const F v = S::Sub(S::Load(x + i), mean);
      squares = S::Fma(v, v, squares);
    }
    if (i < width) {
      const int left = width - i;
      const F v = S::KeepFirst(S::Sub(S::LoadN(x + i, left), mean), left, S::Zero());
      squares = S::Fma(v, v, squares);
    }
    const float variance = S::ReduceAdd(squares) / static_cast<float>(width);
    const F scale = S::Set1(1.0f / __builtin_sqrtf(variance + epsilon));
    for (i = 0; i + 16 <= width; i += 16) {
      F v = S::Mul(S::Mul(S::Sub(S::Load(x + i), mean), scale), S::Load(weight + i));
      if (bias != nullptr) v = S::Add(v, S::Load(bias + i));
      S::Store(y + i, v);
    }
    if (i < width) {
      const int left = width - i;
      F v = S::Mul(S::Mul(S::Sub(S::LoadN(x + i, left), mean), scale), S::LoadN(weight + i, left));
      if (bias != nullptr) v = S::Add(v, S::LoadN(bias + i, left));
      S::StoreN(y + i, v, left);
    }
  }

  static void Quantize(const float* x, int8_t* q, float* scale, int16_t* sum, int32_t width) {
    const I magnitude = S::ISet1(0x7fffffff);
    for (int32_t g = 0; g < width / 32; ++g, x += 32, q += 32) {
      const F a = S::Load(x);
      const F b = S::Load(x + 16);
      // Ordered as integers, so that one not-a-number is the largest and reaches the scale.
      const I bits = S::IMax(S::IAnd(S::Bits(a), magnitude), S::IAnd(S::Bits(b), magnitude));
      const int32_t largest = S::IReduceMax(bits);
      float amax;
      __builtin_memcpy(&amax, &largest, 4);
      // Below this 127 / amax is no finite float: the group rounds to zero.
      if (amax < 1e-36f) amax = 0;
      const F inverse = S::Set1(amax > 0 ? 127.0f / amax : 0.0f);
      const I low = S::ISet1(-127);
      const I qa = S::IMax(S::ToInt(S::Mul(a, inverse)), low);
      const I qb = S::IMax(S::ToInt(S::Mul(b, inverse)), low);
      S::ToBytes(q, qa);
      S::ToBytes(q + 16, qb);
      scale[g] = amax / 127.0f;
      sum[2 * g] = static_cast<int16_t>(S::IReduceAdd(qa));
      sum[2 * g + 1] = static_cast<int16_t>(S::IReduceAdd(qb));
    }
  }

  template <ActivationKind kKind>
  TESSERA_SIMD F Activate(F x) {
    if constexpr (kKind == ActivationKind::kSilu) return Math<S>::Silu(x);
    if constexpr (kKind == ActivationKind::kGeluTanh) return Math<S>::GeluTanh(x);
    if constexpr (kKind == ActivationKind::kGelu) return Math<S>::Gelu(x);
    const F positive = S::Max(x, S::Zero());
    if constexpr (kKind == ActivationKind::kRelu2) return S::Mul(positive, positive);
    return positive;
  }

  // `up` may be null: y = activation(gate).
  template <ActivationKind kKind>
  static void Activation(const float* gate, const float* up, float* y, int64_t count) {
    int64_t i = 0;
    for (; i + 16 <= count; i += 16) {
      const F v = Activate<kKind>(S::Load(gate + i));
      S::Store(y + i, up == nullptr ? v : S::Mul(v, S::Load(up + i)));
    }
    if (i < count) {
      const int left = static_cast<int>(count - i);
      const F v = Activate<kKind>(S::LoadN(gate + i, left));
      S::StoreN(y + i, up == nullptr ? v : S::Mul(v, S::LoadN(up + i, left)), left);
    }
  }

  TESSERA_SIMD F ScaledAndCapped(F x, F scale, float cap) {
    x = S::Mul(x, scale);
    return cap > 0 ? Math<S>::SoftCap(x, S::Set1(cap)) : x;
  }

  // x = cap * tanh(x * scale / cap); cap 0: x * scale.
  static void ScaleAndCap(float* x, int64_t count, float scale, float cap) {
    const F by = S::Set1(scale);
    int64_t i = 0;
    for (; i + 16 <= count; i += 16) S::Store(x + i, ScaledAndCapped(S::Load(x + i), by, cap));
    if (i < count) {
      const int left = static_cast<int>(count - i);
      S::StoreN(x + i, ScaledAndCapped(S::LoadN(x + i, left), by, cap), left);
    }
  }
};

}  // namespace tessera::kernels::cpu
