// Row-wise arithmetic: norms, the int8 activation grid, activations, soft caps.
#pragma once

#include <immintrin.h>

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
    int32_t g = 0;
    for (; g + 4 <= width / 32; g += 4) {
      QuantizeGroups<4>(x + g * 32, q + g * 32, scale + g, sum + 2 * g);
    }
    for (; g < width / 32; ++g) {
      QuantizeGroups<1>(x + g * 32, q + g * 32, scale + g, sum + 2 * g);
    }
  }

  // Four groups or one; what is found across a group's lanes is found for all of them at a time.
  template <int kGroups>
  TESSERA_SIMD void QuantizeGroups(const float* x, int8_t* q, float* scale, int16_t* sum) {
    const I magnitude = S::ISet1(0x7fffffff);
    // Ordered as integers, so that one not-a-number is the largest and reaches the scale.
    I largest[4];
#pragma GCC unroll 4
    for (int g = 0; g < kGroups; ++g) {
      largest[g] = S::IMax(S::IAnd(S::Bits(S::Load(x + g * 32)), magnitude),
                           S::IAnd(S::Bits(S::Load(x + g * 32 + 16)), magnitude));
    }
    for (int g = kGroups; g < 4; ++g) largest[g] = S::IZero();
    __m128 amax = _mm_castsi128_ps(S::IMaxOfFour(largest));
    // Below this 127 / amax is no finite float: the group rounds to zero.
    amax = _mm_and_ps(_mm_cmpnlt_ps(amax, _mm_set1_ps(1e-36f)), amax);
    const __m128 most = _mm_set1_ps(127.0f);
    alignas(16) float inverse[4], d[4];
    _mm_store_ps(inverse, _mm_and_ps(_mm_cmpgt_ps(amax, _mm_setzero_ps()), _mm_div_ps(most, amax)));
    _mm_store_ps(d, _mm_div_ps(amax, most));
    __builtin_memcpy(scale, d, kGroups * 4);

    const I low = S::ISet1(-127);
    // Of each group the sums of eight bytes + 128.
    __m256i eights[4];
#pragma GCC unroll 4
    for (int g = 0; g < kGroups; ++g) {
      const F by = S::Set1(inverse[g]);
      const __m256i bytes =
          S::ToBytes(S::IMax(S::ToInt(S::Mul(S::Load(x + g * 32), by)), low),
                     S::IMax(S::ToInt(S::Mul(S::Load(x + g * 32 + 16), by)), low));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(q + g * 32), bytes);
      eights[g] =
          _mm256_sad_epu8(_mm256_xor_si256(bytes, _mm256_set1_epi8(-128)), _mm256_setzero_si256());
    }
    for (int g = kGroups; g < 4; ++g) eights[g] = _mm256_setzero_si256();
    StoreSums<kGroups>(eights, sum);
  }

  template <int kGroups>
  TESSERA_SIMD void StoreSums(const __m256i (&eights)[4], int16_t* sum) {
    const auto halves = [](__m256i a, __m256i b) __attribute__((always_inline)) {
      return _mm256_add_epi64(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
    };
    // The first half of each group in the lower four lanes of 32 bits, the second in the upper.
    const __m256i all = _mm256_or_si256(halves(eights[0], eights[2]),
                                        _mm256_slli_epi64(halves(eights[1], eights[3]), 32));
    const __m128i biased = _mm_or_si128(_mm256_castsi256_si128(all),
                                        _mm_slli_epi32(_mm256_extracti128_si256(all, 1), 16));
    alignas(16) int16_t out[8];
    _mm_store_si128(reinterpret_cast<__m128i*>(out),
                    _mm_sub_epi16(biased, _mm_set1_epi16(16 * 128)));
    __builtin_memcpy(sum, out, kGroups * 4);
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
