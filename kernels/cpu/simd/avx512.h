// Sixteen lanes on AVX-512 (F, BW, DQ, VL, VNNI). See simd/README in kernels/README.md for the
// rules.
//
// The kernels are templates over one of these types. Everything in it is inlined into functions
// whose names carry the type, so no code of this instruction set can be picked by the linker for
// another.
#pragma once

#if defined(__AVX512VNNI__)
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/micro.h"
#include "kernels/cpu/simd/inline.h"

namespace tessera::kernels::cpu {

struct Avx512 {
  using F = __m512;   // 16 float32
  using I = __m512i;  // 16 int32, or 64 bytes: 4 for each lane
  // Register blocks of the integer products (rows of a tile), the float ones, attention.
  static constexpr int kIntRows = 8;
  static constexpr FetchAhead AheadOf(bool) { return {8192, false}; }
  static constexpr int kFloatTiles1 = 8, kFloatTiles = 4, kFloatRows = 6;
  static constexpr int kItems = 6, kVecs = 4;
  static constexpr int kSums = 24;          // vectors of sums that leave registers for their terms
  static constexpr bool kBiasedDot = true;  // DotBiased wants the 128 * sum correction

  TESSERA_SIMD F Zero() { return _mm512_setzero_ps(); }
  TESSERA_SIMD F Set1(float v) { return _mm512_set1_ps(v); }
  TESSERA_SIMD F Load(const float* p) { return _mm512_loadu_ps(p); }
  TESSERA_SIMD void Store(float* p, F v) { _mm512_storeu_ps(p, v); }
  TESSERA_SIMD __mmask16 First(int n) { return static_cast<__mmask16>((1u << n) - 1); }
  // The first n lanes (0 < n <= 16), zeros elsewhere; memory past them is not touched.
  TESSERA_SIMD F LoadN(const float* p, int n) { return _mm512_maskz_loadu_ps(First(n), p); }
  TESSERA_SIMD void StoreN(float* p, F v, int n) { _mm512_mask_storeu_ps(p, First(n), v); }

