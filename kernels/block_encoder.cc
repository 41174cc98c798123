#include "kernels/block_encoder.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "kernels/block_codec.h"

namespace tessera::kernels {
namespace {

constexpr float kLargestHalf = 65504;
// Nothing larger can be held by any format, and squares of it are far from infinity.
constexpr float kBound = 1e10f;
// Below it a float16 scale is 0 anyway.
constexpr float kTiny = 1e-20f;
constexpr int kTries = 10;  // ways to round, on each side of the plain one

// To the nearest integer, ties to even, for |x| below 2^22: the sum has no bits for a fraction.
float RoundEven(float x) {
  const float sum = x + 0x1.8p23f;
  return sum - 0x1.8p23f;
}

// The values of a table in order, with their codes; middles between neighbours.
struct Ladder {
  std::array<uint8_t, 16> codes;
  std::array<float, 16> values;
  std::array<float, 15> middles;
};

constexpr Ladder LadderOf(const BlockFormat& format) {
  Ladder ladder{};
  for (uint32_t i = 0; i < 16; ++i) ladder.codes[i] = static_cast<uint8_t>(i);
  for (uint32_t i = 1; i < 16; ++i) {
    for (uint32_t j = i; j > 0; --j) {
      if (format.table[ladder.codes[j - 1]] <= format.table[ladder.codes[j]]) break;
      std::swap(ladder.codes[j - 1], ladder.codes[j]);
    }
  }
  for (uint32_t i = 0; i < 16; ++i) {
    ladder.values[i] = static_cast<float>(format.table[ladder.codes[i]] - format.zero);
  }
  for (uint32_t i = 0; i < 15; ++i) {
    ladder.middles[i] = (ladder.values[i] + ladder.values[i + 1]) / 2;
  }
  return ladder;
}

// How one format rounds: quotients (weight / scale) to the nearest value, and values to codes.
template <DType kType>
struct Rounding {
  static constexpr BlockFormat kFormat = BlockFormatOf(kType);
  static constexpr bool kTable = kFormat.table != nullptr;
  static constexpr float kLow = -static_cast<float>(kFormat.zero);
  static constexpr float kHigh = static_cast<float>(kFormat.largest - kFormat.zero);
  static constexpr float kEnd = kFormat.zero == 0 ? kHigh : -kLow;

  static constexpr Ladder MakeLadder() {
    if constexpr (kTable) return LadderOf(kFormat);
    return Ladder{};
  }
  static constexpr Ladder kLadder = MakeLadder();

