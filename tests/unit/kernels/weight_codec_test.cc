#include "kernels/weight_codec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/weight_planes.h"

namespace tessera::kernels {
namespace {

constexpr DType kPlaneTypes[] = {DType::kF8Channel, DType::kF8Block128, DType::kI8Channel,
                                 DType::kI4G128,    DType::kI4G64,      DType::kI4G128Zero,
                                 DType::kI4G64Zero};

std::vector<float> Normal(uint64_t count, uint32_t seed, float middle = 0) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal(middle, 0.02f);
  std::vector<float> values(count);
  for (float& value : values) value = normal(engine);
  return values;
}

std::vector<std::byte> Encode(DType dtype, uint64_t out, uint64_t in,
                              const std::vector<float>& values) {
  std::vector<std::byte> bytes(StorageBytes(dtype, out, in).value());
  for (uint64_t row = 0; row < out; row += kBandRows) {
    EncodeBand(dtype, out, in, row, std::min(kBandRows, out - row), values.data() + row * in,
               bytes.data());
  }
  return bytes;
}

std::vector<float> Decode(DType dtype, uint64_t out, uint64_t in,
                          const std::vector<std::byte>& bytes) {
  std::vector<float> values(out * in);
  for (uint64_t row = 0; row < out; ++row) {
    DecodeRow(dtype, out, in, bytes.data(), row, values.data() + row * in);
  }
  return values;
}

double RelativeError(const std::vector<float>& values, const std::vector<float>& back) {
  double error = 0;
  double weight = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    error += (double{back[i]} - values[i]) * (double{back[i]} - values[i]);
    weight += double{values[i]} * values[i];
  }
  return std::sqrt(error / weight);
}

// What the grids can do on normal weights: a type that were read or written wrongly would be far
// off, one that were rounded badly outside the bound.
TEST(WeightCodecTest, LosesNoMoreThanItsGrid) {
  constexpr uint64_t kOut = 300, kIn = 256;
  const std::vector<float> values = Normal(kOut * kIn, 1);
  const struct {
    DType dtype;
    double low, high;
  } bounds[] = {{DType::kBF16, 0.001, 0.002},     {DType::kF8Channel, 0.02, 0.03},
                {DType::kF8Block128, 0.02, 0.03}, {DType::kI8Channel, 0.004, 0.01},
                {DType::kI4G128, 0.08, 0.12},     {DType::kI4G64, 0.07, 0.11},
                {DType::kI4G128Zero, 0.07, 0.11}, {DType::kI4G64Zero, 0.06, 0.1}};
  for (const auto& [dtype, low, high] : bounds) {
    const double error =
        RelativeError(values, Decode(dtype, kOut, kIn, Encode(dtype, kOut, kIn, values)));
    EXPECT_GT(error, low) << InfoOf(dtype).name;
    EXPECT_LT(error, high) << InfoOf(dtype).name;
  }
}

TEST(WeightCodecTest, EightBitCodesAreTheNearest) {
  constexpr uint64_t kOut = 130, kIn = 140;
  const std::vector<float> values = Normal(kOut * kIn, 2);
  for (const DType dtype : {DType::kF8Channel, DType::kF8Block128, DType::kI8Channel}) {
    const std::vector<std::byte> bytes = Encode(dtype, kOut, kIn, values);
    const std::vector<float> back = Decode(dtype, kOut, kIn, bytes);
    const WeightPlanes planes = PlanesOf(dtype, kOut, kIn);
    for (uint64_t i = 0; i < values.size(); ++i) {
      const uint64_t row = i / kIn;
      const uint64_t at = dtype == DType::kF8Block128 ? row / 128 * 2 + i % kIn / 128 : row;
      float scale;
      std::memcpy(&scale, &bytes[planes.scales_offset + at * 4], 4);
      const float quotient = values[i] / scale;
      // Half a step of the grid: 1 for int8; 2^(e - 3) for e4m3, at least 2^-9.
      const float step =
          dtype == DType::kI8Channel
              ? 1.0f
              : std::exp2(std::max(-9.0f, std::floor(std::log2(std::fabs(quotient))) - 3));
      EXPECT_LE(std::fabs(back[i] / scale - quotient), 0.5001f * step) << InfoOf(dtype).name;
    }
  }
}

TEST(WeightCodecTest, ZeroPointsHelpShiftedWeights) {
  constexpr uint64_t kOut = 128, kIn = 128;
  const std::vector<float> values = Normal(kOut * kIn, 3, 0.05f);
  const auto loss = [&](DType dtype) {
    return RelativeError(values, Decode(dtype, kOut, kIn, Encode(dtype, kOut, kIn, values)));
  };
  EXPECT_LT(loss(DType::kI4G128Zero), 0.7 * loss(DType::kI4G128));
}

TEST(WeightCodecTest, ZerosTinyAndHugeStayFinite) {
  constexpr uint64_t kOut = 4, kIn = 128;
  for (const DType dtype : kPlaneTypes) {
    std::vector<float> values(kOut * kIn, 0.0f);
    for (uint64_t i = 0; i < kIn; ++i) values[kIn + i] = i % 2 == 0 ? 1e-38f : -1e-38f;
    for (uint64_t i = 0; i < kIn; ++i) values[2 * kIn + i] = i % 2 == 0 ? 1e38f : -1e38f;
    values[3 * kIn + 5] = -3.0f;  // alone in its row
    const std::vector<float> back = Decode(dtype, kOut, kIn, Encode(dtype, kOut, kIn, values));
    for (uint64_t i = 0; i < back.size(); ++i) EXPECT_TRUE(std::isfinite(back[i])) << i;
    if (dtype == DType::kF8Block128) continue;
    for (uint64_t i = 0; i < kIn; ++i) EXPECT_EQ(back[i], 0);
    EXPECT_NEAR(back[3 * kIn + 5], -3.0f, 0.01f) << InfoOf(dtype).name;
  }
}

