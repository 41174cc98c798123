// How x gets into the registers of skinny_few.cuh: by way of shared memory, which the whole block
// fills at once (and normalises), or each warp its own from device memory.
//
// kBf16, kF16: a lane has 16 columns of 64, 16 (lane % 4) ..., of token lane / 4. For e4m3 codes,
// which become float16 in one instruction and bfloat16 in more, a unit of x is float16 too, less a
// power of two that its largest element leaves near 2^15. That is exact but for elements 2^28 times
// smaller than the largest, whose error is below 2^-39 of it.
//
// kDigits: a unit of x is v times a power of two, and v, 16 bits, is 256 h + l with h and l in
// -128..127. Products with integer codes are so exact sums of integers, and x is but for elements
// 2^7 times smaller than the unit's largest, whose error is at most 2^-15 of it. The tensor cores
// take h and l for columns of their own, 2 j and 2 j + 1 of token 4 s + j of set s: a lane has the
// digit lane / 4 % 2 of token lane / 8, of the same columns as above, four a word.
#pragma once

#include <cstdint>

#include "kernels/cuda/linear/skinny_few_loader.cuh"

namespace tessera::kernels::cuda {

// Eight columns, two a word: what a thread brings at a time.
using FewEight = uint4;

// The exponent, as float32 has it, of a unit's largest element: `word` has two of its magnitudes or
// more, in bfloat16. With kDigits the largest mantissa counts to the next one, so that 128 can be
// added to it.
template <SkinnyNumbers kNumbers>
__device__ __forceinline__ uint32_t FewExponent(uint32_t word) {
  constexpr uint32_t kMore = kNumbers == SkinnyNumbers::kDigits ? 1 : 0;
  return max((max(word & 0x7fffu, word >> 16 & 0x7fffu) + kMore) >> 7, 30u);
}
// What x is divided by; what is no number is what all of the unit becomes where digits have none.
template <SkinnyNumbers kNumbers>
__device__ __forceinline__ float FewScale(uint32_t exponent) {
  if (kNumbers == SkinnyNumbers::kDigits && exponent >= 255) return __uint_as_float(0x7fc00000u);
  return __uint_as_float((exponent - 14) << 23);
}
__device__ __forceinline__ float FewInverse(uint32_t exponent) {
  return __uint_as_float((268 - exponent) << 23);
}
__device__ __forceinline__ float LowElement(uint32_t word) { return __uint_as_float(word << 16); }
__device__ __forceinline__ float HighElement(uint32_t word) {
  return __uint_as_float(word & 0xffff0000u);
}
// Two elements of bfloat16 in float16, divided by FewScale.
__device__ __forceinline__ uint32_t FewHalves(uint32_t word, uint32_t exponent) {
  const float inverse = FewInverse(exponent);
  const __half2 halves = __floats2half2_rn(LowElement(word) * inverse, HighElement(word) * inverse);
  return *reinterpret_cast<const uint32_t*>(&halves);
}
// The larger magnitudes of two pairs; what is not a number is larger than all.
__device__ __forceinline__ uint32_t LargerPair(uint32_t a, uint32_t b) {
  return AsBits(__hmax2_nan(__habs2(AsBf162(a)), __habs2(AsBf162(b))));
}
// d = bytes of a and b chosen by nibbles of `selector`.
__device__ __forceinline__ uint32_t ChooseBytes(uint32_t a, uint32_t b, uint32_t selector) {
  uint32_t d;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(selector));
  return d;
}

// Digits of four elements of bfloat16, two a word: bytes in the order kOrder.
template <uint32_t kOrder>
struct FewDigits {
  uint32_t first, second;  // two elements each, v + 128

  __device__ __forceinline__ FewDigits(uint32_t low, uint32_t high, float inverse) {
    // The last bits of a float32 that 1.5 * 2^23 was added to are the rounded integer.
    constexpr float kMagic = 12582912.0f + 128.0f;
    const uint32_t v[4] = {__float_as_uint(fmaf(LowElement(low), inverse, kMagic)),
                           __float_as_uint(fmaf(HighElement(low), inverse, kMagic)),
                           __float_as_uint(fmaf(LowElement(high), inverse, kMagic)),
                           __float_as_uint(fmaf(HighElement(high), inverse, kMagic))};
    first = ChooseBytes(v[kOrder & 15], v[kOrder >> 4 & 15], 0x5410);
    second = ChooseBytes(v[kOrder >> 8 & 15], v[kOrder >> 12 & 15], 0x5410);
  }
  // 0: h; 1: l.
  __device__ __forceinline__ uint32_t Of(int digit) const {
    return digit == 0 ? ChooseBytes(first, second, 0x7531)
                      : ChooseBytes(first, second, 0x6420) ^ 0x80808080u;
  }
};

