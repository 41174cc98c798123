// The weights of a tile (cpu/layout.h) as float32, sixteen outputs at a time.
#pragma once

#include <type_traits>

#include "kernels/cpu/micro.h"
#include "kernels/cpu/simd/inline.h"

namespace tessera::kernels::cpu {

template <class S, DType kType>
struct TileWeights {
  using F = typename S::F;
  using I = typename S::I;

  static constexpr bool kPlanes = kType >= DType::kF8Channel;
  static constexpr bool kNibbles = kType >= DType::kI4G128;
  static constexpr bool kZeros = kType >= DType::kI4G128Zero;
  // Neighbouring k that one step of the codes holds, and its bytes.
  static constexpr int kStep = kNibbles ? 2 : 1;
  static constexpr int kStepBytes = kTileRows * (kType == DType::kF32 ? 4 : kPlanes ? 1 : 2);
  // The k that share a scale; 0: all of a row.
  static constexpr int kGroup = kType == DType::kI4G64 || kType == DType::kI4G64Zero ? 64
                                : kNibbles || kType == DType::kF8Block128            ? 128
                                                                                     : 0;

  struct Group {
    F scale;
    I zero;
  };
  struct None {};
  using Scales = std::conditional_t<kPlanes, Group, None>;

  TESSERA_SIMD int64_t TileBytes(const LinearCall& c) {
    return kPlanes ? c.tile_bytes : int64_t{c.in} * kStepBytes;
  }

  TESSERA_SIMD Scales ScalesOf(const LinearCall& c, const std::byte* tile, int64_t group) {
    Scales scales;
    if constexpr (kPlanes) {
      const std::byte* at = tile + c.tile_scales;
      if constexpr (kNibbles) {
        scales.scale = S::LoadF16(reinterpret_cast<const uint16_t*>(at) + group * kTileRows);
        scales.zero = kZeros ? S::LoadU8(tile + c.tile_zeros + group * kTileRows) : S::ISet1(8);
      } else if constexpr (kType == DType::kF8Block128) {
        scales.scale = S::Set1(reinterpret_cast<const float*>(at)[group]);
      } else {
        scales.scale = S::Load(reinterpret_cast<const float*>(at));
      }
    }
    return scales;
  }

  // Element `part` (below kStep) of the step at `p`.
  TESSERA_SIMD F At(const std::byte* p, int part, const Scales& scales) {
    if constexpr (kType == DType::kF32) return S::Load(reinterpret_cast<const float*>(p));
    if constexpr (kType == DType::kF16) return S::LoadF16(reinterpret_cast<const uint16_t*>(p));
    if constexpr (kType == DType::kBF16) return S::LoadBf16(reinterpret_cast<const uint16_t*>(p));
    if constexpr (kNibbles) {
      const I codes = S::LoadU8(p);
      const I code = part == 0 ? S::IAnd(codes, S::ISet1(15)) : S::template IShr<4>(codes);
      return S::Mul(scales.scale, S::ToFloat(S::ISub(code, scales.zero)));
    } else if constexpr (kType == DType::kI8Channel) {
      return S::Mul(scales.scale, S::ToFloat(S::LoadI8(p)));
    } else if constexpr (kPlanes) {
      return S::Mul(scales.scale, S::LoadE4m3(p));
    }
  }
};

}  // namespace tessera::kernels::cpu
