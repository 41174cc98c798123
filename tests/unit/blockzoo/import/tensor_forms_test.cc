#include "blockzoo/import/tensor_forms.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>

#include "kernels/weight_codec.h"
#include "kernels/weight_planes.h"

namespace tessera::blockzoo {
namespace {

using kernels::DType;

std::vector<float> FloatsOf(const CheckpointTensor& tensor) {
  const StatusOr<std::vector<std::byte>> bytes = BytesOf(tensor);
  EXPECT_TRUE(bytes.ok()) << bytes.status();
  if (!bytes.ok()) return {};
  std::vector<float> values(bytes->size() / sizeof(float));
  std::memcpy(values.data(), bytes->data(), bytes->size());
  return values;
}

CheckpointTensor TensorOf(DType dtype, Shape shape, std::span<const std::byte> bytes) {
  CheckpointTensor tensor;
  tensor.name = "t";
  tensor.dtype = dtype;
  tensor.shape = std::move(shape);
  tensor.bytes = bytes;
  return tensor;
}

CheckpointTensor TensorOf(const std::vector<float>& values, Shape shape) {
  return TensorOf(DType::kF32, std::move(shape), std::as_bytes(std::span(values)));
}

std::vector<float> Counted(size_t count) {
  std::vector<float> values(count);
  std::iota(values.begin(), values.end(), 0.0f);
  return values;
}

TEST(TensorFormsTest, RowsAreAViewOfTheFile) {
  const std::vector<float> values = Counted(12);
  const auto rows = TakeRows(TensorOf(values, {4, 3}), 1, 2);
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_EQ(rows->shape, (Shape{2, 3}));
  EXPECT_EQ(rows->name, "t[1:3]");
  EXPECT_EQ(static_cast<const void*>(rows->bytes.data()), &values[3]);
  EXPECT_EQ(FloatsOf(*rows), (std::vector<float>{3, 4, 5, 6, 7, 8}));
  const auto elements = TakeRows(TensorOf(values, {12}), 10, 2);
  ASSERT_TRUE(elements.ok()) << elements.status();
  EXPECT_EQ(FloatsOf(*elements), (std::vector<float>{10, 11}));
}

// Rows of every type, decoded, are the rows of the whole, decoded.
TEST(TensorFormsTest, RowsOfQuantizedTypesKeepTheirValues) {
  constexpr uint64_t kOut = 300, kIn = 256;
  std::vector<float> values(kOut * kIn);
  for (size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<float>(i));
  for (int type = 0; type < kernels::kWeightTypeCount; ++type) {
    const auto dtype = static_cast<DType>(type);
    if (!kernels::HasPlanes(dtype)) continue;
    SCOPED_TRACE(kernels::InfoOf(dtype).name);
    std::vector<std::byte> bytes(*kernels::StorageBytes(dtype, kOut, kIn));
    for (uint64_t row = 0; row < kOut; row += kernels::kBandRows) {
      kernels::EncodeBand(dtype, kOut, kIn, row, std::min(kernels::kBandRows, kOut - row),
                          &values[row * kIn], bytes.data());
    }
    const CheckpointTensor whole = TensorOf(dtype, {kOut, kIn}, bytes);
    const auto rows = TakeRows(whole, 128, 172);
    ASSERT_TRUE(rows.ok()) << rows.status();
    const auto canonical = BytesOf(*rows);
    ASSERT_TRUE(canonical.ok()) << canonical.status();
    ASSERT_EQ(canonical->size(), *kernels::StorageBytes(dtype, 172, kIn));
    std::vector<float> part(kIn), expected(kIn);
    for (uint64_t row = 0; row < 172; ++row) {
      kernels::DecodeRow(dtype, 172, kIn, canonical->data(), row, part.data());
      kernels::DecodeRow(dtype, kOut, kIn, bytes.data(), row + 128, expected.data());
      ASSERT_EQ(part, expected) << row;
    }
    const Status across = TakeRows(whole, 100, 100).status();
    EXPECT_EQ(across.code(), dtype == DType::kF8Block128 ? absl::StatusCode::kUnimplemented
                                                         : absl::StatusCode::kOk);
  }
}

TEST(TensorFormsTest, BlocksStayWhole) {
  std::vector<std::byte> bytes(4 * 2 * 34);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i);
  const CheckpointTensor whole = TensorOf(DType::kQ8_0, {4, 64}, bytes);
  const auto rows = TakeRows(whole, 3, 1);
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_EQ(rows->bytes.data(), bytes.data() + 3 * 68);
  EXPECT_EQ(rows->bytes.size(), 68u);
  const Status turned = Transposed(whole).status();
  EXPECT_EQ(turned.code(), absl::StatusCode::kUnimplemented);
  EXPECT_NE(turned.message().find("Q8_0"), absl::string_view::npos) << turned;
}

TEST(TensorFormsTest, PeriodsTurnsAndSums) {
  const std::vector<float> values = Counted(12);
  const auto periodic = TakePeriodicRows(TensorOf(values, {6, 2}), 3, 1, 1);
  ASSERT_TRUE(periodic.ok()) << periodic.status();
  EXPECT_EQ(FloatsOf(*periodic), (std::vector<float>{2, 3, 8, 9}));
  const auto turned = Transposed(TensorOf(values, {3, 4}));
  ASSERT_TRUE(turned.ok()) << turned.status();
  EXPECT_EQ(turned->shape, (Shape{4, 3}));
  EXPECT_EQ(FloatsOf(*turned), (std::vector<float>{0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11}));
  const uint16_t half[] = {kernels::F32ToBF16(0.5f), kernels::F32ToBF16(-2.0f)};
  const auto shifted = PlusOne(TensorOf(DType::kBF16, {2}, std::as_bytes(std::span(half))));
  ASSERT_TRUE(shifted.ok()) << shifted.status();
  EXPECT_EQ(shifted->dtype, DType::kF32);
  EXPECT_EQ(FloatsOf(*shifted), (std::vector<float>{1.5f, -1.0f}));
}

TEST(TensorFormsTest, StacksWhatGoesTogether) {
  const std::vector<float> values = Counted(6);
  const CheckpointTensor wide = TensorOf(values, {3, 2}), narrow = TensorOf(values, {2, 3});
  const auto stack = Stacked("s", {wide, wide});
  ASSERT_TRUE(stack.ok()) << stack.status();
  EXPECT_EQ(stack->shape, (Shape{6, 2}));
  EXPECT_EQ(FloatsOf(*stack), (std::vector<float>{0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(Stacked("s", {wide, narrow}).status().code(), absl::StatusCode::kInvalidArgument);
}

// Values of a type with planes, as Linear reads them.
std::vector<float> Decoded(const CheckpointTensor& tensor) {
  const auto canonical = BytesOf(tensor).value();
  std::vector<float> values(tensor.shape[0] * tensor.shape[1]);
  for (uint64_t row = 0; row < tensor.shape[0]; ++row) {
    kernels::DecodeRow(tensor.dtype, tensor.shape[0], tensor.shape[1], canonical.data(), row,
                       &values[row * tensor.shape[1]]);
  }
  return values;
}

// What is taken by periods, stacked or turned decodes to what the whole decodes to there.
TEST(TensorFormsTest, PlanesAreCutStackedAndTurnedTogether) {
  constexpr uint64_t kOut = 512, kIn = 256, kPeriod = 256, kHalf = 128;
  std::vector<float> values(kOut * kIn);
  for (size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<float>(i));
  for (int type = 0; type < kernels::kWeightTypeCount; ++type) {
    const auto dtype = static_cast<DType>(type);
    if (!kernels::HasPlanes(dtype)) continue;
    SCOPED_TRACE(kernels::InfoOf(dtype).name);
    std::vector<std::byte> bytes(*kernels::StorageBytes(dtype, kOut, kIn));
    for (uint64_t row = 0; row < kOut; row += kernels::kBandRows) {
      kernels::EncodeBand(dtype, kOut, kIn, row, kernels::kBandRows, &values[row * kIn],
                          bytes.data());
    }
    const CheckpointTensor whole = TensorOf(dtype, {kOut, kIn}, bytes);
    const std::vector<float> all = Decoded(whole);
    const std::vector<float> upper =
        Decoded(TakePeriodicRows(whole, kPeriod, kHalf, kHalf).value());
    for (uint64_t i = 0; i < upper.size(); ++i) {
      const uint64_t row = i / kIn;
      const uint64_t from = row / kHalf * kPeriod + kHalf + row % kHalf;
      ASSERT_EQ(upper[i], all[from * kIn + i % kIn]) << i;
    }
    const auto first = TakeRows(whole, 0, kHalf).value(),
               rest = TakeRows(whole, kHalf, 384).value();
    EXPECT_EQ(Decoded(Stacked("s", {first, rest}).value()), all);
    const auto turned = TransposedPeriods(whole, kPeriod, 0, kHalf);
    ASSERT_EQ(turned.ok(), dtype == DType::kF8Block128) << turned.status();
    if (!turned.ok()) continue;
    const std::vector<float> back = Decoded(*turned);
    ASSERT_EQ(turned->shape, (Shape{2 * kIn, kHalf}));
    for (uint64_t i = 0; i < back.size(); ++i) {
      const uint64_t line = i / kHalf, row = line / kIn * kPeriod + i % kHalf;
      ASSERT_EQ(back[i], all[row * kIn + line % kIn]) << i;
    }
  }
}

}  // namespace
}  // namespace tessera::blockzoo
