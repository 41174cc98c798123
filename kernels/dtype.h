// Element types of tensors, and the sizes of their storage.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/strings/string_view.h"

namespace tessera::kernels {

// Block formats store `block_elements` neighbouring elements of a row together. Their canonical
// bytes are those of GGUF (block_format.h). The types made for GPUs keep codes and scales apart
// (weight_planes.h).
enum class DType : uint8_t {
  kF32 = 0,
  kF16 = 1,
  kBF16 = 2,
  kQ8_0 = 3,
  kQ4_0 = 4,
  kQ4_1 = 5,
  kF8Channel = 6,   // e4m3, a scale for each row
  kF8Block128 = 7,  // e4m3, a scale for each 128 x 128
  kI8Channel = 8,   // int8, a scale for each row
  kI4G128 = 9,      // 4 bits, a scale for each 128 of a row
  kI4G64 = 10,
  kI4G128Zero = 11,  // and a zero point
  kI4G64Zero = 12,
  kQ5_0 = 13,
  kQ5_1 = 14,
  kQ2_K = 15,
  kQ3_K = 16,
  kQ4_K = 17,
  kQ5_K = 18,
  kQ6_K = 19,
  kIQ4_NL = 20,
  kIQ4_XS = 21,
  kMXFP4 = 22,
  kF8E4M3 = 23,  // keys and values only: e4m3 without a scale
};

inline constexpr int kDTypeCount = 24;
// Those below it can be the type of a weight; the others are types of keys and values alone.
inline constexpr int kWeightTypeCount = 23;

struct DTypeInfo {
  const char* name;         // "F32", as in manifests
  uint32_t block_elements;  // columns come in multiples of it
  uint32_t block_bytes;     // bytes a block; of its codes alone where planes are kept apart
};

[[nodiscard]] const DTypeInfo& InfoOf(DType dtype);
[[nodiscard]] std::optional<DType> DTypeFromName(absl::string_view name);

[[nodiscard]] constexpr bool IsWeightType(DType dtype) {
  return static_cast<int>(dtype) < kWeightTypeCount;
}
// F32, F16, BF16: each element is its own value.
[[nodiscard]] constexpr bool IsFloatType(DType dtype) { return dtype <= DType::kBF16; }
// The types of GGUF that are quantized: a row is a sequence of blocks.
[[nodiscard]] constexpr bool IsBlockFormat(DType dtype) {
  return (dtype >= DType::kQ8_0 && dtype <= DType::kQ4_1) ||
         (dtype >= DType::kQ5_0 && dtype <= DType::kMXFP4);
}

// Bytes of `rows` x `columns` elements; nullopt on overflow, when `columns` is no multiple of the
// block, or when a type with planes has a dimension of 2^31 or more.
[[nodiscard]] std::optional<uint64_t> StorageBytes(DType dtype, uint64_t rows, uint64_t columns);

// Round to nearest even, as the hardware converts.
[[nodiscard]] float F16ToF32(uint16_t bits);
[[nodiscard]] uint16_t F32ToF16(float value);
[[nodiscard]] float BF16ToF32(uint16_t bits);
[[nodiscard]] uint16_t F32ToBF16(float value);
// e4m3 without infinities. What rounds above 448, infinity too, becomes 448 of its sign.
[[nodiscard]] float F8E4M3ToF32(uint8_t bits);
[[nodiscard]] uint8_t F32ToF8E4M3(float value);

}  // namespace tessera::kernels
