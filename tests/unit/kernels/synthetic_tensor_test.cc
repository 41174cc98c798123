#include "kernels/synthetic_tensor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/weight_planes.h"

namespace tessera::kernels {
namespace {

SyntheticTensor Make(DType dtype, uint64_t rows, uint64_t columns, uint64_t seed, float scale) {
  const StatusOr<SyntheticTensor> made =
      MakeSyntheticTensor(dtype, rows, columns, SyntheticAlgorithm::kNormal, seed, scale);
  EXPECT_TRUE(made.ok()) << made.status();
  return made.value_or(SyntheticTensor());
}

std::vector<std::byte> Bytes(const SyntheticTensor& tensor, int threads = 1) {
  std::vector<std::byte> bytes(tensor.bytes, std::byte{0xee});
  FillSynthetic(tensor, bytes, threads);
  return bytes;
}

const std::vector<DType>& Types() {
  static const auto* types = new std::vector<DType>{
      DType::kF32,    DType::kBF16,  DType::kF8Channel,  DType::kF8Block128, DType::kI8Channel,
      DType::kI4G128, DType::kI4G64, DType::kI4G128Zero, DType::kI4G64Zero};
  return *types;
}

// The published output of SplitMix64 for seed 1234567.
TEST(SyntheticTest, HashIsSplitMix64) {
  EXPECT_EQ(SyntheticHash(1234567, 0), 6457827717110365317u);
  EXPECT_EQ(SyntheticHash(1234567, 1), 3203168211198807973u);
  EXPECT_EQ(SyntheticHash(1234567, 2), 9817491932198370423u);
}

TEST(SyntheticTest, E4M3OfIntegersRoundsToNearestEven) {
  for (int32_t n = -131070; n <= 131070; ++n) {
    const float value = static_cast<float>(n) * 7 / 2048;  // exact
    const uint8_t expected = n == 0 ? 0 : F32ToF8E4M3(value);
    ASSERT_EQ(SyntheticF8(n), expected) << n;
  }
}

TEST(SyntheticTest, FloatsAreOneProductRounded) {
  const SyntheticTensor f32 = Make(DType::kF32, 3, 50, 9, 1e-5f);
  const SyntheticTensor bf16 = Make(DType::kBF16, 3, 50, 9, 1e-5f);
  const std::vector<std::byte> wide = Bytes(f32);
  const std::vector<std::byte> narrow = Bytes(bf16);
  for (size_t i = 0; i < 150; ++i) {
    float value;
    uint16_t bits;
    std::memcpy(&value, wide.data() + 4 * i, 4);
    std::memcpy(&bits, narrow.data() + 2 * i, 2);
    EXPECT_EQ(value, static_cast<float>(SyntheticInteger(f32, i)) * 1e-5f);
    EXPECT_EQ(bits, F32ToBF16(value));
  }
}

// The values that canonical bytes of `dtype` mean, by weight_planes.h.
std::vector<double> ValuesOf(DType dtype, uint64_t out, uint64_t in,
                             const std::vector<std::byte>& bytes) {
  std::vector<double> values;
  const WeightPlanes planes = PlanesOf(dtype, out, in);
  const bool int4 = InfoOf(dtype).block_elements > 1;
  for (uint64_t i = 0; i < out * in; ++i) {
    const auto byte = static_cast<uint8_t>(bytes[int4 ? i / 2 : i]);
    float scale;
    std::memcpy(&scale, &bytes[planes.scales_offset], 4);
    double code = dtype == DType::kI8Channel ? static_cast<int8_t>(byte) : F8E4M3ToF32(byte);
    if (int4) {
      uint16_t half;
      std::memcpy(&half, &bytes[planes.scales_offset], 2);
      scale = F16ToF32(half);
      const int zero = planes.zeros_bytes == 0
                           ? 8
                           : static_cast<int>(bytes[planes.zeros_offset + i / ScaleGroup(dtype)]);
      code = (i % 2 == 0 ? byte & 15 : byte >> 4) - zero;
    }
    values.push_back(scale * code);
  }
  return values;
}

TEST(SyntheticTest, EveryTypeHasTheDeviationThatIsAskedFor) {
  constexpr uint64_t kOut = 256, kIn = 512;
  for (const DType dtype : Types()) {
    if (!HasPlanes(dtype)) continue;
    const float scale = SyntheticScale(dtype, 0.02 / SyntheticDeviation(dtype));
    const std::vector<double> values =
        ValuesOf(dtype, kOut, kIn, Bytes(Make(dtype, kOut, kIn, 5, scale)));
    double sum = 0;
    double squares = 0;
    for (const double value : values) {
      sum += value;
      squares += value * value;
    }
    const auto count = static_cast<double>(values.size());
    EXPECT_NEAR(sum / count, 0, 0.0003) << InfoOf(dtype).name;
    EXPECT_NEAR(std::sqrt(squares / count), 0.02, 0.0002) << InfoOf(dtype).name;
  }
}

TEST(SyntheticTest, ScalesAreEqualZerosInRangeAndGapsEmpty) {
  constexpr uint64_t kOut = 5, kIn = 128;
  for (const DType dtype : Types()) {
    if (!HasPlanes(dtype)) continue;
    const float scale = SyntheticScale(dtype, 0.01);
    const std::vector<std::byte> bytes = Bytes(Make(dtype, kOut, kIn, 6, scale));
    const WeightPlanes planes = PlanesOf(dtype, kOut, kIn);
    ASSERT_EQ(bytes.size(), planes.bytes);
    for (uint64_t i = planes.codes_bytes; i < planes.scales_offset; ++i) {
      EXPECT_EQ(bytes[i], std::byte{0});
    }
    const uint64_t width = InfoOf(dtype).block_elements > 1 ? 2 : 4;
    for (uint64_t i = width; i < planes.scales_bytes; ++i) {
      EXPECT_EQ(bytes[planes.scales_offset + i], bytes[planes.scales_offset + i - width]);
    }
    if (planes.zeros_bytes == 0) continue;
    for (uint64_t i = planes.scales_offset + planes.scales_bytes; i < planes.zeros_offset; ++i) {
      EXPECT_EQ(bytes[i], std::byte{0});
    }
    for (uint64_t i = 0; i < planes.zeros_bytes; ++i) {
      const int zero = static_cast<int>(bytes[planes.zeros_offset + i]);
      EXPECT_TRUE(zero == 7 || zero == 8) << zero;
    }
  }
}

TEST(SyntheticTest, BytesDependOnSeedAndNotOnThreads) {
  for (const DType dtype : Types()) {
    const float scale = SyntheticScale(dtype, 0.001f);
    const SyntheticTensor tensor =
        Make(dtype, 2049, 1024, 1, dtype <= DType::kBF16 ? 1e-6f : scale);
    const std::vector<std::byte> bytes = Bytes(tensor);
    EXPECT_EQ(bytes, Bytes(tensor, 3)) << InfoOf(dtype).name;
    SyntheticTensor other = tensor;
    other.seed = 2;
    EXPECT_NE(bytes, Bytes(other)) << InfoOf(dtype).name;
  }
}

TEST(SyntheticTest, ConstantsAreEverywhere) {
  const auto ones = MakeSyntheticTensor(DType::kF32, 1, 7, SyntheticAlgorithm::kConstant, 0, 1.0f);
  ASSERT_TRUE(ones.ok()) << ones.status();
  std::vector<float> values(7);
  FillSynthetic(*ones, std::as_writable_bytes(std::span(values)), 1);
  EXPECT_EQ(values, std::vector<float>(7, 1.0f));
}

TEST(SyntheticTest, RefusesWhatCannotBeMade) {
  const auto code = [](DType dtype, uint64_t rows, uint64_t columns, float scale,
                       SyntheticAlgorithm algorithm = SyntheticAlgorithm::kNormal) {
    return MakeSyntheticTensor(dtype, rows, columns, algorithm, 0, scale).status().code();
  };
  using absl::StatusCode;
  EXPECT_EQ(code(DType::kF16, 4, 4, 1e-5f), StatusCode::kUnimplemented);
  EXPECT_EQ(code(DType::kQ4_0, 4, 32, 1e-5f), StatusCode::kUnimplemented);
  EXPECT_EQ(code(DType::kF8E4M3, 4, 32, 1e-5f), StatusCode::kUnimplemented);
  EXPECT_EQ(code(DType::kI4G128, 4, 64, 0.5f), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(DType::kF32, 0, 64, 1e-5f), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(DType::kF32, 4, 4, 1.0f), StatusCode::kInvalidArgument);  // too large
  EXPECT_EQ(code(DType::kF32, 4, 4, NAN), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(DType::kF32, 4, 4, -1e-5f), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(DType::kF32, 4, 4, 1e-35f), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(DType::kI4G64, 4, 64, 0.1f), StatusCode::kInvalidArgument);  // no float16
  EXPECT_EQ(code(DType::kI8Channel, 4, 64, 1.0f, SyntheticAlgorithm::kConstant),
            StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace tessera::kernels
