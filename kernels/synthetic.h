// Weights that are made instead of stored: the canonical bytes of a tensor as a function of a few
// numbers, bit for bit the same on a host and on a device, and each word by itself.
//
// Element e (row-major) of an algorithm:
//   h = mix(seed + (e + 1) * 0x9e3779b97f4a7c15), the output function of SplitMix64
//   kNormal    n = the sum of h's four 16-bit parts - 131070: bell-shaped, |n| <= 131070, standard
//              deviation 37837.2
//   kConstant  n = 1
// and of a type, where r(x) rounds to the nearest integer, ties upwards:
//   F32                w = float32(n) * scale, one product
//   BF16               that product, rounded to nearest even
//   F8_*               c = n * 7 / 2048 rounded to e4m3, to nearest even (at most 448); w = scale c
//   I8_CHANNEL         c = r(n * 127 / 2^17);                                          w = scale c
//   I4_*               c = 8 + r(n * 7 / 2^17);                                  w = scale (c - 8)
//   I4_*_ZERO          z = 7 + the lowest bit of mix with ~seed and the group's index,
//                      c = z + r(n * 7 / 2^17);                                  w = scale (c - z)
// Every scale of a plane is `scale`. Codes, scales and zeros lie as weight_planes.h says, the gaps
// are zeros. No product here is subnormal, and there is no sum of floats, so neither flushing nor
// contraction can change a bit.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define TESSERA_SYNTHETIC __host__ __device__ __forceinline__
#else
#define TESSERA_SYNTHETIC inline
#endif

