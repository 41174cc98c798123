// Scales and minima of the groups of one unit (cpu/block_tile.h), sixteen outputs at a time.
#pragma once

#include "kernels/cpu/block_tile.h"
#include "kernels/cpu/micro.h"
#include "kernels/cpu/simd/inline.h"

namespace tessera::kernels::cpu {

template <class S, DType kType>
struct BlockScales {
  using F = typename S::F;
  using I = typename S::I;
  static constexpr BlockFormat kFormat = BlockFormatOf(kType);
  static constexpr BlockTile kTile = BlockTileOf(kType);
  static constexpr int kGroups = static_cast<int>(kTile.groups);
  static constexpr bool kSub = kFormat.sub_scales != SubScales::kNone;
  // Two sub-blocks of 16 a group: their integer scales multiply integer sums.
  static constexpr bool kHalves = kFormat.sub_elements == 16;
  static constexpr int kFloats = kHalves ? 1 : kGroups;
  static constexpr int kPairs = kHalves ? kGroups : 1;
  static constexpr bool kMin = kFormat.has_min();

  F d[kFloats];  // of a group: d * scale; of a unit where groups have halves
  F m[kFloats];  // of a group: m, or m * minimum
  // Of the halves of a group, 16 bits each, the first lower.
  I scales[kPairs];
  I minima[kPairs];

  TESSERA_SIMD F BlockScale(const std::byte* p) {
    if constexpr (kFormat.scale_bytes == 2) {
      return S::LoadF16(reinterpret_cast<const uint16_t*>(p));
    } else {
      // 2^(e - 128) has no exponent of its own where it is least: two factors do.
      const I e = S::LoadU8(p);
      const I half = S::template IShr<1>(e);
      const I bias = S::ISet1(63);
      return S::Mul(S::FromBits(S::template IShl<23>(S::IAdd(half, bias))),
                    S::FromBits(S::template IShl<23>(S::IAdd(S::ISub(e, half), bias))));
    }
  }

  TESSERA_SIMD I Word(const std::byte* p, int i) { return S::ILoad(p + i * 64); }

  // Bits kFrom... of four bytes a lane: one byte of the word to each.
  template <int kByte>
  TESSERA_SIMD F ByteFloat(I word) {
    return S::ToFloat(S::IAnd(S::template IShr<8 * kByte>(word), S::ISet1(255)));
  }
  TESSERA_SIMD void FourFloats(I word, F scale, F* to) {
    to[0] = S::Mul(scale, ByteFloat<0>(word));
    to[1] = S::Mul(scale, ByteFloat<1>(word));
    to[2] = S::Mul(scale, ByteFloat<2>(word));
    to[3] = S::Mul(scale, ByteFloat<3>(word));
  }
  // Bytes 0 and 1 of each lane as 16 bits, and bytes 2 and 3.
  TESSERA_SIMD void TwoPairs(I word, I* to) {
    const I low = S::ISet1(0x00ff), high = S::ISet1(0x00ff0000);
    to[0] = S::IOr(S::IAnd(word, low), S::IAnd(S::template IShl<8>(word), high));
    to[1] =
        S::IOr(S::IAnd(S::template IShr<16>(word), low), S::IAnd(S::template IShr<8>(word), high));
  }

  TESSERA_SIMD void LoadSixBitsAndMinima(const std::byte* p, F block_d, F block_m, F* d, F* m) {
    const I a = Word(p, 0), b = Word(p, 1), c = Word(p, 2);
    FourFloats(S::template Bits<0, 63>(a), block_d, d);
    FourFloats(S::template Bits<0, 63>(b), block_m, m);
    FourFloats(S::IOr(S::template Bits<0, 15>(c), S::template Bits<2, 48>(a)), block_d, d + 4);
    FourFloats(S::IOr(S::template Bits<4, 15>(c), S::template Bits<2, 48>(b)), block_m, m + 4);
  }

  template <int kIndex>
  TESSERA_SIMD void LoadSixBitsApart(I high, I low, F block_d, F* d) {
    const I scale =
        S::IOr(S::IAnd(S::template IShr<kIndex % 4 * 4>(low), S::ISet1(15)),
               S::template IShl<4>(S::IAnd(S::template IShr<kIndex * 2>(high), S::ISet1(3))));
    d[kIndex] = S::Mul(block_d, S::ToFloat(S::ISub(scale, S::ISet1(32))));
    if constexpr (kIndex % 4 != 3) LoadSixBitsApart<kIndex + 1>(high, low, block_d, d);
  }

  TESSERA_SIMD void LoadHalves(const std::byte* p, I* scales, I* minima) {
    if constexpr (kFormat.sub_scales == SubScales::kSixBits) {
      const I a = Word(p, 0), b = Word(p, 1), high = Word(p, 2);
      TwoPairs(S::IOr(S::template Bits<0, 15>(a), S::template Bits<-4, 48>(high)), scales);
      TwoPairs(S::IOr(S::template Bits<0, 15>(b), S::template Bits<-2, 48>(high)), scales + 2);
      TwoPairs(S::IOr(S::template Bits<4, 15>(a), S::template Bits<0, 48>(high)), scales + 4);
      TwoPairs(S::IOr(S::template Bits<4, 15>(b), S::template Bits<2, 48>(high)), scales + 6);
      for (int i = 0; i < kGroups; ++i) scales[i] = S::ISub16(scales[i], S::ISet16(32));
      return;
    }
    for (int i = 0; i < 4; ++i) {
      const I word = Word(p, i);
      if constexpr (kFormat.sub_scales == SubScales::kNibblePairs) {
        TwoPairs(S::template Bits<0, 15>(word), scales + 2 * i);
        TwoPairs(S::template Bits<4, 15>(word), minima + 2 * i);
      } else {
        // Signed: bytes move to the upper halves of their 16 bits, and back with their sign.
        TwoPairs(word, scales + 2 * i);
        for (int j = 2 * i; j < 2 * i + 2; ++j) {
          scales[j] = S::template ISra16<8>(S::template IShl<8>(scales[j]));
        }
      }
    }
  }

  // From what follows the codes of a unit of `kCount` groups.
  template <int kCount>
  TESSERA_SIMD void Load(const std::byte* p, BlockScales& to) {
    const std::byte* scale = p + kTile.sub_bytes;
    if constexpr (!kSub) {
      const std::byte* min = scale + kCount * kTile.scale_bytes;
#pragma GCC unroll 2
      for (int g = 0; g < kCount; ++g) {
        to.d[g] = BlockScale(scale + g * kTile.scale_bytes);
        if constexpr (kMin) {
          to.m[g] = S::LoadF16(reinterpret_cast<const uint16_t*>(min + g * kTile.min_bytes));
        }
      }
      return;
    }
    const F d = BlockScale(scale);
    const F m =
        kMin ? S::LoadF16(reinterpret_cast<const uint16_t*>(scale + kTile.scale_bytes)) : S::Zero();
    if constexpr (kHalves) {
      to.d[0] = d;
      to.m[0] = m;
      LoadHalves(p, to.scales, to.minima);
    } else if constexpr (kFormat.sub_scales == SubScales::kSixBitsAndMinima) {
      LoadSixBitsAndMinima(p, d, m, to.d, to.m);
    } else {
      const auto* words = reinterpret_cast<const uint16_t*>(p);
      const I high = S::LoadU16(words);
      LoadSixBitsApart<0>(high, S::LoadU16(words + 16), d, to.d);
      LoadSixBitsApart<4>(high, S::LoadU16(words + 32), d, to.d);
    }
  }
};

}  // namespace tessera::kernels::cpu