TEST(WeightCodecTest, BlockFormatsAreRead) {
  std::vector<std::byte> q4(20);
  const uint16_t half[] = {F32ToF16(0.5f), F32ToF16(-2.0f)};
  std::memcpy(q4.data(), half, 4);
  q4[4] = std::byte{0x5a};
  float values[32];
  DecodeRow(DType::kQ4_1, 1, 32, q4.data(), 0, values);
  EXPECT_EQ(values[0], 10 * 0.5f - 2);
  EXPECT_EQ(values[16], 5 * 0.5f - 2);
  DecodeRow(DType::kQ4_0, 1, 32, q4.data(), 0, values);  // its codes begin two bytes earlier
  EXPECT_EQ(values[2], 0.5f * (10 - 8));
  std::vector<std::byte> q8(34);
  std::memcpy(q8.data(), half, 2);
  q8[2 + 31] = std::byte{0x80};
  DecodeRow(DType::kQ8_0, 1, 32, q8.data(), 0, values);
  EXPECT_EQ(values[31], -64.0f);
}

// Of a second row, so that blocks of a row are counted rightly; the bits of all formats are
// compared with another implementation in tests/golden/test_weight_types.py.
TEST(WeightCodecTest, BlocksOf256AreRead) {
  std::vector<std::byte> q6(2 * 210);
  const uint16_t half = F32ToF16(0.25f);
  std::memcpy(&q6[210 + 208], &half, 2);
  q6[210 + 192 + 7] = std::byte{0xfe};   // scale -2 of elements 112..127
  q6[210 + 32 + 20] = std::byte{0x70};   // element 116 = 96 + 20: low bits 7
  q6[210 + 128 + 20] = std::byte{0x80};  // its high bits 2
  float values[256];
  DecodeRow(DType::kQ6_K, 2, 256, q6.data(), 1, values);
  EXPECT_EQ(values[116], 0.25f * -2 * (7 + 2 * 16 - 32));
  EXPECT_EQ(values[117], 0.25f * -2 * -32);
  EXPECT_EQ(values[0], 0);
}

// Written and read back, each format is as far off as its bits allow.
TEST(WeightCodecTest, BlockFormatsLoseNoMoreThanTheirGrid) {
  constexpr uint64_t kOut = 20, kIn = 512;
  const std::vector<float> values = Normal(kOut * kIn, 4);
  const struct {
    DType dtype;
    double low, high;
  } bounds[] = {
      {DType::kQ8_0, 0.003, 0.007}, {DType::kQ4_0, 0.06, 0.1},     {DType::kQ4_1, 0.05, 0.085},
      {DType::kQ5_0, 0.03, 0.05},   {DType::kQ5_1, 0.025, 0.045},  {DType::kQ2_K, 0.2, 0.36},
      {DType::kQ3_K, 0.1, 0.19},    {DType::kQ4_K, 0.05, 0.09},    {DType::kQ5_K, 0.025, 0.045},
      {DType::kQ6_K, 0.01, 0.025},  {DType::kIQ4_NL, 0.05, 0.085}, {DType::kIQ4_XS, 0.05, 0.09},
      {DType::kMXFP4, 0.08, 0.13}};
  for (const auto& [dtype, low, high] : bounds) {
    const double error =
        RelativeError(values, Decode(dtype, kOut, kIn, Encode(dtype, kOut, kIn, values)));
    EXPECT_GT(error, low) << InfoOf(dtype).name;
    EXPECT_LT(error, high) << InfoOf(dtype).name;
  }
}

// What a format holds exactly comes back exactly, whatever its scales are.
TEST(WeightCodecTest, ZerosTinyAndHugeStayFiniteInBlocks) {
  constexpr uint64_t kOut = 4, kIn = 256;
  for (int i = 0; i < kWeightTypeCount; ++i) {
    const auto dtype = static_cast<DType>(i);
    if (!IsBlockFormat(dtype)) continue;
    std::vector<float> values(kOut * kIn, 0.0f);
    for (uint64_t k = 0; k < kIn; ++k) values[kIn + k] = k % 2 == 0 ? 1e-38f : -1e-38f;
    for (uint64_t k = 0; k < kIn; ++k) values[2 * kIn + k] = k % 2 == 0 ? 1e38f : -1e38f;
    values[3 * kIn + 5] = -3.0f;  // alone in its row
    const std::vector<float> back = Decode(dtype, kOut, kIn, Encode(dtype, kOut, kIn, values));
    for (uint64_t k = 0; k < back.size(); ++k) ASSERT_TRUE(std::isfinite(back[k])) << k;
    for (uint64_t k = 0; k < kIn; ++k) EXPECT_NEAR(back[k], 0, 1e-30) << InfoOf(dtype).name;
    EXPECT_NEAR(back[3 * kIn + 5], -3.0f, 0.01f) << InfoOf(dtype).name;
  }
}

}  // namespace
}  // namespace tessera::kernels