namespace tessera::kernels {

enum class SyntheticAlgorithm : uint8_t { kNormal, kConstant };
enum class SyntheticCodes : uint8_t { kF32, kBF16, kF8, kI8, kI4, kI4Zero };

// What a generator reads, by value. Made by `MakeSyntheticTensor` (synthetic_tensor.h), which
// checks the limits: scale within [2^-100, 2^16], |w| at most 60000.
struct SyntheticTensor {
  SyntheticAlgorithm algorithm = SyntheticAlgorithm::kNormal;
  SyntheticCodes codes = SyntheticCodes::kF32;
  uint32_t zero_group = 1;  // elements that share a zero point
  uint32_t scale_word = 0;  // four bytes of the scales: a float32, or a float16 twice
  float scale = 0;
  uint64_t seed = 0;
  // The planes; a type without them is codes alone.
  uint64_t codes_bytes = 0;
  uint64_t scales_offset = 0;
  uint64_t scales_bytes = 0;
  uint64_t zeros_offset = 0;
  uint64_t zeros_bytes = 0;
  uint64_t bytes = 0;
};

TESSERA_SYNTHETIC constexpr uint64_t SyntheticHash(uint64_t seed, uint64_t index) {
  uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

TESSERA_SYNTHETIC constexpr int32_t SyntheticInteger(const SyntheticTensor& t, uint64_t element) {
  if (t.algorithm == SyntheticAlgorithm::kConstant) return 1;
  const uint64_t h = SyntheticHash(t.seed, element);
  const uint32_t low = static_cast<uint32_t>(h);
  const uint32_t high = static_cast<uint32_t>(h >> 32);
  return static_cast<int32_t>((low & 0xffff) + (low >> 16) + (high & 0xffff) + (high >> 16)) -
         131070;
}

// e4m3 of n * 7 / 2048; |n| <= 131070.
TESSERA_SYNTHETIC constexpr uint32_t SyntheticF8(int32_t n) {
  const uint32_t sign = n < 0 ? 0x80 : 0;
  const uint32_t m = static_cast<uint32_t>(n < 0 ? -n : n) * 7;  // in units of 2^-11
  if (m < 32) return sign | ((m + 1 + (m >> 2 & 1)) >> 2);       // steps of 2^-9
  // The exponent of an integer that a float32 holds exactly.
  const uint32_t top = (__builtin_bit_cast(uint32_t, static_cast<float>(m)) >> 23) - 127;
  const uint32_t shift = top - 3;
  const uint32_t rounded = (m + (1u << (shift - 1)) - 1 + (m >> shift & 1)) >> shift;  // 8..16
  return sign | (((top - 4) << 3) + rounded - 8);
}

// The code of an element: the bits of a float, or 8 or 4 bits.
TESSERA_SYNTHETIC constexpr uint32_t SyntheticCode(const SyntheticTensor& t, uint64_t element) {
  const int32_t n = SyntheticInteger(t, element);
  switch (t.codes) {
    case SyntheticCodes::kF32:
    case SyntheticCodes::kBF16: {
      const uint32_t bits = __builtin_bit_cast(uint32_t, static_cast<float>(n) * t.scale);
      if (t.codes == SyntheticCodes::kF32) return bits;
      return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    }
    case SyntheticCodes::kF8:
      return SyntheticF8(n);
    case SyntheticCodes::kI8:
      return static_cast<uint32_t>((n * 127 + 65536) >> 17) & 0xff;
    case SyntheticCodes::kI4:
      return static_cast<uint32_t>(8 + ((n * 7 + 65536) >> 17));
    case SyntheticCodes::kI4Zero:
      break;
  }
  const uint32_t zero = 7 + (SyntheticHash(~t.seed, element / t.zero_group) & 1);
  return zero + static_cast<uint32_t>((n * 7 + 65536) >> 17);
}

// The four codes' bytes of word `word`.
TESSERA_SYNTHETIC constexpr uint32_t SyntheticCodesWord(const SyntheticTensor& t, uint64_t word) {
  uint32_t value = 0;
  switch (t.codes) {
    case SyntheticCodes::kF32:
      return SyntheticCode(t, word);
    case SyntheticCodes::kBF16:
      return SyntheticCode(t, 2 * word) | SyntheticCode(t, 2 * word + 1) << 16;
    case SyntheticCodes::kF8:
    case SyntheticCodes::kI8:
      for (uint32_t i = 0; i < 4; ++i) value |= SyntheticCode(t, 4 * word + i) << (8 * i);
      return value;
    case SyntheticCodes::kI4:
    case SyntheticCodes::kI4Zero:
      break;
  }
  for (uint32_t i = 0; i < 8; ++i) value |= SyntheticCode(t, 8 * word + i) << (4 * i);
  return value;
}

// `value` with the bytes past `left` bytes taken away.
TESSERA_SYNTHETIC constexpr uint32_t SyntheticFirstBytes(uint32_t value, uint64_t left) {
  return left >= 4 ? value : value & ((1u << (8 * left)) - 1);
}

// The bytes [4 * word, 4 * word + 4) of the canonical form, the first of them lowest; zeros past
// its end.
TESSERA_SYNTHETIC constexpr uint32_t SyntheticWord(const SyntheticTensor& t, uint64_t word) {
  const uint64_t at = word * 4;
  if (at < t.codes_bytes) {
    return SyntheticFirstBytes(SyntheticCodesWord(t, word), t.codes_bytes - at);
  }
  // Planes begin at multiples of 16.
  if (at >= t.scales_offset && at < t.scales_offset + t.scales_bytes) {
    return SyntheticFirstBytes(t.scale_word, t.scales_offset + t.scales_bytes - at);
  }
  if (at >= t.zeros_offset && at < t.zeros_offset + t.zeros_bytes) {
    uint32_t value = 0;
    for (uint32_t i = 0; i < 4; ++i) {
      const uint64_t group = at - t.zeros_offset + i;
      value |= static_cast<uint32_t>(7 + (SyntheticHash(~t.seed, group) & 1)) << (8 * i);
    }
    return SyntheticFirstBytes(value, t.zeros_offset + t.zeros_bytes - at);
  }
  return 0;
}

}  // namespace tessera::kernels

#undef TESSERA_SYNTHETIC
