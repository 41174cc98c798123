#include "kernels/weight_codec.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "config/foundation/check.h"
#include "kernels/block_codec.h"
#include "kernels/block_encoder.h"
#include "kernels/weight_planes.h"

namespace tessera::kernels {
namespace {

constexpr int kShrinks = 7;  // of int4 scales: 1, 0.95, …, 0.7
constexpr float kLargestHalf = 65504;

template <typename T>
T Read(const std::byte* p) {
  T value;
  std::memcpy(&value, p, sizeof(value));
  return value;
}

template <typename T>
void Write(std::byte* p, T value) {
  std::memcpy(p, &value, sizeof(value));
}

// To the nearest integer, ties to even, for |x| below 2^22: the sum has no bits for a fraction.
float RoundEven(float x) {
  const float sum = x + 0x1.8p23f;
  return sum - 0x1.8p23f;
}

bool IsInt4(DType dtype) { return HasPlanes(dtype) && InfoOf(dtype).block_elements > 1; }

void DecodePlanes(DType dtype, uint64_t out, uint64_t in, const std::byte* canonical, uint64_t row,
                  float* values) {
  const WeightPlanes planes = PlanesOf(dtype, out, in);
  const std::byte* scales = canonical + planes.scales_offset;
  const uint64_t group = ScaleGroup(dtype) == 0 ? in : ScaleGroup(dtype);
  const uint64_t groups = (in + group - 1) / group;
  const uint64_t first = (dtype == DType::kF8Block128 ? row / 128 : row) * groups;
  for (uint64_t k = 0; k < in; ++k) {
    const uint64_t at = first + k / group;
    const uint64_t element = row * in + k;
    if (IsInt4(dtype)) {
      const auto byte = static_cast<uint8_t>(canonical[element / 2]);
      const int code = k % 2 == 0 ? byte & 15 : byte >> 4;
      const int zero =
          planes.zeros_bytes == 0 ? 8 : static_cast<int>(canonical[planes.zeros_offset + at]);
      values[k] = F16ToF32(Read<uint16_t>(scales + at * 2)) * static_cast<float>(code - zero);
      continue;
    }
    const auto byte = static_cast<uint8_t>(canonical[element]);
    const float code = dtype == DType::kI8Channel ? static_cast<float>(static_cast<int8_t>(byte))
                                                  : F8E4M3ToF32(byte);
    values[k] = Read<float>(scales + at * 4) * code;
  }
}

float LargestOf(const float* values, uint64_t count, float largest) {
  for (uint64_t i = 0; i < count; ++i) largest = std::max(largest, std::fabs(values[i]));
  return largest;
}

std::byte Code8(DType dtype, float value, float scale) {
  if (scale == 0) return std::byte{0};
  const float quotient = value / scale;
  if (dtype != DType::kI8Channel) return static_cast<std::byte>(F32ToF8E4M3(quotient));
  const float rounded = RoundEven(std::clamp(quotient, -127.0f, 127.0f));
  return static_cast<std::byte>(static_cast<int8_t>(rounded));
}

// F8_CHANNEL and I8_CHANNEL: one row. F8_BLOCK128: the band, block by block.
void Encode8(DType dtype, uint64_t out, uint64_t in, uint64_t row, uint64_t rows,
             const float* values, std::byte* canonical) {
  const WeightPlanes planes = PlanesOf(dtype, out, in);
  const float largest_code = dtype == DType::kI8Channel ? 127.0f : 448.0f;
  const bool blocks = dtype == DType::kF8Block128;
  const uint64_t width = blocks ? 128 : in;
  const uint64_t height = blocks ? rows : 1;
  const uint64_t groups = (in + width - 1) / width;
  for (uint64_t r = 0; r < rows; r += height) {
    for (uint64_t g = 0; g < groups; ++g) {
      const uint64_t begin = g * width;
      const uint64_t count = std::min(width, in - begin);
      float largest = 0;
      for (uint64_t i = r; i < r + height; ++i) {
        largest = LargestOf(values + i * in + begin, count, largest);
      }
      const float scale = largest / largest_code;
      const uint64_t at = (blocks ? row / 128 : row + r) * groups + g;
      Write(canonical + planes.scales_offset + at * 4, scale);
      for (uint64_t i = r; i < r + height; ++i) {
        for (uint64_t k = begin; k < begin + count; ++k) {
          canonical[(row + i) * in + k] = Code8(dtype, values[i * in + k], scale);
        }
      }
    }
  }
}

struct Group4 {
  uint16_t scale_bits = 0;
  int zero = 8;
  uint8_t codes[128];
};

void FillCodes(const float* values, uint64_t count, float scale, Group4& group) {
  for (uint64_t i = 0; i < count; ++i) {
    // Bounded as a float: a quotient may be past any integer.
    const float quotient = scale == 0 ? 0 : std::clamp(values[i] / scale, -16.0f, 16.0f);
    const int code = static_cast<int>(RoundEven(quotient)) + group.zero;
    group.codes[i] = static_cast<uint8_t>(std::clamp(code, 0, 15));
  }
}

double SquaredError(const float* values, uint64_t count, float scale, const Group4& group) {
  double sum = 0;
  for (uint64_t i = 0; i < count; ++i) {
    const double error = double{scale} * (group.codes[i] - group.zero) - values[i];
    sum += error * error;
  }
  return sum;
}

Group4 EncodeGroup4(const float* values, uint64_t count, bool zeros) {
  float low = 0;
  float high = 0;
  for (uint64_t i = 0; i < count; ++i) {
    low = std::min(low, values[i]);
    high = std::max(high, values[i]);
  }
  const float unit = zeros ? (high - low) / 15 : std::max(high, -low) / 7;
  Group4 best;
  double least = std::numeric_limits<double>::infinity();
  for (int j = 0; j < kShrinks; ++j) {
    const float factor = 1 - 0.05f * static_cast<float>(j);
    Group4 group;
    group.scale_bits = F32ToF16(std::min(unit * factor, kLargestHalf));
    const float scale = F16ToF32(group.scale_bits);
    if (zeros && scale > 0) {
      group.zero = static_cast<int>(RoundEven(std::min(-low * factor / scale, 15.0f)));
    }
    FillCodes(values, count, scale, group);
    const double error = SquaredError(values, count, scale, group);
    if (error < least) {
      least = error;
      best = group;
    }
  }
  return best;
}

void Encode4(DType dtype, uint64_t out, uint64_t in, uint64_t row, uint64_t rows,
             const float* values, std::byte* canonical) {
  const WeightPlanes planes = PlanesOf(dtype, out, in);
  const uint64_t width = ScaleGroup(dtype);
  const uint64_t groups = in / width;
  for (uint64_t g = 0; g < rows * groups; ++g) {
    const Group4 group = EncodeGroup4(values + g * width, width, planes.zeros_bytes > 0);
    const uint64_t at = row * groups + g;
    Write(canonical + planes.scales_offset + at * 2, group.scale_bits);
    if (planes.zeros_bytes > 0) {
      canonical[planes.zeros_offset + at] = static_cast<std::byte>(group.zero);
    }
    std::byte* codes = canonical + at * (width / 2);
    for (uint64_t i = 0; i < width; i += 2) {
      codes[i / 2] = static_cast<std::byte>(group.codes[i] | group.codes[i + 1] << 4);
    }
  }
}

}  // namespace

void DecodeRow(DType dtype, uint64_t out, uint64_t in, const std::byte* canonical, uint64_t row,
               float* values) {
  TESSERA_CHECK(IsWeightType(dtype));
  if (HasPlanes(dtype)) return DecodePlanes(dtype, out, in, canonical, row, values);
  const DTypeInfo& info = InfoOf(dtype);
  const std::byte* from = canonical + row * (in / info.block_elements) * info.block_bytes;
  if (IsBlockFormat(dtype)) return DecodeBlocks(dtype, in, from, values);
  for (uint64_t k = 0; k < in; ++k) {
    if (dtype == DType::kF32) {
      values[k] = Read<float>(from + 4 * k);
    } else {
      const auto bits = Read<uint16_t>(from + 2 * k);
      values[k] = dtype == DType::kF16 ? F16ToF32(bits) : BF16ToF32(bits);
    }
  }
}

bool HasEncoder(DType dtype) {
  return dtype == DType::kBF16 || HasPlanes(dtype) || IsBlockFormat(dtype);
}

DType WithBlocksOf32(DType dtype) {
  switch (dtype) {
    case DType::kQ2_K:
    case DType::kQ3_K:
    case DType::kIQ4_XS:
      return DType::kIQ4_NL;
    case DType::kQ4_K:
      return DType::kQ5_0;
    case DType::kQ5_K:
      return DType::kQ5_1;
    case DType::kQ6_K:
      return DType::kQ8_0;
    default:
      return dtype;
  }
}

void EncodeBand(DType dtype, uint64_t out, uint64_t in, uint64_t row, uint64_t rows,
                const float* values, std::byte* canonical) {
  TESSERA_CHECK(HasEncoder(dtype) && row % kBandRows == 0);
  if (IsInt4(dtype)) return Encode4(dtype, out, in, row, rows, values, canonical);
  if (HasPlanes(dtype)) return Encode8(dtype, out, in, row, rows, values, canonical);
  if (IsBlockFormat(dtype)) {
    const DTypeInfo& info = InfoOf(dtype);
    const uint64_t row_bytes = in / info.block_elements * info.block_bytes;
    return EncodeBlocks(dtype, rows * in, values, canonical + row * row_bytes);
  }
  for (uint64_t i = 0; i < rows * in; ++i) {
    Write(canonical + (row * in + i) * 2, F32ToBF16(values[i]));
  }
}

}  // namespace tessera::kernels
