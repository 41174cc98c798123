// Sixteen lanes on AVX2, FMA and F16C: two registers a vector. Lane for lane the same results as
// simd/avx512.h.
#pragma once

#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/micro.h"
#include "kernels/cpu/simd/inline.h"

namespace tessera::kernels::cpu {

struct Avx2 {
  struct F {
    __m256 lo, hi;
  };
  struct I {
    __m256i lo, hi;
  };
  // One row: a second tile's stream of memory costs more than what it shares (measured: 4.5 GB/s of
  // Q4_1 with two, 7.2 with one, 9.1 with one that is asked for ahead, where reading takes 8.4).
  static constexpr int kIntRows = 4;
  // `wide`: codes of 8 bits.
  static constexpr FetchAhead AheadOf(bool wide) {
    return wide ? FetchAhead{4096, false} : FetchAhead{1024, true};
  }
  static constexpr int kFloatTiles1 = 4, kFloatTiles = 2, kFloatRows = 3;
  static constexpr int kItems = 6, kVecs = 1;
  static constexpr int kSums = 6;
  static constexpr bool kBiasedDot = false;

  TESSERA_SIMD F Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  TESSERA_SIMD F Set1(float v) { return {_mm256_set1_ps(v), _mm256_set1_ps(v)}; }
  TESSERA_SIMD F Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  TESSERA_SIMD void Store(float* p, F v) {
    _mm256_storeu_ps(p, v.lo);
    _mm256_storeu_ps(p + 8, v.hi);
  }
  TESSERA_SIMD __m256i First8(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  TESSERA_SIMD F LoadN(const float* p, int n) {
    F v;
    v.lo = _mm256_maskload_ps(p, First8(n));
    v.hi = n > 8 ? _mm256_maskload_ps(p + 8, First8(n - 8)) : _mm256_setzero_ps();
    return v;
  }
  TESSERA_SIMD void StoreN(float* p, F v, int n) {
    _mm256_maskstore_ps(p, First8(n), v.lo);
    if (n > 8) _mm256_maskstore_ps(p + 8, First8(n - 8), v.hi);
  }

  TESSERA_SIMD F Add(F a, F b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
  TESSERA_SIMD F Sub(F a, F b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
  TESSERA_SIMD F Mul(F a, F b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
  TESSERA_SIMD F Div(F a, F b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
  TESSERA_SIMD F Fma(F a, F b, F c) {
    return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
  }
  TESSERA_SIMD F NegFma(F a, F b, F c) {
    return {_mm256_fnmadd_ps(a.lo, b.lo, c.lo), _mm256_fnmadd_ps(a.hi, b.hi, c.hi)};
  }
  TESSERA_SIMD F Max(F kept, F x) {
    return {_mm256_max_ps(x.lo, kept.lo), _mm256_max_ps(x.hi, kept.hi)};
  }
  TESSERA_SIMD F Min(F kept, F x) {
    return {_mm256_min_ps(x.lo, kept.lo), _mm256_min_ps(x.hi, kept.hi)};
  }
  TESSERA_SIMD F RoundEven(F x) { return {_mm256_round_ps(x.lo, 8), _mm256_round_ps(x.hi, 8)}; }
  TESSERA_SIMD F ZeroWhereLess(F x, F bound, F value) {
    return {_mm256_and_ps(_mm256_cmp_ps(x.lo, bound.lo, _CMP_NLT_UQ), value.lo),
            _mm256_and_ps(_mm256_cmp_ps(x.hi, bound.hi, _CMP_NLT_UQ), value.hi)};
  }
  TESSERA_SIMD F SelectGreater(F x, F bound, F yes, F no) {
    return {_mm256_blendv_ps(no.lo, yes.lo, _mm256_cmp_ps(x.lo, bound.lo, _CMP_GT_OQ)),
            _mm256_blendv_ps(no.hi, yes.hi, _mm256_cmp_ps(x.hi, bound.hi, _CMP_GT_OQ))};
  }
  TESSERA_SIMD int CountGreater(F x, F bound) {
    const int lo = _mm256_movemask_ps(_mm256_cmp_ps(x.lo, bound.lo, _CMP_GT_OQ));
    const int hi = _mm256_movemask_ps(_mm256_cmp_ps(x.hi, bound.hi, _CMP_GT_OQ));
    return __builtin_popcount(static_cast<unsigned>(lo | hi << 8));
  }
  TESSERA_SIMD F KeepFirst(F v, int n, F fill) {
    if (n >= 16) return v;
    return {_mm256_blendv_ps(fill.lo, v.lo, _mm256_castsi256_ps(First8(n))),
            _mm256_blendv_ps(fill.hi, v.hi, _mm256_castsi256_ps(First8(n - 8)))};
  }
  TESSERA_SIMD float ReduceAdd(F v) {
    const __m256 a = _mm256_add_ps(v.lo, v.hi);
    const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
  }
  TESSERA_SIMD float ReduceMax(F v) {
    const __m256 a = _mm256_max_ps(v.lo, v.hi);
    const __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 c = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
  }
  TESSERA_SIMD float ReduceMin(F v) {
    const __m256 a = _mm256_min_ps(v.lo, v.hi);
    const __m128 b = _mm_min_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 c = _mm_min_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_min_ss(c, _mm_movehdup_ps(c)));
  }

  TESSERA_SIMD F LoadTwice(const float* p) {
    const __m256 x = _mm256_loadu_ps(p);
    const __m256 low = _mm256_unpacklo_ps(x, x), high = _mm256_unpackhi_ps(x, x);
    return {_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31)};
  }
  TESSERA_SIMD F SwapPairs(F x) {
    return {_mm256_permute_ps(x.lo, 0xb1), _mm256_permute_ps(x.hi, 0xb1)};
  }
  TESSERA_SIMD F SubAdd(F a, F b) {
    return {_mm256_addsub_ps(a.lo, b.lo), _mm256_addsub_ps(a.hi, b.hi)};
  }
  TESSERA_SIMD F RoundUp(F x) { return {_mm256_round_ps(x.lo, 10), _mm256_round_ps(x.hi, 10)}; }
  TESSERA_SIMD F MaxOfEach(const F (&v)[16]) {
    float largest[16];
    for (int i = 0; i < 16; ++i) largest[i] = ReduceMax(v[i]);
    return Load(largest);
  }
  TESSERA_SIMD void StoreAlternating(float* p, F even, F odd) {
    float a[16], b[16];
    Store(a, even);
    Store(b, odd);
    for (int i = 0; i < 16; ++i) {
      p[2 * i] = a[i];
      p[2 * i + 1] = b[i];
    }
  }
  TESSERA_SIMD I Halves(I low, I high) {
    return {_mm256_blend_epi16(low.lo, high.lo, 0xaa), _mm256_blend_epi16(low.hi, high.hi, 0xaa)};
  }

  TESSERA_SIMD void HighHalves(uint16_t* p, I v) {
    const __m256i both =
        _mm256_packus_epi32(_mm256_srli_epi32(v.lo, 16), _mm256_srli_epi32(v.hi, 16));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(both, 0xd8));
  }

  TESSERA_SIMD __m128i Load8x16(const uint16_t* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  }
  TESSERA_SIMD F LoadF16(const uint16_t* p) {
    return {_mm256_cvtph_ps(Load8x16(p)), _mm256_cvtph_ps(Load8x16(p + 8))};
  }
  TESSERA_SIMD F LoadF16N(const uint16_t* p, int n) {
    alignas(32) uint16_t copy[16] = {};
    __builtin_memcpy(copy, p, static_cast<unsigned>(n) * 2);
    return LoadF16(copy);
  }
  TESSERA_SIMD __m256 WidenBf16(const uint16_t* p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(Load8x16(p)), 16));
  }
  TESSERA_SIMD F LoadBf16(const uint16_t* p) { return {WidenBf16(p), WidenBf16(p + 8)}; }
  TESSERA_SIMD F LoadBf16N(const uint16_t* p, int n) {
    alignas(32) uint16_t copy[16] = {};
    __builtin_memcpy(copy, p, static_cast<unsigned>(n) * 2);
    return LoadBf16(copy);
  }
  TESSERA_SIMD __m128i Load16(const std::byte* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  }
  TESSERA_SIMD F LoadE4m3(const std::byte* p) {
    const __m256i v = _mm256_slli_epi16(_mm256_cvtepu8_epi16(Load16(p)), 8);
    const __m256i magnitude = _mm256_srli_epi16(_mm256_and_si256(v, _mm256_set1_epi16(0x7f00)), 1);
    const __m256i nan = _mm256_and_si256(_mm256_cmpeq_epi16(magnitude, _mm256_set1_epi16(0x3f80)),
                                         _mm256_set1_epi16(0x7c00));
    const __m256i sign = _mm256_andnot_si256(_mm256_set1_epi16(0x7fff), v);
    const __m256i half = _mm256_or_si256(_mm256_or_si256(sign, magnitude), nan);
    return Mul({_mm256_cvtph_ps(_mm256_castsi256_si128(half)),
                _mm256_cvtph_ps(_mm256_extracti128_si256(half, 1))},
               Set1(256.0f));
  }
  TESSERA_SIMD void ToF16(uint16_t* p, F v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v.lo, 0));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(v.hi, 0));
  }

  TESSERA_SIMD I IZero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  TESSERA_SIMD I ISet1(int32_t v) { return {_mm256_set1_epi32(v), _mm256_set1_epi32(v)}; }
  TESSERA_SIMD I Broadcast4(const void* p) {
    int32_t v;
    __builtin_memcpy(&v, p, 4);
    return ISet1(v);
  }
  TESSERA_SIMD I ILoad(const void* p) {
    const __m256i* q = static_cast<const __m256i*>(p);
    return {_mm256_loadu_si256(q), _mm256_loadu_si256(q + 1)};
  }
  TESSERA_SIMD I ILoad16N(const void* p, int n) {
    alignas(32) uint16_t copy[32] = {};
    __builtin_memcpy(copy, p, static_cast<unsigned>(n) * 2);
    return ILoad(copy);
  }
  TESSERA_SIMD void IStore(void* p, I v) {
    __m256i* q = static_cast<__m256i*>(p);
    _mm256_storeu_si256(q, v.lo);
    _mm256_storeu_si256(q + 1, v.hi);
  }
  TESSERA_SIMD I LoadU8(const std::byte* p) {
    const __m128i v = Load16(p);
    return {_mm256_cvtepu8_epi32(v), _mm256_cvtepu8_epi32(_mm_srli_si128(v, 8))};
  }
  TESSERA_SIMD I LoadU16(const uint16_t* p) {
    return {_mm256_cvtepu16_epi32(Load8x16(p)), _mm256_cvtepu16_epi32(Load8x16(p + 8))};
  }
  TESSERA_SIMD I LoadI8(const std::byte* p) {
    const __m128i v = Load16(p);
    return {_mm256_cvtepi8_epi32(v), _mm256_cvtepi8_epi32(_mm_srli_si128(v, 8))};
  }
  TESSERA_SIMD I ISub(I a, I b) {
    return {_mm256_sub_epi32(a.lo, b.lo), _mm256_sub_epi32(a.hi, b.hi)};
  }
  TESSERA_SIMD I IAdd(I a, I b) {
    return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)};
  }
  TESSERA_SIMD I IMax(I a, I b) {
    return {_mm256_max_epi32(a.lo, b.lo), _mm256_max_epi32(a.hi, b.hi)};
  }
  template <int kBits>
  TESSERA_SIMD I IShl(I a) {
    return {_mm256_slli_epi32(a.lo, kBits), _mm256_slli_epi32(a.hi, kBits)};
  }
  template <int kBits>
  TESSERA_SIMD I IShr(I a) {
    return {_mm256_srli_epi32(a.lo, kBits), _mm256_srli_epi32(a.hi, kBits)};
  }
  TESSERA_SIMD I IAnd(I a, I b) {
    return {_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)};
  }
  TESSERA_SIMD I IOr(I a, I b) {
    return {_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)};
  }
  TESSERA_SIMD F ToFloat(I a) { return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }
  TESSERA_SIMD I ToInt(F a) { return {_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi)}; }
  TESSERA_SIMD I Bits(F a) { return {_mm256_castps_si256(a.lo), _mm256_castps_si256(a.hi)}; }
  TESSERA_SIMD F FromBits(I a) { return {_mm256_castsi256_ps(a.lo), _mm256_castsi256_ps(a.hi)}; }
  TESSERA_SIMD int32_t IReduceMax(I v) {
    const __m256i a = _mm256_max_epi32(v.lo, v.hi);
    __m128i b = _mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    b = _mm_max_epi32(b, _mm_shuffle_epi32(b, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(b, _mm_shuffle_epi32(b, 0xb1)));
  }
  TESSERA_SIMD __m128i IMaxOfFour(const I (&v)[4]) {
    const auto both = [](I a, I b) __attribute__((always_inline)) {
      const __m256i x = _mm256_max_epi32(a.lo, a.hi), y = _mm256_max_epi32(b.lo, b.hi);
      return _mm256_max_epi32(_mm256_unpacklo_epi32(x, y), _mm256_unpackhi_epi32(x, y));
    };
    const __m256i ab = both(v[0], v[1]), cd = both(v[2], v[3]);
    const __m256i all =
        _mm256_max_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
    return _mm_max_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
  }
  TESSERA_SIMD __m256i ToBytes(I a, I b) {
    const __m256i all =
        _mm256_packs_epi16(_mm256_packs_epi32(a.lo, a.hi), _mm256_packs_epi32(b.lo, b.hi));
    return _mm256_permutevar8x32_epi32(all, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  }
  template <int kShift>
  TESSERA_SIMD __m256i ShiftRight16(__m256i v) {
    if constexpr (kShift > 0) return _mm256_srli_epi16(v, kShift);
    if constexpr (kShift < 0) return _mm256_slli_epi16(v, -kShift);
    return v;
  }
  template <int kShift, int kMask>
  TESSERA_SIMD I Bits(I v) {
    const __m256i mask = _mm256_set1_epi8(static_cast<char>(kMask));
    return {_mm256_and_si256(ShiftRight16<kShift>(v.lo), mask),
            _mm256_and_si256(ShiftRight16<kShift>(v.hi), mask)};
  }
  TESSERA_SIMD I TableOf(const uint8_t* values) {
    const __m256i table =
        _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(values)));
    return {table, table};
  }
  TESSERA_SIMD I Lookup(I table, I codes) {
    return {_mm256_shuffle_epi8(table.lo, codes.lo), _mm256_shuffle_epi8(table.hi, codes.hi)};
  }
  TESSERA_SIMD I ISet8(int v) {
    const __m256i all = _mm256_set1_epi8(static_cast<char>(v));
    return {all, all};
  }
  TESSERA_SIMD I ISub8(I a, I b) {
    return {_mm256_sub_epi8(a.lo, b.lo), _mm256_sub_epi8(a.hi, b.hi)};
  }
  TESSERA_SIMD I ISet16(int v) {
    const __m256i all = _mm256_set1_epi16(static_cast<int16_t>(v));
    return {all, all};
  }
  TESSERA_SIMD I ISub16(I a, I b) {
    return {_mm256_sub_epi16(a.lo, b.lo), _mm256_sub_epi16(a.hi, b.hi)};
  }
  template <int kBits>
  TESSERA_SIMD I ISra16(I a) {
    return {_mm256_srai_epi16(a.lo, kBits), _mm256_srai_epi16(a.hi, kBits)};
  }
  TESSERA_SIMD I IMadd16(I a, I b) {
    return {_mm256_madd_epi16(a.lo, b.lo), _mm256_madd_epi16(a.hi, b.hi)};
  }
  TESSERA_SIMD __m256i Dot(__m256i acc, __m256i w, __m256i x) {
    const __m256i pairs = _mm256_maddubs_epi16(w, x);
    return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
  // Each step adds the products of a pair to 16 bits of a lane, two to a lane.
  static constexpr int ShortSteps(int largest) {
    int steps = 1;
    while (steps < 8 && 2 * steps * 2 * largest * 127 < 1 << 15) steps *= 2;
    return steps;
  }
  TESSERA_SIMD I ShortStart(I) { return IZero(); }
  TESSERA_SIMD I DotShort(I sum, I w, I x) {
    return {_mm256_add_epi16(sum.lo, _mm256_maddubs_epi16(w.lo, x.lo)),
            _mm256_add_epi16(sum.hi, _mm256_maddubs_epi16(w.hi, x.hi))};
  }
  TESSERA_SIMD I ShortEnd(I start, I sum) { return IAdd(start, IMadd16(sum, ISet16(1))); }
  template <int kHalf>
  TESSERA_SIMD I HalfScale(I scales) {
    constexpr int kBoth = kHalf == 0 ? 0xa0 : 0xf5;  // 16-bit places 0, 0, 2, 2 or 1, 1, 3, 3
    return {
        _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(scales.lo, kBoth), kBoth),
        _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(scales.hi, kBoth), kBoth),
    };
  }
  TESSERA_SIMD I ShortEndScaled(I start, I sum, I scale) {
    return IAdd(start, IMadd16(sum, scale));
  }
  // maddubs would saturate on biased bytes, so the sign moves to x: |w| <= 128 and |x| <= 127 keep
  // a pair within 32512.
  TESSERA_SIMD __m256i DotSigned(__m256i acc, __m256i w, __m256i x) {
    return Dot(acc, _mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
  }
  TESSERA_SIMD I DotBiased(I acc, I w, I x) {
    const __m256i bias = _mm256_set1_epi8(-128);
    return {DotSigned(acc.lo, _mm256_xor_si256(w.lo, bias), x.lo),
            DotSigned(acc.hi, _mm256_xor_si256(w.hi, bias), x.hi)};
  }
  // The same with the 4 bytes at `x` in each lane.
  TESSERA_SIMD I DotShortAt(I acc, I w, const int8_t* x) { return DotShort(acc, w, Broadcast4(x)); }
  TESSERA_SIMD I DotBiasedAt(I acc, I w, const int8_t* x) {
    return DotBiased(acc, w, Broadcast4(x));
  }
};

}  // namespace tessera::kernels::cpu
#endif
