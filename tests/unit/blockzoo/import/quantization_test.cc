// Quantized Hugging Face layouts: what is read is what the layout means, to the last bit.
#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"
#include "blockzoo/import/code_arrangement.h"
#include "blockzoo/import/format.h"
#include "kernels/weight_codec.h"
#include "kernels/weight_planes.h"
#include "tests/support/quantized_checkpoint.h"

namespace tessera::blockzoo {
namespace {

using kernels::DType;
using testing::GgufWriter;
using testing::QuantizedLayout;
using testing::SafetensorsWriter;
using testing::TempDirectory;
using testing::WriteFile;

StatusOr<std::vector<std::byte>> Made(const CheckpointTensor& tensor) {
  TESSERA_ASSIGN_OR_RETURN(const uint64_t bytes, TensorBytes(tensor.dtype, tensor.shape));
  std::vector<std::byte> canonical(bytes);
  TESSERA_RETURN_IF_ERROR(tensor.make(canonical));
  return canonical;
}

class QuantizationTest : public ::testing::TestWithParam<QuantizedLayout> {
 protected:
  const TempDirectory directory_;
};

TEST_P(QuantizationTest, MeansWhatTheLayoutSays) {
  const auto values = testing::WriteTinyQuantized(GetParam(), directory_.path("m"));
  const auto checkpoint = OpenCheckpoint(directory_.path("m"));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_FALSE((*checkpoint)->settings().Has("quantization_config.quant_method"));
  for (const auto& [name, expected] : values) {
    const auto tensor = (*checkpoint)->Tensor(name);
    ASSERT_TRUE(tensor.ok()) << tensor.status();
    const auto canonical = Made(*tensor);
    ASSERT_TRUE(canonical.ok()) << canonical.status();
    std::vector<float> row(tensor->shape[1]);
    for (uint64_t i = 0; i < tensor->shape[0]; ++i) {
      kernels::DecodeRow(tensor->dtype, tensor->shape[0], tensor->shape[1], canonical->data(), i,
                         row.data());
      for (uint64_t j = 0; j < row.size(); ++j) {
        ASSERT_EQ(row[j], expected[i * row.size() + j]) << name << " " << i << " " << j;
      }
    }
  }
  // Nothing of the layout is left for the architecture to stumble over.
  for (const std::string& name : (*checkpoint)->TensorNames()) {
    EXPECT_TRUE(absl::EndsWith(name, ".weight")) << name;
  }
}

TEST_P(QuantizationTest, RowsAreCutOutOfEveryPlane) {
  const auto values = testing::WriteTinyQuantized(GetParam(), directory_.path("m"));
  const std::string name = "model.layers.0.mlp.gate_proj.weight";
  const auto checkpoint = OpenCheckpoint(directory_.path("m"));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const CheckpointTensor whole = *(*checkpoint)->Tensor(name);
  const auto rows = RowsOf(whole, "rows", 128, 200);
  ASSERT_TRUE(rows.ok()) << rows.status();
  const auto canonical = Made(*rows);
  ASSERT_TRUE(canonical.ok()) << canonical.status();
  std::vector<float> row(whole.shape[1]);
  for (uint64_t i = 0; i < 200; ++i) {
    kernels::DecodeRow(rows->dtype, 200, row.size(), canonical->data(), i, row.data());
    for (uint64_t j = 0; j < row.size(); ++j) {
      ASSERT_EQ(row[j], values.at(name)[(128 + i) * row.size() + j]) << i << " " << j;
    }
  }
  EXPECT_EQ(RowsOf(whole, "rows", 100, 10).ok(), whole.dtype != DType::kF8Block128);
  EXPECT_TRUE(absl::IsInvalidArgument(RowsOf(whole, "rows", 380, 10).status()));
}

TEST_P(QuantizationTest, ArrangementsAreInverses) {
  for (const char* arrangement : {"", "gptq", "awq", "biased"}) {
    const uint64_t out = 24, in = 40;
    const bool bytes = absl::string_view(arrangement) == "biased";
    std::vector<std::byte> codes(out * in / (bytes ? 1 : 2)), file(codes.size()),
        back(codes.size());
    for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<std::byte>(i * 37 + i / 251);
    ASSERT_TRUE(ArrangeCodes(arrangement, out, in, codes, file).ok());
    ASSERT_TRUE(CanonicalCodes(arrangement, out, in, file, back).ok());
    EXPECT_EQ(codes, back) << arrangement;
  }
  std::vector<std::byte> few(8);
  EXPECT_FALSE(ArrangeCodes("awq", 24, 40, few, few).ok());
  EXPECT_FALSE(ArrangeCodes("exllama", 4, 4, few, few).ok());
}

INSTANTIATE_TEST_SUITE_P(Layouts, QuantizationTest,
                         ::testing::ValuesIn(testing::QuantizedLayouts()), [](const auto& info) {
                           return absl::StrReplaceAll(info.param.name, {{"-", "_"}});
                         });

// One projection "w" in a layout of its own, to be refused.
class RefusedQuantizationTest : public ::testing::Test {
 protected:
  Status Open(const std::string& config, const SafetensorsWriter& file) {
    std::filesystem::create_directories(directory_.path("m"));
    WriteFile(directory_.path("m/config.json"),
              absl::StrCat("{\"quantization_config\":{", config, "}}"));
    WriteFile(directory_.path("m/model.safetensors"), file.Build());
    const auto checkpoint = OpenCheckpoint(directory_.path("m"));
    if (!checkpoint.ok()) return checkpoint.status();
    const auto tensor = (*checkpoint)->Tensor("w.weight");
    if (!tensor.ok()) return tensor.status();
    return tensor->make ? Made(*tensor).status() : absl::OkStatus();
  }