  TESSERA_SIMD F Add(F a, F b) { return _mm512_add_ps(a, b); }
  TESSERA_SIMD F Sub(F a, F b) { return _mm512_sub_ps(a, b); }
  TESSERA_SIMD F Mul(F a, F b) { return _mm512_mul_ps(a, b); }
  TESSERA_SIMD F Div(F a, F b) { return _mm512_div_ps(a, b); }
  TESSERA_SIMD F Fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  TESSERA_SIMD F NegFma(F a, F b, F c) { return _mm512_fnmadd_ps(a, b, c); }
  // The larger; `kept` where `x` is not a number.
  TESSERA_SIMD F Max(F kept, F x) { return _mm512_max_ps(x, kept); }
  TESSERA_SIMD F Min(F kept, F x) { return _mm512_min_ps(x, kept); }
  TESSERA_SIMD F RoundEven(F x) { return _mm512_roundscale_ps(x, 8); }
  // `value` where x >= bound or x is not a number, 0 elsewhere.
  TESSERA_SIMD F ZeroWhereLess(F x, F bound, F value) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, bound, _CMP_NLT_UQ), value);
  }
  TESSERA_SIMD F SelectGreater(F x, F bound, F yes, F no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, bound, _CMP_GT_OQ), no, yes);
  }
  TESSERA_SIMD int CountGreater(F x, F bound) {
    return __builtin_popcount(_mm512_cmp_ps_mask(x, bound, _CMP_GT_OQ));
  }
  // The first n lanes of v (0 <= n), `fill` in the others.
  TESSERA_SIMD F KeepFirst(F v, int n, F fill) {
    return n >= 16 ? v : _mm512_mask_blend_ps(First(n), fill, v);
  }
  // Lanes added pairwise: i + i+8, i + i+4, i + i+2, i + i+1.
  TESSERA_SIMD float ReduceAdd(F v) {
    const __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
  }
  TESSERA_SIMD float ReduceMax(F v) {
    const __m256 a = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    const __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 c = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
  }
  TESSERA_SIMD float ReduceMin(F v) {
    const __m256 a = _mm256_min_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    const __m128 b = _mm_min_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 c = _mm_min_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_min_ss(c, _mm_movehdup_ps(c)));
  }

  TESSERA_SIMD F RoundUp(F x) { return _mm512_roundscale_ps(x, 10); }
  // p[0], p[0], p[1], p[1], ...: 8 floats.
  TESSERA_SIMD F LoadTwice(const float* p) {
    const __m512i place = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    return _mm512_permutexvar_ps(place, _mm512_castps256_ps512(_mm256_loadu_ps(p)));
  }
  TESSERA_SIMD F SwapPairs(F x) { return _mm512_permute_ps(x, 0xb1); }
  // a - b in even lanes, a + b in odd ones.
  TESSERA_SIMD F SubAdd(F a, F b) { return _mm512_mask_sub_ps(_mm512_add_ps(a, b), 0x5555, a, b); }
  // Lane i is the largest of v[i]. No vector holds what is not a number.
  TESSERA_SIMD F MaxOfEach(const F (&v)[16]) {
    F pairs[8], fours[4], eights[2];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {  // rows i % 4 + 8 * (i / 4) and 4 after it
      const F a = v[i % 4 + i / 4 * 8], b = v[i % 4 + i / 4 * 8 + 4];
      pairs[i] = _mm512_max_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const F a = pairs[i], b = pairs[i + 4];
      fours[i] = _mm512_max_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const __m512d a = _mm512_castps_pd(fours[2 * i]), b = _mm512_castps_pd(fours[2 * i + 1]);
      eights[i] = _mm512_max_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)),
                                _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
    return _mm512_max_ps(_mm512_shuffle_ps(eights[0], eights[1], 0x88),
                         _mm512_shuffle_ps(eights[0], eights[1], 0xdd));
  }
  // even[0], odd[0], even[1], ...: 32 floats.
  TESSERA_SIMD void StoreAlternating(float* p, F even, F odd) {
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    Store(p, _mm512_permutex2var_ps(even, low, odd));
    Store(p + 16, _mm512_permutex2var_ps(even, _mm512_add_epi32(low, _mm512_set1_epi32(8)), odd));
  }
  // Of each lane the low half of `low` and the high half of `high`.
  TESSERA_SIMD I Halves(I low, I high) { return _mm512_mask_blend_epi16(0xaaaaaaaa, low, high); }

  // The high half of each lane: 16 of 16 bits.
  TESSERA_SIMD void HighHalves(uint16_t* p, I v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtepi32_epi16(_mm512_srli_epi32(v, 16)));
  }

  TESSERA_SIMD F LoadF16(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  TESSERA_SIMD F LoadF16N(const uint16_t* p, int n) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(First(n), p));
  }
  TESSERA_SIMD F LoadBf16(const uint16_t* p) {
    const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
  }
  TESSERA_SIMD F LoadBf16N(const uint16_t* p, int n) {
    const __m256i v = _mm256_maskz_loadu_epi16(First(n), p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
  }
  // Sixteen e4m3 codes. As float16 bits they mean 2^-8 of their value, but for what is no number.
  TESSERA_SIMD F LoadE4m3(const std::byte* p) {
    const __m256i v = _mm256_slli_epi16(_mm256_cvtepu8_epi16(Load16(p)), 8);
    const __m256i magnitude = _mm256_srli_epi16(_mm256_and_si256(v, _mm256_set1_epi16(0x7f00)), 1);
    const __m256i nan = _mm256_and_si256(_mm256_cmpeq_epi16(magnitude, _mm256_set1_epi16(0x3f80)),
                                         _mm256_set1_epi16(0x7c00));
    const __m256i sign = _mm256_andnot_si256(_mm256_set1_epi16(0x7fff), v);
    const __m256i half = _mm256_or_si256(_mm256_or_si256(sign, magnitude), nan);
    return _mm512_mul_ps(_mm512_cvtph_ps(half), _mm512_set1_ps(256.0f));
  }
  TESSERA_SIMD void ToF16(uint16_t* p, F v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v, 0));
  }

  TESSERA_SIMD I IZero() { return _mm512_setzero_si512(); }
  TESSERA_SIMD I ISet1(int32_t v) { return _mm512_set1_epi32(v); }
  TESSERA_SIMD I Broadcast4(const void* p) {  // the same 4 bytes in each lane
    int32_t v;
    __builtin_memcpy(&v, p, 4);
    return _mm512_set1_epi32(v);
  }
  TESSERA_SIMD I ILoad(const void* p) { return _mm512_loadu_si512(p); }
  // The first n of 32 elements of 16 bits, zeros elsewhere.
  TESSERA_SIMD I ILoad16N(const void* p, int n) {
    return _mm512_maskz_loadu_epi16(n < 32 ? (1u << n) - 1 : ~0u, p);
  }
  TESSERA_SIMD void IStore(void* p, I v) { _mm512_storeu_si512(p, v); }
  TESSERA_SIMD __m128i Load16(const std::byte* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  }
  // Sixteen bytes, unsigned or signed.
  TESSERA_SIMD I LoadU8(const std::byte* p) { return _mm512_cvtepu8_epi32(Load16(p)); }
  TESSERA_SIMD I LoadU16(const uint16_t* p) {  // sixteen
    return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  TESSERA_SIMD I LoadI8(const std::byte* p) { return _mm512_cvtepi8_epi32(Load16(p)); }
  TESSERA_SIMD I ISub(I a, I b) { return _mm512_sub_epi32(a, b); }
  TESSERA_SIMD I IAdd(I a, I b) { return _mm512_add_epi32(a, b); }
  TESSERA_SIMD I IMax(I a, I b) { return _mm512_max_epi32(a, b); }
  template <int kBits>
  TESSERA_SIMD I IShl(I a) {
    return _mm512_slli_epi32(a, kBits);
  }
  template <int kBits>
  TESSERA_SIMD I IShr(I a) {
    return _mm512_srli_epi32(a, kBits);
  }
  TESSERA_SIMD I IAnd(I a, I b) { return _mm512_and_si512(a, b); }
  TESSERA_SIMD I IOr(I a, I b) { return _mm512_or_si512(a, b); }
  TESSERA_SIMD F ToFloat(I a) { return _mm512_cvtepi32_ps(a); }
  TESSERA_SIMD I ToInt(F a) { return _mm512_cvtps_epi32(a); }
  TESSERA_SIMD I Bits(F a) { return _mm512_castps_si512(a); }
  TESSERA_SIMD F FromBits(I a) { return _mm512_castsi512_ps(a); }
  TESSERA_SIMD int32_t IReduceMax(I v) { return _mm512_reduce_max_epi32(v); }
  // Lane i is the largest lane of v[i].
  TESSERA_SIMD __m128i IMaxOfFour(const I (&v)[4]) {
    const auto both = [](I a, I b) __attribute__((always_inline)) {
      return _mm512_max_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    };
    const I ab = both(v[0], v[1]), cd = both(v[2], v[3]);
    const I all = _mm512_max_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    const __m256i half =
        _mm256_max_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
    return _mm_max_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  }
  // 32 int32 in [-128, 127] to bytes.
  TESSERA_SIMD __m256i ToBytes(I a, I b) {
    return _mm256_set_m128i(_mm512_cvtepi32_epi8(b), _mm512_cvtepi32_epi8(a));
  }
  // The bits of kMask of each byte, after it is shifted right (left where kShift is negative).
  template <int kShift, int kMask>
  TESSERA_SIMD I Bits(I v) {
    if constexpr (kShift > 0) v = _mm512_srli_epi16(v, kShift);
    if constexpr (kShift < 0) v = _mm512_slli_epi16(v, -kShift);
    return _mm512_and_si512(v, _mm512_set1_epi8(static_cast<char>(kMask)));
  }
  // Sixteen bytes to look up by codes below 16.
  TESSERA_SIMD I TableOf(const uint8_t* values) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(values)));
  }
  TESSERA_SIMD I Lookup(I table, I codes) { return _mm512_shuffle_epi8(table, codes); }
  // Four bytes a lane.
  TESSERA_SIMD I ISet8(int v) { return _mm512_set1_epi8(static_cast<char>(v)); }
  TESSERA_SIMD I ISub8(I a, I b) { return _mm512_sub_epi8(a, b); }
  // Two signed 16-bit values a lane.
  TESSERA_SIMD I ISet16(int v) { return _mm512_set1_epi16(static_cast<int16_t>(v)); }
  TESSERA_SIMD I ISub16(I a, I b) { return _mm512_sub_epi16(a, b); }
  template <int kBits>
  TESSERA_SIMD I ISra16(I a) {
    return _mm512_srai_epi16(a, kBits);
  }
  // A lane's two products, summed in 32 bits.
  TESSERA_SIMD I IMadd16(I a, I b) { return _mm512_madd_epi16(a, b); }
  // ShortEnd(start, ShortStart(start) after DotShortAt of at most ShortSteps registers) = start +
  // the sums of a lane's products: unsigned bytes up to `largest` with signed bytes above -128.
  static constexpr int ShortSteps(int) { return 8; }
  TESSERA_SIMD I ShortStart(I start) { return start; }
  TESSERA_SIMD I ShortEnd(I, I sum) { return sum; }
  // The scale of one half of a group from a lane's two, as ShortEndScaled takes it.
  template <int kHalf>
  TESSERA_SIMD I HalfScale(I scales) {
    return _mm512_srai_epi32(kHalf == 0 ? _mm512_slli_epi32(scales, 16) : scales, 16);
  }
  // start + scale * the sums of DotShortAt from zeros.
  TESSERA_SIMD I ShortEndScaled(I start, I sum, I scale) {
    return _mm512_add_epi32(start, _mm512_mullo_epi32(sum, scale));
  }
  // acc + the sum of a lane's 4 products with the bytes at `x`. The instruction reads them itself,
  // which GCC does not see: a load less for each product.
  TESSERA_SIMD I DotAt(I acc, I w, const int8_t* x) {
    __asm__("vpdpbusd %2%{1to16%}, %1, %0"
            : "+v"(acc)
            : "v"(w), "m"(*reinterpret_cast<const int8_t(*)[4]>(x)));
    return acc;
  }
  TESSERA_SIMD I DotShortAt(I acc, I w, const int8_t* x) { return DotAt(acc, w, x); }
  // w = signed byte + 128: exact after 128 * sum(x) is taken off when kBiasedDot.
  TESSERA_SIMD I DotBiasedAt(I acc, I w, const int8_t* x) { return DotAt(acc, w, x); }
};

}  // namespace tessera::kernels::cpu
#endif
