// The block formats of GGUF as data: where a block keeps its codes, scales and minima, and what its
// codes mean. Constants only: the instruction sets' files include it.
//
// A weight of a block is  (d * scale) * value - (m * minimum),  d and m of the block, scale and
// minimum integers of its sub-block; where a format has no integer scales it is  d * value  or
// d * value + m. Products round as written, but d * scale and m * minimum are exact.
#pragma once

#include <cstdint>
#include <iterator>

#include "kernels/dtype.h"

namespace tessera::kernels {

// `bits` bits of every code. Element e has them in byte
//   offset + e / (run * per_byte) * run + e % run,  from bit  bits * (e / run % per_byte),
// where per_byte = 8 / bits: runs of neighbours share a place in neighbouring bytes.
struct CodePlace {
  uint8_t offset = 0;
  uint8_t bits = 0;  // 0: no such bits
  uint8_t run = 1;

  [[nodiscard]] constexpr uint32_t Byte(uint32_t e) const {
    return offset + e / (run * (8u / bits)) * run + e % run;
  }
  [[nodiscard]] constexpr uint32_t Shift(uint32_t e) const {
    return bits * (e / run % (8u / bits));
  }
};

// How the integer scales of a block of 256 lie in their bytes.
enum class SubScales : uint8_t {
  kNone,
  kNibblePairs,       // Q2_K: scale | minimum << 4, of 16 sub-blocks
  kSixBits,           // Q3_K: 16 of 6 bits less 32: 4 low bits in 8 bytes, 2 high bits in 4
  kSixBitsAndMinima,  // Q4_K, Q5_K: 8 scales and 8 minima of 6 bits
  kInt8,              // Q6_K: 16
  kSixBitsApart,      // IQ4_XS: 8 of 6 bits less 32: 2 high bits in 2 bytes, then 4 low bits in 4
};

inline constexpr uint8_t kNoPlace = 255;

struct BlockFormat {
  uint16_t elements = 0;
  uint16_t bytes = 0;
  CodePlace low;  // code = low bits | high bits << low.bits
  CodePlace high;
  uint8_t scale_at = 0;       // d: float16
  uint8_t scale_bytes = 2;    // 1: d is 2^(byte - 128)
  uint8_t min_at = kNoPlace;  // m: float16
  SubScales sub_scales = SubScales::kNone;
  uint8_t sub_at = 0;  // integer scales
  uint8_t sub_bytes = 0;
  uint8_t sub_elements = 32;  // of a sub-block
  // value = stored - zero, where stored is the code, or what the table has for it.
  uint8_t zero = 0;
  uint8_t largest = 0;  // stored value
  const uint8_t* table = nullptr;

  [[nodiscard]] constexpr bool has_min() const { return min_at != kNoPlace; }
};

// Values of four-bit codes, stored with `zero` added.
inline constexpr uint8_t kIq4Table[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                          129, 141, 153, 166, 181, 197, 217, 241};
inline constexpr uint8_t kMxfp4Table[16] = {12, 13, 14, 15, 16, 18, 20, 24,
                                            12, 11, 10, 9,  8,  6,  4,  0};

// All zeros for a type that has no blocks.
[[nodiscard]] constexpr BlockFormat BlockFormatOf(DType dtype) {
  constexpr CodePlace kNone;
  using S = SubScales;
  switch (dtype) {
    // Q8_0's codes are two's complement: stored is the code with its highest bit flipped.
    case DType::kQ8_0:
      return {32, 34, {2, 8, 1}, kNone, 0, 2, kNoPlace, S::kNone, 0, 0, 32, 128, 255};
    case DType::kQ4_0:
      return {32, 18, {2, 4, 16}, kNone, 0, 2, kNoPlace, S::kNone, 0, 0, 32, 8, 15};
    case DType::kQ4_1:
      return {32, 20, {4, 4, 16}, kNone, 0, 2, 2, S::kNone, 0, 0, 32, 0, 15};
    case DType::kQ5_0:
      return {32, 22, {6, 4, 16}, {2, 1, 1}, 0, 2, kNoPlace, S::kNone, 0, 0, 32, 16, 31};
    case DType::kQ5_1:
      return {32, 24, {8, 4, 16}, {4, 1, 1}, 0, 2, 2, S::kNone, 0, 0, 32, 0, 31};
    case DType::kQ2_K:
      return {256, 84, {16, 2, 32}, kNone, 80, 2, 82, S::kNibblePairs, 0, 16, 16, 0, 3};
    case DType::kQ3_K:
      return {256, 110, {32, 2, 32}, {0, 1, 32}, 108, 2, kNoPlace, S::kSixBits, 96, 12, 16, 4, 7};
    case DType::kQ4_K:
      return {256, 144, {16, 4, 32}, kNone, 0, 2, 2, S::kSixBitsAndMinima, 4, 12, 32, 0, 15};
    case DType::kQ5_K:
      return {256, 176, {48, 4, 32}, {16, 1, 32}, 0, 2, 2, S::kSixBitsAndMinima, 4, 12, 32, 0, 31};
    case DType::kQ6_K:
      return {256, 210, {0, 4, 64}, {128, 2, 32}, 208, 2, kNoPlace, S::kInt8, 192, 16, 16, 32, 63};
    case DType::kIQ4_NL:
      return {32, 18, {2, 4, 16}, kNone, 0, 2, kNoPlace, S::kNone, 0, 0, 32, 128, 241, kIq4Table};
    case DType::kIQ4_XS:
      return {256, 136, {8, 4, 16}, kNone, 0,   2,        kNoPlace, S::kSixBitsApart,
              2,   6,   32,         128,   241, kIq4Table};
    case DType::kMXFP4:
      return {32, 17, {1, 4, 16}, kNone, 0, 1, kNoPlace, S::kNone, 0, 0, 32, 12, 24, kMxfp4Table};
    default:
      return {};
  }
}

inline constexpr DType kBlockTypes[] = {DType::kQ8_0, DType::kQ4_0, DType::kQ4_1,   DType::kQ5_0,
                                        DType::kQ5_1, DType::kQ2_K, DType::kQ3_K,   DType::kQ4_K,
                                        DType::kQ5_K, DType::kQ6_K, DType::kIQ4_NL, DType::kIQ4_XS,
                                        DType::kMXFP4};

// Calls use.operator()<type>() for a type with blocks.
template <int kIndex = 0, typename Use>
void WithBlockType(DType dtype, Use use) {
  if constexpr (kIndex < static_cast<int>(std::size(kBlockTypes))) {
    if (dtype == kBlockTypes[kIndex]) return use.template operator()<kBlockTypes[kIndex]>();
    WithBlockType<kIndex + 1>(dtype, use);
  }
}

}  // namespace tessera::kernels
