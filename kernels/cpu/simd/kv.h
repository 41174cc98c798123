// Access to KV planes of each element type, and what is done to one token or one page of them.
#pragma once

#include "kernels/cpu/micro.h"
#include "kernels/cpu/simd/inline.h"
#include "kernels/cpu/simd/math.h"

namespace tessera::kernels::cpu {

template <class S, DType kType>
struct KvPlane {
  using F = typename S::F;
  static constexpr int kElement = kType == DType::kF32 ? 4 : 2;

  TESSERA_SIMD F Load(const std::byte* p) {
    if constexpr (kType == DType::kF32) return S::Load(reinterpret_cast<const float*>(p));
    if constexpr (kType == DType::kF16) return S::LoadF16(reinterpret_cast<const uint16_t*>(p));
    if constexpr (kType == DType::kBF16) return S::LoadBf16(reinterpret_cast<const uint16_t*>(p));
  }
  TESSERA_SIMD F LoadN(const std::byte* p, int n) {
    if constexpr (kType == DType::kF32) return S::LoadN(reinterpret_cast<const float*>(p), n);
    if constexpr (kType == DType::kF16) return S::LoadF16N(reinterpret_cast<const uint16_t*>(p), n);
    if constexpr (kType == DType::kBF16)
      return S::LoadBf16N(reinterpret_cast<const uint16_t*>(p), n);
  }

  // Sixteen or fewer floats in the plane's type.
  TESSERA_SIMD void Convert(const float* from, int n, std::byte* to) {
    if constexpr (kType == DType::kF32) {
      __builtin_memcpy(to, from, static_cast<unsigned>(n) * 4);
    } else {
      // All sixteen are stored, and what follows a tail is another row's.
      uint16_t all[16];
      uint16_t* out = n == 16 ? reinterpret_cast<uint16_t*>(to) : all;
      const F x = n == 16 ? S::Load(from) : S::LoadN(from, n);
      if constexpr (kType == DType::kF16) S::ToF16(out, x);
      if constexpr (kType == DType::kBF16) S::HighHalves(out, Bf16<S>::Round(x));
      if (n < 16) __builtin_memcpy(to, all, static_cast<unsigned>(n) * 2);
    }
  }

  static void Store(const float* k, const float* v, std::byte* k_plane, std::byte* v_plane,
                    int32_t heads, int32_t head_dim, int32_t slot) {
    alignas(64) std::byte some[64];
    for (int32_t h = 0; h < heads; ++h) {
      std::byte* keys = k_plane + (int64_t{h} * head_dim * 64 + slot) * kElement;
      std::byte* values = v_plane + (int64_t{h} * 64 + slot) * head_dim * kElement;
      for (int32_t d = 0; d < head_dim; d += 16) {
        const int n = head_dim - d < 16 ? head_dim - d : 16;
        Convert(k + h * head_dim + d, n, some);
        for (int i = 0; i < n; ++i) {
          __builtin_memcpy(keys + int64_t{d + i} * 64 * kElement, some + i * kElement, kElement);
        }
        Convert(v + h * head_dim + d, n, some);
        __builtin_memcpy(values + d * kElement, some, static_cast<unsigned>(n * kElement));
      }
    }
  }

  static void Stats(const std::byte* k_plane, float* statistics, int32_t head_dim) {
    for (int32_t d = 0; d < head_dim; ++d) {
      for (int part = 0; part < 4; ++part) {
        const F keys = Load(k_plane + (int64_t{d} * 64 + part * 16) * kElement);
        statistics[part * 2 * head_dim + d] = S::ReduceMin(keys);
        statistics[(part * 2 + 1) * head_dim + d] = S::ReduceMax(keys);
      }
    }
  }
};

template <class S>
struct Rope {
  using F = typename S::F;

  // Both of a pair are read before either is written: `to` may be `from`.
  static void Rotate(const RopeCall& c, const float* from, float* to) {
    const int32_t half = c.rotary_dim / 2;
    const int32_t step = c.interleaved != 0 ? 2 : 1;      // floats from pair to pair
    const int32_t other = c.interleaved != 0 ? 1 : half;  // from the first of a pair to the second
    for (int32_t h = 0; h < c.heads; ++h, from += c.head_dim, to += c.head_dim) {
      int32_t i = c.interleaved != 0 ? Neighbours(c, from, to) : Halves(c, from, to);
      for (; i < half; ++i) {
        const float a = from[step * i];
        const float b = from[step * i + other];
        to[step * i] = a * c.cosine[i] - b * c.sine[i];
        to[step * i + other] = a * c.sine[i] + b * c.cosine[i];
      }
      if (to != from) {
        for (i = c.rotary_dim; i < c.head_dim; ++i) to[i] = from[i];
      }
    }
  }

  // Pairs (2i, 2i + 1) of a head, as far as they fill vectors: how many.
  TESSERA_SIMD int32_t Neighbours(const RopeCall& c, const float* from, float* to) {
    int32_t i = 0;
    for (; i + 8 <= c.rotary_dim / 2; i += 8) {
      const F x = S::Load(from + 2 * i);
      const F cosine = S::LoadTwice(c.cosine + i), sine = S::LoadTwice(c.sine + i);
      S::Store(to + 2 * i, S::SubAdd(S::Mul(x, cosine), S::Mul(S::SwapPairs(x), sine)));
    }
    return i;
  }

  // The same of pairs (i, i + rotary_dim / 2).
  TESSERA_SIMD int32_t Halves(const RopeCall& c, const float* from, float* to) {
    const int32_t half = c.rotary_dim / 2;
    int32_t i = 0;
    for (; i + 16 <= half; i += 16) {
      const F a = S::Load(from + i), b = S::Load(from + half + i);
      const F cosine = S::Load(c.cosine + i), sine = S::Load(c.sine + i);
      S::Store(to + i, S::Sub(S::Mul(a, cosine), S::Mul(b, sine)));
      S::Store(to + half + i, S::Add(S::Mul(a, sine), S::Mul(b, cosine)));
    }
    return i;
  }
};

}  // namespace tessera::kernels::cpu
