#include "kernels/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

namespace tessera::kernels {
namespace {

TEST(DTypeTest, NamesRoundTrip) {
  for (int i = 0; i < kDTypeCount; ++i) {
    const DType dtype = static_cast<DType>(i);
    EXPECT_EQ(DTypeFromName(InfoOf(dtype).name), dtype);
  }
  EXPECT_EQ(DTypeFromName("IQ2_XS"), std::nullopt);
}

TEST(DTypeTest, StorageBytes) {
  EXPECT_EQ(StorageBytes(DType::kQ4_1, 3, 64), 3u * 2 * 20);
  EXPECT_EQ(StorageBytes(DType::kQ8_0, 1, 33), std::nullopt);
  EXPECT_EQ(StorageBytes(DType::kQ6_K, 3, 512), 3u * 2 * 210);
  EXPECT_EQ(StorageBytes(DType::kQ4_K, 1, 128), std::nullopt);
  EXPECT_EQ(StorageBytes(DType::kF32, uint64_t{1} << 40, uint64_t{1} << 40), std::nullopt);
  EXPECT_EQ(StorageBytes(DType::kF16, 0, 5), 0u);
}

TEST(DTypeTest, StorageOfPlanesCountsScalesZerosAndPadding) {
  EXPECT_EQ(StorageBytes(DType::kF8Channel, 3, 5), 16u + 3 * 4);
  EXPECT_EQ(StorageBytes(DType::kI8Channel, 16, 64), 1024u + 64);
  EXPECT_EQ(StorageBytes(DType::kF8Block128, 129, 130), 16784u + 2 * 2 * 4);
  EXPECT_EQ(StorageBytes(DType::kI4G128, 3, 256), 384u + 3 * 2 * 2);
  EXPECT_EQ(StorageBytes(DType::kI4G64, 3, 64), 96u + 6);
  EXPECT_EQ(StorageBytes(DType::kI4G64Zero, 3, 128), 192u + 16 + 6);
  EXPECT_EQ(StorageBytes(DType::kI4G128, 3, 64), std::nullopt);
  EXPECT_EQ(StorageBytes(DType::kI8Channel, uint64_t{1} << 31, 1), std::nullopt);
}

TEST(DTypeTest, EveryE4M3Survives) {
  for (uint32_t bits = 0; bits < 256; ++bits) {
    const float value = F8E4M3ToF32(static_cast<uint8_t>(bits));
    EXPECT_EQ(std::isnan(value), (bits & 0x7f) == 0x7f);
    if (std::isnan(value)) continue;
    EXPECT_EQ(F32ToF8E4M3(value), bits);
  }
  EXPECT_EQ(F8E4M3ToF32(0x7e), 448.0f);
  EXPECT_EQ(F8E4M3ToF32(0x01), 0x1p-9f);
  EXPECT_EQ(F8E4M3ToF32(0x88), -0x1p-6f);
}

TEST(DTypeTest, E4M3RoundsToNearestEvenAndSaturates) {
  // Between each two neighbours: below the middle, the middle, above it.
  for (uint8_t low = 0; low < 0x7e; ++low) {
    const float a = F8E4M3ToF32(low);
    const float b = F8E4M3ToF32(static_cast<uint8_t>(low + 1));
    const float middle = (a + b) / 2;
    const uint8_t even = low % 2 == 0 ? low : static_cast<uint8_t>(low + 1);
    EXPECT_EQ(F32ToF8E4M3(middle), even);
    EXPECT_EQ(F32ToF8E4M3(std::nextafter(middle, 0.0f)), low);
    EXPECT_EQ(F32ToF8E4M3(-std::nextafter(middle, 1e9f)), 0x80 | (low + 1));
  }
  for (const float value : {449.0f, 463.0f, 464.0f, 465.0f, 1e30f, INFINITY}) {
    EXPECT_EQ(F32ToF8E4M3(value), 0x7e);
    EXPECT_EQ(F32ToF8E4M3(-value), 0xfe);
  }
  EXPECT_EQ(F32ToF8E4M3(NAN) & 0x7f, 0x7f);
}

TEST(DTypeTest, EveryHalfSurvives) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float value = F16ToF32(static_cast<uint16_t>(bits));
    if (std::isnan(value)) continue;
    EXPECT_EQ(F32ToF16(value), bits);
    EXPECT_EQ(F32ToBF16(BF16ToF32(static_cast<uint16_t>(bits & 0xff7f))), bits & 0xff7f);
  }
}

TEST(DTypeTest, HalfRoundsToNearestEven) {
  EXPECT_EQ(F32ToF16(1.0f + 0x1p-11f), 0x3c00);  // a tie goes to even
  EXPECT_EQ(F32ToF16(1.0f + 0x3p-11f), 0x3c02);
  EXPECT_EQ(F32ToF16(1.0f + 0x1p-11f + 0x1p-20f), 0x3c01);
  EXPECT_EQ(F32ToF16(65519.0f), 0x7bff);
  EXPECT_EQ(F32ToF16(65520.0f), 0x7c00);
  EXPECT_EQ(F32ToF16(-INFINITY), 0xfc00);
  EXPECT_EQ(F32ToF16(0x1p-25f), 0);
  EXPECT_EQ(F32ToF16(0x1.8p-25f), 1);
  EXPECT_TRUE(std::isnan(F16ToF32(F32ToF16(NAN))));
  EXPECT_EQ(F32ToBF16(1.0f + 0x1p-8f), 0x3f80);
  EXPECT_EQ(F32ToBF16(1.0f + 0x3p-8f), 0x3f82);
  EXPECT_TRUE(std::isnan(BF16ToF32(F32ToBF16(NAN))));
}

}  // namespace
}  // namespace tessera::kernels