  static SafetensorsWriter Gptq(uint64_t groups, uint32_t zeros, int32_t last_group) {
    std::string index;
    for (uint64_t i = 0; i < 128; ++i) {
      const auto group = static_cast<int32_t>(i * groups / 128);
      index += GgufWriter::Scalar(i + 1 < 128 ? group : last_group);
    }
    std::string zero_words;
    for (uint64_t i = 0; i < groups; ++i) zero_words += GgufWriter::Scalar(zeros);
    std::string scales;
    for (uint64_t i = 0; i < groups * 8; ++i) scales += GgufWriter::Scalar(uint16_t{0x2c00});
    SafetensorsWriter file;
    file.Tensor("w.qweight", "I32", {16, 8}, std::string(512, '\x5a'))
        .Tensor("w.qzeros", "I32", {groups, 1}, zero_words)
        .Tensor("w.scales", "F16", {groups, 8}, scales)
        .Tensor("w.g_idx", "I32", {128}, index);
    return file;
  }

  static SafetensorsWriter Fp8(const std::string& code, const std::string& scale_type,
                               const std::string& scale) {
    SafetensorsWriter file;
    file.Tensor("w.weight", "F8_E4M3", {8, 16}, std::string(127, '\x20') + code)
        .Tensor("w.weight_scale", scale_type, {1}, scale);
    return file;
  }

  static void ExpectSays(const Status& status, absl::StatusCode code, const char* text) {
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_TRUE(absl::StrContains(status.message(), text)) << status;
  }