  static uint32_t Rung(float quotient) {
    uint32_t at = quotient >= kLadder.middles[7] ? 8 : 0;
    at += quotient >= kLadder.middles[at + 3] ? 4 : 0;
    at += quotient >= kLadder.middles[at + 1] ? 2 : 0;
    return at + (quotient >= kLadder.middles[at] ? 1 : 0);
  }
  static float Value(float quotient) {
    if constexpr (kTable) return kLadder.values[Rung(quotient)];
    return RoundEven(std::min(std::max(quotient, kLow), kHigh));
  }
  static uint32_t Code(float quotient) {
    if constexpr (kTable) return kLadder.codes[Rung(quotient)];
    const auto stored = static_cast<uint32_t>(static_cast<int>(Value(quotient)) + kFormat.zero);
    return kType == DType::kQ8_0 ? stored ^ 0x80 : stored;
  }
};

float LargestOf(const float* x, uint32_t count) {
  float largest = 0;
  for (uint32_t i = 0; i < count; ++i) largest = std::max(largest, std::fabs(x[i]));
  return largest;
}

float Quotient(float x, float scale) { return scale == 0 ? 0 : x / scale; }

float HalfOf(float x) { return F16ToF32(F32ToF16(std::clamp(x, -kLargestHalf, kLargestHalf))); }

// x ~ scale * value: the scale.
template <DType kType>
float FitScale(const float* x, uint32_t count) {
  using R = Rounding<kType>;
  const float largest = LargestOf(x, count);
  if (largest < kTiny) return 0;
  const float step = R::kTable ? 0.012f * R::kEnd : 0.1f;
  float best = 0;
  float most = 0;
  for (int i = -2 * kTries; i <= 2 * kTries; ++i) {
    const float inverse = (R::kEnd + step * static_cast<float>(i / 2)) / largest;
    const float signed_inverse = i % 2 == 0 ? inverse : -inverse;
    float cross = 0;
    float square = 0;
    for (uint32_t k = 0; k < count; ++k) {
      const float value = R::Value(x[k] * signed_inverse);
      cross += x[k] * value;
      square += value * value;
    }
    // The squared error is that of zeros less cross^2 / square.
    if (square > 0 && cross * cross > most * square) {
      most = cross * cross / square;
      best = cross / square;
    }
  }
  return best;
}

struct Line {
  float scale = 0;
  float min = 0;
};

// Squared error of the nearest codes.
template <DType kType>
float ErrorOf(const float* x, uint32_t count, Line line) {
  const float inverse = line.scale == 0 ? 0 : 1 / line.scale;
  float error = 0;
  for (uint32_t k = 0; k < count; ++k) {
    const float value = Rounding<kType>::Value((x[k] - line.min) * inverse);
    const float off = line.scale * value + line.min - x[k];
    error += off * off;
  }
  return error;
}

enum class Minimum : uint8_t { kAny, kNotPositive };

// The best line through values that were rounded to codes.
template <DType kType>
Line Regress(const float* x, uint32_t count, float inverse, float low, Minimum kind) {
  float q = 0, qq = 0, sum = 0, cross = 0;
  for (uint32_t k = 0; k < count; ++k) {
    const float value = Rounding<kType>::Value((x[k] - low) * inverse);
    q += value;
    qq += value * value;
    sum += x[k];
    cross += x[k] * value;
  }
  const auto n = static_cast<float>(count);
  const float determinant = n * qq - q * q;
  if (!(determinant > 0)) return {.scale = 0, .min = low};
  Line line = {.scale = (n * cross - q * sum) / determinant,
               .min = (qq * sum - q * cross) / determinant};
  if (kind == Minimum::kNotPositive && line.min > 0) line = {.scale = cross / qq, .min = 0};
  return line;
}

// x ~ scale * code + min.
template <DType kType>
Line FitLine(const float* x, uint32_t count, Minimum kind) {
  float low = *std::min_element(x, x + count);
  const float high = *std::max_element(x, x + count);
  if (kind == Minimum::kNotPositive) low = std::min(low, 0.0f);
  if (!(high - low > kTiny)) return {.scale = 0, .min = low};
  Line best;
  float least = std::numeric_limits<float>::infinity();
  for (int i = -kTries; i <= kTries; ++i) {
    const float inverse = (Rounding<kType>::kHigh + 0.1f * static_cast<float>(i)) / (high - low);
    const Line line = Regress<kType>(x, count, inverse, low, kind);
    const float error = ErrorOf<kType>(x, count, line);
    if (error < least) {
      least = error;
      best = line;
    }
  }
  return best;
}

template <DType kType>
void PutCodes(const float* x, uint32_t first, uint32_t count, Line line, std::byte* block) {
  constexpr BlockFormat kFormat = BlockFormatOf(kType);
  constexpr uint32_t kMask = 0x01010101u * ((1u << kFormat.low.bits) - 1);
  for (uint32_t k = 0; k < count; k += kStepElements) {
    uint32_t codes = 0;
    for (uint32_t i = 0; i < kStepElements; ++i) {
      codes |= Rounding<kType>::Code(Quotient(x[k + i] - line.min, line.scale)) << (8 * i);
    }
    const uint32_t step = (first + k) / kStepElements;
    AddStepCodes(kFormat.low, block, step, codes & kMask);
    if constexpr (kFormat.high.bits != 0) {
      AddStepCodes(kFormat.high, block, step, (codes & ~kMask) >> kFormat.low.bits);
    }
  }
}

void PutHalf(float value, std::byte* to) {
  const uint16_t bits = F32ToF16(std::clamp(value, -kLargestHalf, kLargestHalf));
  std::memcpy(to, &bits, sizeof(bits));
}

template <DType kType>
void EncodePlain(const float* x, std::byte* block) {
  constexpr BlockFormat kFormat = BlockFormatOf(kType);
  Line line;
  if constexpr (kFormat.has_min()) {
    line = FitLine<kType>(x, 32, Minimum::kAny);
    PutHalf(line.min, block + kFormat.min_at);
    line.min = HalfOf(line.min);
  } else {
    line.scale = FitScale<kType>(x, 32);
  }
  PutHalf(line.scale, block + kFormat.scale_at);
  line.scale = HalfOf(line.scale);
  PutCodes<kType>(x, 0, 32, line, block);
}

// A power of two as scale: the best of those about the one whose largest value is the largest.
template <DType kType>
void EncodePowerOfTwo(const float* x, std::byte* block) {
  const float largest = LargestOf(x, 32);
  int exponent = 0;
  if (largest >= kTiny) std::frexp(largest / Rounding<kType>::kHigh, &exponent);
  Line best;
  int kept = 0;
  float least = std::numeric_limits<float>::infinity();
  for (int e = exponent - 2; e <= exponent + 1; ++e) {
    const Line line = {.scale = largest < kTiny ? 0 : std::ldexp(1.0f, e), .min = 0};
    const float error = ErrorOf<kType>(x, 32, line);
    if (error < least) {
      least = error;
      best = line;
      kept = e;
    }
  }
  block[BlockFormatOf(kType).scale_at] = static_cast<std::byte>(std::clamp(kept + 128, 0, 254));
  PutCodes<kType>(x, 0, 32, best, block);
}

struct Range {
  int low;
  int high;
};

// Of a format's integer scales and minima.
constexpr Range ScaleRange(SubScales kind) {
  switch (kind) {
    case SubScales::kNibblePairs:
      return {0, 15};
    case SubScales::kSixBitsAndMinima:
      return {0, 63};
    case SubScales::kInt8:
      return {-128, 127};
    default:
      return {-32, 31};
  }
}

int Nearest(float quotient, Range range) {
  const float bounded =
      std::clamp(quotient, static_cast<float>(range.low), static_cast<float>(range.high));
  return static_cast<int>(RoundEven(bounded));
}

// The integer scale and minimum of one sub-block: the best of those about the nearest.
template <DType kType>
void RefineSub(const float* x, float d, float m, Line wanted, int16_t& scale, uint8_t& minimum) {
  constexpr BlockFormat kFormat = BlockFormatOf(kType);
  constexpr Range kScales = ScaleRange(kFormat.sub_scales);
  const int near_scale = Nearest(Quotient(wanted.scale, d), kScales);
  const int near_min = Nearest(Quotient(-wanted.min, m), {0, kScales.high});
  const int reach = kFormat.has_min() ? 1 : 0;
  float least = std::numeric_limits<float>::infinity();
  for (int s = std::max(near_scale - 1, kScales.low); s <= std::min(near_scale + 1, kScales.high);
       ++s) {
    for (int n = std::max(near_min - reach, 0); n <= std::min(near_min + reach, kScales.high);
         ++n) {
      const Line line = {.scale = d * static_cast<float>(s), .min = -(m * static_cast<float>(n))};
      const float error = ErrorOf<kType>(x, kFormat.sub_elements, line);
      if (error >= least) continue;
      least = error;
      scale = static_cast<int16_t>(s);
      minimum = static_cast<uint8_t>(n);
    }
  }
}

// d and m so that the largest scale and minimum have the largest integers.
template <DType kType>
Line BlockLine(const Line* lines, uint32_t subs) {
  constexpr Range kScales = ScaleRange(BlockFormatOf(kType).sub_scales);
  float largest = 0;
  float lowest = 0;
  for (uint32_t s = 0; s < subs; ++s) {
    if (std::fabs(lines[s].scale) > std::fabs(largest)) largest = lines[s].scale;
    lowest = std::min(lowest, lines[s].min);
  }
  const int end = kScales.low < 0 ? kScales.low : kScales.high;
  return {.scale = HalfOf(largest / static_cast<float>(end)),
          .min = HalfOf(-lowest / static_cast<float>(kScales.high))};
}

template <DType kType>
void EncodeSubs(const float* x, std::byte* block) {
  constexpr BlockFormat kFormat = BlockFormatOf(kType);
  constexpr uint32_t kSub = kFormat.sub_elements;
  constexpr uint32_t kSubs = kFormat.elements / kSub;
  Line lines[kSubs];
  for (uint32_t s = 0; s < kSubs; ++s) {
    if constexpr (kFormat.has_min()) {
      lines[s] = FitLine<kType>(x + s * kSub, kSub, Minimum::kNotPositive);
    } else {
      lines[s].scale = FitScale<kType>(x + s * kSub, kSub);
    }
  }
  const Line of_block = BlockLine<kType>(lines, kSubs);
  SubValues sub;
  for (uint32_t s = 0; s < kSubs; ++s) {
    RefineSub<kType>(x + s * kSub, of_block.scale, of_block.min, lines[s], sub.scales[s],
                     sub.minima[s]);
    const Line line = {.scale = of_block.scale * static_cast<float>(sub.scales[s]),
                       .min = -(of_block.min * static_cast<float>(sub.minima[s]))};
    PutCodes<kType>(x + s * kSub, s * kSub, kSub, line, block);
  }
  PutHalf(of_block.scale, block + kFormat.scale_at);
  if constexpr (kFormat.has_min()) PutHalf(of_block.min, block + kFormat.min_at);
  WriteSubScales(kFormat.sub_scales, sub, block + kFormat.sub_at);
}

}  // namespace

void EncodeBlocks(DType dtype, uint64_t count, const float* values, std::byte* blocks) {
  WithBlockType(dtype, [&]<DType kType>() {
    constexpr BlockFormat kFormat = BlockFormatOf(kType);
    float x[kFormat.elements];
    for (uint64_t at = 0; at < count; at += kFormat.elements, blocks += kFormat.bytes) {
      for (uint32_t i = 0; i < kFormat.elements; ++i) {
        x[i] = std::clamp(values[at + i], -kBound, kBound);
      }
      std::memset(blocks, 0, kFormat.bytes);
      if constexpr (kFormat.sub_scales != SubScales::kNone) {
        EncodeSubs<kType>(x, blocks);
      } else if constexpr (kFormat.scale_bytes == 1) {
        EncodePowerOfTwo<kType>(x, blocks);
      } else {
        EncodePlain<kType>(x, blocks);
      }
    }
  });
}

}  // namespace tessera::kernels