// A unit of x in registers.
template <typename Few>
struct FewUnit {
  using Format = typename Few::Format;
  static constexpr int kWords = Few::kIsDigits ? 4 : 8;
  // Of each set and half, as the products take them.
  uint32_t columns[Few::kSets][Format::kHalves][kWords];
  // What sums are multiplied by: of tokens 2 (lane % 4) + {0, 1}, of digits 4 set + lane % 4.
  float scale[2];
};

template <typename Few>
class FewInput {
  using Format = typename Few::Format;
  static constexpr int kHalves = Format::kHalves;
  static constexpr SkinnyNumbers kNumbers = Format::kNumbers;
  static constexpr bool kIsDigits = Few::kIsDigits;
  static constexpr bool kIsScaled = Few::kIsScaled;

 public:
  __device__ __forceinline__ FewInput(const SkinnyPlan& plan, FewShared<Few>& shared)
      : plan_(plan), shared_(shared) {
    if constexpr (Few::kX == FewX::kNormed) {
      // Warms the cache, while earlier kernels run.
      for (int column = threadIdx.x * kItem; column < plan.in; column += kStep) {
        asm volatile("prefetch.global.L2 [%0];" ::"l"(plan.norm_weight + column));
      }
    }
  }
  // Before the first Fetch: waits for earlier kernels, and fills shared memory.
  __device__ __forceinline__ void Begin() {
    if constexpr (Few::kX == FewX::kNormed) {
      Gains gains;
      LoadGains(0, gains);
      WaitForPrior();
#pragma unroll 1
      for (int row = 0; row < plan_.rows; ++row) Normalise(row, gains);
    } else {
      WaitForPrior();
      if constexpr (Few::kX == FewX::kCopied) {
#pragma unroll 1
        for (int row = 0; row < plan_.rows; ++row) Copy(row);
      }
    }
    if constexpr (Few::kKeepsX) __syncthreads();
  }
  // Asks for the columns of `unit`.
  __device__ __forceinline__ void Fetch(int unit) {
    if constexpr (!Few::kKeepsX) {
#pragma unroll
      for (int half = 0; half < kHalves; ++half) {
        next_[half][0] = next_[half][1] = {};
        if (!Inside(FetchedToken(), unit, half)) continue;
        const auto* from = reinterpret_cast<const FewEight*>(
            plan_.x + int64_t{FetchedToken()} * plan_.in + Column(unit, half));
        next_[half][0] = __ldcg(from);
        next_[half][1] = __ldcg(from + 1);
      }
    }
  }
  // The columns of `unit`, which was asked for last.
  __device__ __forceinline__ void Take(int unit, FewUnit<Few>& to) {
    to.scale[0] = to.scale[1] = 1;
    if constexpr (Few::kKeepsX) {
#pragma unroll
      for (int set = 0; set < Few::kSets; ++set) TakeKept(set, unit, to);
      if constexpr (kIsScaled) TakeKeptScales(unit, to);
    } else {
      TakeFetched(to);
    }
  }
  // What the sums of `token` are multiplied by at last, behind the block's first barrier.
  static __device__ __forceinline__ float Factor(const SkinnyPlan& plan,
                                                 const FewShared<Few>& shared, int token) {
    if constexpr (Few::kX == FewX::kNormed) {
      float squares = 0;
#pragma unroll
      for (int warp = 0; warp < Few::kWarps; ++warp) squares += shared.squares[warp][token];
      return rsqrtf(squares / static_cast<float>(plan.in) + plan.epsilon);
    } else {
      return 1.0f;
    }
  }

 private:
  static constexpr int kItem = 8;                      // columns that a thread brings at a time
  static constexpr int kStep = kItem * Few::kThreads;  // of the block

  // This lane's token of x, its first column, and whether there are such.
  static __device__ __forceinline__ int Token(int set) {
    return kIsDigits ? 4 * set + (LaneId() >> 3) : LaneId() >> 2;
  }
  // The token that it fetches: of two sets of digits one, for itself and for the lane of the other
  // digit.
  static __device__ __forceinline__ int FetchedToken() {
    return Token(Few::kSets == 2 ? Digit() : 0);
  }
  static __device__ __forceinline__ int Column(int unit, int half) {
    return (unit * kHalves + half) * 64 + (LaneId() & 3) * 16;
  }
  __device__ __forceinline__ bool Inside(int token, int unit, int half) const {
    return token < plan_.rows && Column(unit, half) < plan_.in;
  }
  static __device__ __forceinline__ int Digit() { return LaneId() >> 2 & 1; }
  __device__ __forceinline__ uint8_t* Rows() const {
    return reinterpret_cast<uint8_t*>(&shared_) + kFewHeadBytes;
  }
  static __device__ __forceinline__ void Put(const FewEight& v, uint32_t* to) {
    to[0] = v.x;
    to[1] = v.y;
    to[2] = v.z;
    to[3] = v.w;
  }