  const std::string gptq_ = R"("quant_method":"gptq","bits":4)";
  const std::string fp8_ = R"("quant_method":"fp8")";
  const std::string compressed_ = R"("quant_method":"compressed-tensors")";
  const std::string one_ = GgufWriter::Scalar(1.0f);
  const TempDirectory directory_;
};

TEST_F(RefusedQuantizationTest, SoundOnesPass) {
  EXPECT_TRUE(Open(gptq_, Gptq(1, 0x77777777, 0)).ok());
  EXPECT_TRUE(Open(gptq_, Gptq(2, 0x77777777, 1)).ok());
  EXPECT_TRUE(Open(fp8_, Fp8("\x7e", "F32", one_)).ok());
}

TEST_F(RefusedQuantizationTest, ByName) {
  constexpr auto kMissing = absl::StatusCode::kUnimplemented;
  constexpr auto kBad = absl::StatusCode::kInvalidArgument;
  ExpectSays(Open(R"("quant_method":"bitsandbytes")", Gptq(1, 0, 0)), kMissing, "bitsandbytes");
  ExpectSays(Open(gptq_, Gptq(1, 0x77777777, 5)), kMissing, "activation order");
  ExpectSays(Open(gptq_, Gptq(4, 0x77777777, 3)), kMissing, "groups of 32");
  ExpectSays(Open(gptq_, Gptq(1, 0xf7777777, 0)), kMissing, "zero point 16");
  ExpectSays(Open(R"("quant_method":"gptq","bits":8)", Gptq(1, 0, 0)), kMissing, "8 bits");
  ExpectSays(Open(gptq_ + R"(,"checkpoint_format":"marlin")", Gptq(1, 0, 0)), kMissing, "marlin");
  ExpectSays(Open(R"("quant_method":"awq","bits":4,"version":"gemv")", Gptq(1, 0, 0)), kMissing,
             "gemv");
  ExpectSays(Open(fp8_ + R"(,"weight_block_size":[64,64])", Fp8("\x20", "F32", one_)), kMissing,
             "weight_block_size");
  ExpectSays(Open(fp8_, Fp8("\x7f", "F32", one_)), kBad, "element 127");
  ExpectSays(Open(fp8_, Fp8("\x20", "F32", GgufWriter::Scalar(INFINITY))), kBad, "w.weight_scale");
  ExpectSays(Open(fp8_, Fp8("\x20", "I32", one_)), kBad, "not I32");
  ExpectSays(Open(compressed_ + R"(,"format":"nvfp4-pack-quantized")", Fp8("\x20", "F32", one_)),
             kMissing, "nvfp4");
  ExpectSays(Open(compressed_ + R"(,"sparsity_config":{"format":"sparse-24-bitmask"})",
                  Fp8("\x20", "F32", one_)),
             kMissing, "sparse-24-bitmask");
  ExpectSays(
      Open(compressed_ + R"(,"transform_config":{"config_groups":{"u":{"type":"hadamard"}}})",
           Fp8("\x20", "F32", one_)),
      kMissing, "transform");
  SafetensorsWriter unscaled;
  unscaled.Tensor("w.weight", "F8_E4M3", {8, 16}, std::string(128, '\x20'));
  ExpectSays(Open(fp8_, unscaled), kMissing, "F8_E4M3");
}

TEST_F(RefusedQuantizationTest, ScalesBeyondFloat16UnlessTheirGroupIsZero) {
  for (const bool zero : {true, false}) {
    SafetensorsWriter file;
    file.Tensor("w.weight_packed", "I32", {8, 16}, std::string(512, zero ? '\x88' : '\x87'))
        .Tensor("w.weight_scale", "F32", {8, 1}, std::string(32, '\x20'))  // 1.4e-19
        .Tensor("w.weight_shape", "I64", {2}, GgufWriter::Scalar(8l) + GgufWriter::Scalar(128l));
    const Status status = Open(compressed_, file);
    EXPECT_EQ(status.ok(), zero) << status;
    if (!zero) ExpectSays(status, absl::StatusCode::kUnimplemented, "float16");
  }
}

TEST(PickleTest, IsRefusedWithTheCommandThatConverts) {
  const TempDirectory directory;
  std::filesystem::create_directories(directory.path("m"));
  WriteFile(directory.path("m/config.json"), "{}");
  WriteFile(directory.path("m/pytorch_model.bin"), "PK");
  const Status folder = OpenCheckpoint(directory.path("m")).status();
  EXPECT_TRUE(absl::IsUnimplemented(folder)) << folder;
  EXPECT_TRUE(absl::StrContains(folder.message(), "save_pretrained")) << folder;
  const Status file = OpenCheckpoint(directory.path("m/pytorch_model.bin")).status();
  EXPECT_TRUE(absl::StrContains(file.message(), "weights_only=True")) << file;
  WriteFile(directory.path("m/model.safetensors"), SafetensorsWriter().Build());
  EXPECT_TRUE(OpenCheckpoint(directory.path("m")).ok());
}

}  // namespace
}  // namespace tessera::blockzoo
