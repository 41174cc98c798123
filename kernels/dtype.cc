#include "kernels/dtype.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "config/foundation/check.h"
#include "kernels/block_format.h"
#include "kernels/weight_planes.h"

namespace tessera::kernels {
namespace {

constexpr DTypeInfo BlockInfo(const char* name, DType dtype) {
  return {name, BlockFormatOf(dtype).elements, BlockFormatOf(dtype).bytes};
}

constexpr DTypeInfo kInfo[kDTypeCount] = {
    {"F32", 1, 4},
    {"F16", 1, 2},
    {"BF16", 1, 2},
    BlockInfo("Q8_0", DType::kQ8_0),
    BlockInfo("Q4_0", DType::kQ4_0),
    BlockInfo("Q4_1", DType::kQ4_1),
    {"F8_CHANNEL", 1, 1},
    {"F8_BLOCK128", 1, 1},
    {"I8_CHANNEL", 1, 1},
    {"I4_G128", 128, 64},
    {"I4_G64", 64, 32},
    {"I4_G128_ZERO", 128, 64},
    {"I4_G64_ZERO", 64, 32},
    BlockInfo("Q5_0", DType::kQ5_0),
    BlockInfo("Q5_1", DType::kQ5_1),
    BlockInfo("Q2_K", DType::kQ2_K),
    BlockInfo("Q3_K", DType::kQ3_K),
    BlockInfo("Q4_K", DType::kQ4_K),
    BlockInfo("Q5_K", DType::kQ5_K),
    BlockInfo("Q6_K", DType::kQ6_K),
    BlockInfo("IQ4_NL", DType::kIQ4_NL),
    BlockInfo("IQ4_XS", DType::kIQ4_XS),
    BlockInfo("MXFP4", DType::kMXFP4),
    {"F8_E4M3", 1, 1},
};

uint32_t BitsOf(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

float FloatOf(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

}  // namespace

const DTypeInfo& InfoOf(DType dtype) {
  TESSERA_CHECK(static_cast<int>(dtype) < kDTypeCount);
  return kInfo[static_cast<int>(dtype)];
}

std::optional<DType> DTypeFromName(absl::string_view name) {
  for (int i = 0; i < kDTypeCount; ++i) {
    if (name == kInfo[i].name) return static_cast<DType>(i);
  }
  return std::nullopt;
}

std::optional<uint64_t> StorageBytes(DType dtype, uint64_t rows, uint64_t columns) {
  const DTypeInfo& info = InfoOf(dtype);
  if (columns % info.block_elements != 0) return std::nullopt;
  if (HasPlanes(dtype)) {
    if (rows > INT32_MAX || columns > INT32_MAX) return std::nullopt;
    return PlanesOf(dtype, rows, columns).bytes;
  }
  uint64_t row_bytes = 0;
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(columns / info.block_elements, uint64_t{info.block_bytes},
                             &row_bytes) ||
      __builtin_mul_overflow(rows, row_bytes, &bytes)) {
    return std::nullopt;
  }
  return bytes;
}

float F16ToF32(uint16_t bits) {
  const uint32_t sign = uint32_t{bits & 0x8000u} << 16;
  const uint32_t exponent = bits >> 10 & 31;
  const uint32_t fraction = bits & 0x3ffu;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return FloatOf(BitsOf(magnitude) | sign);
  }
  if (exponent == 31) {
    return FloatOf(sign | 0x7f800000u | fraction << 13 | (fraction != 0 ? 0x400000u : 0u));
  }
  return FloatOf(sign | (exponent + 112) << 23 | fraction << 13);
}

uint16_t F32ToF16(float value) {
  const uint32_t bits = BitsOf(value);
  const uint32_t sign = bits >> 16 & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u | (magnitude >> 13 & 0x3ffu);
  } else if (magnitude >= 0x477ff000u) {  // 65520 and above round to infinity
    half = 0x7c00u;
  } else if (magnitude < 0x38800000u) {  // below 2^-14: a multiple of 2^-24, exact in the sum
    half = BitsOf(FloatOf(magnitude) + 0.5f) - BitsOf(0.5f);
  } else {
    half = (magnitude + 0xfffu + (magnitude >> 13 & 1) - 0x38000000u) >> 13;
  }
  return static_cast<uint16_t>(sign | half);
}

float BF16ToF32(uint16_t bits) { return FloatOf(uint32_t{bits} << 16); }

uint16_t F32ToBF16(float value) {
  const uint32_t bits = BitsOf(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

float F8E4M3ToF32(uint8_t bits) {
  const uint32_t sign = uint32_t{bits & 0x80u} << 24;
  const uint32_t magnitude = bits & 0x7fu;
  if (magnitude == 0x7f) return FloatOf(sign | 0x7fc00000u);
  if (magnitude < 8) return FloatOf(BitsOf(static_cast<float>(magnitude) * 0x1p-9f) | sign);
  return FloatOf(sign | ((magnitude << 20) + (120u << 23)));
}

uint8_t F32ToF8E4M3(float value) {
  const uint32_t bits = BitsOf(value);
  const uint32_t sign = bits >> 24 & 0x80u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t code;
  if (magnitude > 0x7f800000u) {
    code = 0x7f;
  } else if (magnitude >= 0x43e80000u) {  // 464, halfway to what would be 480
    code = 0x7e;
  } else if (magnitude < 0x3c800000u) {  // below 2^-6: a multiple of 2^-9, exact in the sum
    code = BitsOf(FloatOf(magnitude) + 0x1p14f) - BitsOf(0x1p14f);
  } else {
    code = (magnitude + 0x7ffffu + (magnitude >> 20 & 1) - (120u << 23)) >> 20;
  }
  return static_cast<uint8_t>(sign | code);
}

}  // namespace tessera::kernels