  __device__ __forceinline__ void TakeKept(int set, int unit, FewUnit<Few>& to) const {
    const uint8_t* row = Rows() + Token(set) * FewInputStride(plan_.in);
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
      uint32_t(&columns)[FewUnit<Few>::kWords] = to.columns[set][half];
#pragma unroll
      for (uint32_t& word : columns) word = 0;
      if (!Inside(Token(set), unit, half)) continue;
      const auto* from = reinterpret_cast<const uint4*>(
          kIsDigits ? row + unit * 256 + Digit() * 128 + (LaneId() & 3) * 32 + half * 16
                    : row + Column(unit, half) * 2);
      Put(*from, columns);
      if constexpr (!kIsDigits) Put(from[1], columns + 4);
    }
  }
  __device__ __forceinline__ void TakeKeptScales(int unit, FewUnit<Few>& to) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int token = kIsDigits ? 4 * i + (LaneId() & 3) : 2 * (LaneId() & 3) + i;
      if (token < plan_.rows) to.scale[i] = shared_.unit_scale[token * plan_.tile_units + unit];
    }
  }
  __device__ __forceinline__ void TakeFetched(FewUnit<Few>& to) const {
    uint32_t words[kHalves][8];
    uint32_t most = 0;
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
      Put(next_[half][0], words[half]);
      Put(next_[half][1], words[half] + 4);
      if constexpr (kIsScaled) {
#pragma unroll
        for (uint32_t word : words[half]) most = LargerPair(most, word);
      }
    }
    uint32_t exponent = 0;
    if constexpr (kIsScaled) {
      most = LargerPair(most, __shfl_xor_sync(0xffffffffu, most, 1));
      most = LargerPair(most, __shfl_xor_sync(0xffffffffu, most, 2));
      exponent = FewExponent<kNumbers>(most);
      const float scale = UnitScale(exponent);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        // The lane that fetched the token of the sum.
        const int lane = kIsDigits ? (LaneId() & 3) * 8 + (Few::kSets == 2 ? 4 * i : 0)
                                   : (2 * (LaneId() & 3) + i) * 4;
        to.scale[i] = __shfl_sync(0xffffffffu, scale, lane);
      }
    }
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
#pragma unroll
      for (int i = 0; i < FewUnit<Few>::kWords; ++i) {
        if constexpr (kIsDigits) {
          const FewDigits<Format::kOrder> digits(words[half][2 * i], words[half][2 * i + 1],
                                                 FewInverse(exponent));
          if constexpr (Few::kSets == 1) {
            to.columns[0][half][i] = digits.Of(Digit());
          } else {
            // The own digit of the token of the own set; the other lane's of the other.
            const uint32_t own = digits.Of(Digit());
            const uint32_t other = __shfl_xor_sync(0xffffffffu, digits.Of(1 - Digit()), 4);
            to.columns[0][half][i] = Digit() == 0 ? own : other;
            to.columns[1][half][i] = Digit() == 0 ? other : own;
          }
        } else {
          to.columns[0][half][i] = kIsScaled ? FewHalves(words[half][i], exponent) : words[half][i];
        }
      }
    }
  }
  static __device__ __forceinline__ float UnitScale(uint32_t exponent) {
    const float scale = FewScale<kNumbers>(exponent);
    if constexpr (kIsDigits) return scale / Format::kProducts;
    return scale;
  }
  // The largest magnitudes of the unit that eight columns are of; the whole warp comes here.
  static __device__ __forceinline__ uint32_t LargestOfUnit(const FewEight& v) {
    uint32_t most = LargerPair(LargerPair(v.x, v.y), LargerPair(v.z, v.w));
#pragma unroll
    for (int offset = 1; offset < 16; offset *= 2) {
      most = LargerPair(most, __shfl_xor_sync(0xffffffffu, most, offset));
    }
    return most;
  }
  // Leaves eight columns in shared memory; `most` is their LargestOfUnit.
  __device__ __forceinline__ void Keep(int row, int column, FewEight v, uint32_t most) {
    uint32_t exponent = 0;
    if constexpr (kIsScaled) {
      exponent = FewExponent<kNumbers>(most);
      if (column < plan_.in && column % 128 == 0) {
        shared_.unit_scale[row * plan_.tile_units + column / 128] = UnitScale(exponent);
      }
    }
    if (column >= plan_.in) return;
    uint8_t* to = Rows() + row * FewInputStride(plan_.in);
    if constexpr (kIsDigits) {
      const float inverse = FewInverse(exponent);
      const FewDigits<Format::kOrder> low(v.x, v.y, inverse), high(v.z, v.w, inverse);
      // Lane by lane, both halves of a digit, and of a half the two words of a lane's eight
      // columns.
      to += column / 128 * 256 + column / 16 % 4 * 32 + column / 64 % 2 * 16 + column / 8 % 2 * 8;
#pragma unroll
      for (int digit = 0; digit < 2; ++digit) {
        *reinterpret_cast<uint2*>(to + digit * 128) = make_uint2(low.Of(digit), high.Of(digit));
      }
    } else {
      if constexpr (kIsScaled) {
        v = make_uint4(FewHalves(v.x, exponent), FewHalves(v.y, exponent), FewHalves(v.z, exponent),
                       FewHalves(v.w, exponent));
      }
      *reinterpret_cast<uint4*>(to + column * 2) = v;
    }
  }
  // Items of a thread that are under way at once when a row is normalised.
  static constexpr int kItems = Few::kWarps == 16 ? 1 : 2;
  using Gains = float4[kItems][2];
  // Of the items from column `first` on.
  __device__ __forceinline__ void LoadGains(int first, Gains& gains) const {
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      const int column = first + i * kStep + static_cast<int>(threadIdx.x) * kItem;
      gains[i][0] = gains[i][1] = {};
      if (column >= plan_.in) continue;
      const auto* from = reinterpret_cast<const float4*>(plan_.norm_weight + column);
      gains[i][0] = __ldg(from);
      gains[i][1] = __ldg(from + 1);
    }
  }
  // A residual row times the gains, of which `begin` are the first, and the sum of its squares.
  // Written by kernels before: not through L1, which may hold what the lines were.
  __device__ __forceinline__ void Normalise(int row, const Gains& begin) {
    const int64_t from = plan_.x_rows == nullptr ? row : __ldcg(plan_.x_rows + row);
    const float* residual = plan_.residual + from * plan_.in;
    float squares = 0;
#pragma unroll 1
    for (int first = 0; first < plan_.in; first += kItems * kStep) {
      float4 values[kItems][2];
#pragma unroll
      for (int i = 0; i < kItems; ++i) {
        const int column = first + i * kStep + static_cast<int>(threadIdx.x) * kItem;
        values[i][0] = values[i][1] = {};
        if (column >= plan_.in) continue;
        const auto* at = reinterpret_cast<const float4*>(residual + column);
        values[i][0] = __ldcg(at);
        values[i][1] = __ldcg(at + 1);
      }
      Gains gains;
      if (first > 0) {
        LoadGains(first, gains);
      } else {
#pragma unroll
        for (int i = 0; i < kItems; ++i) {
          gains[i][0] = begin[i][0];
          gains[i][1] = begin[i][1];
        }
      }
#pragma unroll
      for (int i = 0; i < kItems; ++i) {
        const float4 v = values[i][0], w = values[i][1], a = gains[i][0], b = gains[i][1];
        squares += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
        squares += w.x * w.x + w.y * w.y + w.z * w.z + w.w * w.w;
        const FewEight eight =
            make_uint4(PackBf16(v.x * a.x, v.y * a.y), PackBf16(v.z * a.z, v.w * a.w),
                       PackBf16(w.x * b.x, w.y * b.y), PackBf16(w.z * b.z, w.w * b.w));
        Keep(row, first + i * kStep + static_cast<int>(threadIdx.x) * kItem, eight,
             kIsScaled ? LargestOfUnit(eight) : 0);
      }
    }
    squares = WarpSum(squares);
    if (LaneId() == 0) shared_.squares[threadIdx.x >> 5][row] = squares;
  }
  // All loads are under way before the first is waited for.
  __device__ __forceinline__ void Copy(int row) {
    constexpr int kMost = kSkinnyMostKept / kStep;
    FewEight v[kMost];
#pragma unroll
    for (int i = 0; i < kMost; ++i) {
      const int column = i * kStep + static_cast<int>(threadIdx.x) * kItem;
      v[i] = {};
      if (column < plan_.in) {
        v[i] = __ldcg(reinterpret_cast<const uint4*>(plan_.x + int64_t{row} * plan_.in + column));
      }
    }
    // Side by side: one after the other they would wait for their shuffles.
    uint32_t most[kMost] = {};
    if constexpr (kIsScaled) {
#pragma unroll
      for (int i = 0; i < kMost; ++i) most[i] = LargestOfUnit(v[i]);
    }
#pragma unroll
    for (int i = 0; i < kMost; ++i) {
      if (i * kStep >= plan_.in) break;
      Keep(row, i * kStep + static_cast<int>(threadIdx.x) * kItem, v[i], most[i]);
    }
  }

  const SkinnyPlan& plan_;
  FewShared<Few>& shared_;
  FewEight next_[kHalves][2];  // what was fetched
};

}  // namespace tessera::kernels::cuda
