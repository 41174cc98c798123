#include <gtest/gtest.h>

#include <cmath>

#include "blockzoo/import/quantization.h"
#include "blockzoo/import/tensor_forms.h"
#include "kernels/weight_codec.h"

namespace tessera::blockzoo {
namespace {

// Two experts of three rows of 64.
struct File {
  File() {
    for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<std::byte>(i * 37 % 256);
    for (size_t i = 0; i < scales.size(); ++i) scales[i] = static_cast<std::byte>(120 + i);
  }
  FileTensors Tensors() const {
    return {{"w_blocks", {"w_blocks", "U8", {2, 3, 2, 16}, codes}},
            {"w_scales", {"w_scales", "U8", {2, 3, 2}, scales}},
            {"other", {"other", "F32", {1}, std::span(codes).first(4)}}};
  }
  std::vector<std::byte> codes = std::vector<std::byte>(12 * 16);
  std::vector<std::byte> scales = std::vector<std::byte>(12);
};

Status Present(FileTensors file, ModelTensors& model) {
  const Attributes settings;
  const Status status = FindQuantization("mxfp4").value().present(settings, file, model);
  // Only what is not quantized stays.
  EXPECT_TRUE(!status.ok() || file.size() == 1u);
  return status;
}

// A byte of the file is two neighbours, the low nibble first; a value is e2m1 times 2^(scale -
// 127).
TEST(Mxfp4Test, ValuesAreThoseOfTheFile) {
  constexpr float kValues[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  const File file;
  ModelTensors model;
  ASSERT_TRUE(Present(file.Tensors(), model).ok());
  const CheckpointTensor& weight = model.at("w");
  EXPECT_EQ(weight.dtype, kernels::DType::kMXFP4);
  EXPECT_EQ(weight.shape, (Shape{2, 3, 64}));
  const std::vector<std::byte> canonical = BytesOf(weight).value();
  std::vector<float> row(64);
  for (uint64_t r = 0; r < 6; ++r) {
    kernels::DecodeRow(weight.dtype, 6, 64, canonical.data(), r, row.data());
    for (uint64_t i = 0; i < 64; ++i) {
      const uint64_t block = r * 2 + i / 32;
      const auto byte = static_cast<unsigned>(file.codes[block * 16 + i % 32 / 2]);
      const unsigned code = i % 2 == 0 ? byte & 15 : byte >> 4;
      const float value = (code & 8) != 0 ? -kValues[code & 7] : kValues[code & 7];
      const int exponent = static_cast<int>(file.scales[block]) - 127;
      EXPECT_EQ(row[i], std::ldexp(value, exponent)) << r << " " << i;
    }
  }
}

TEST(Mxfp4Test, DamageIsNamed) {
  const auto refused = [](const FileTensors& file, const char* what) {
    ModelTensors model;
    const Status status = Present(file, model);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_NE(status.message().find(what), absl::string_view::npos) << status;
  };
  File file;
  FileTensors tensors = file.Tensors();
  tensors.erase("w_scales");
  refused(tensors, "its scales are missing");
  tensors = file.Tensors();
  tensors.at("w_scales").shape = {3, 2, 2};
  refused(tensors, "w_scales");
  tensors = file.Tensors();
  tensors.at("w_blocks").shape = {2, 3, 4, 8};
  refused(tensors, "w_blocks");
  file.scales[5] = std::byte{255};
  refused(file.Tensors(), "scale 5 is not a number");
}

}  // namespace
}  // namespace tessera::blockzoo
