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
  EXPECT_EQ(DTypeFromName("Q5_K"), std::nullopt);
}

TEST(DTypeTest, StorageBytes) {
  EXPECT_EQ(StorageBytes(DType::kQ4_1, 3, 64), 3u * 2 * 20);
  EXPECT_EQ(StorageBytes(DType::kQ8_0, 1, 33), std::nullopt);
  EXPECT_EQ(StorageBytes(DType::kF32, uint64_t{1} << 40, uint64_t{1} << 40), std::nullopt);
  EXPECT_EQ(StorageBytes(DType::kF16, 0, 5), 0u);
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
