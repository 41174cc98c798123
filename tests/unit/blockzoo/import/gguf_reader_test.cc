#include "blockzoo/import/gguf_reader.h"

#include <gtest/gtest.h>

#include "blockzoo/import/gguf_metadata.h"
#include "blockzoo/zoo_io.h"
#include "tests/support/gguf_writer.h"

namespace tessera::blockzoo {
namespace {

using testing::GgufWriter;

GgufWriter Sound() {
  GgufWriter gguf;
  gguf.Text("general.architecture", "llama")
      .Tensor("a", 0, {2, 4}, std::string(32, 'a'))
      .Tensor("b", 8, {1, 32}, std::string(34, 'b'));
  return gguf;
}

TEST(GgufReaderTest, ReadsEveryValueType) {
  GgufWriter gguf;
  gguf.Raw("u8", GgufWriter::kU8, GgufWriter::Scalar<uint8_t>(200))
      .Raw("i8", GgufWriter::kI8, GgufWriter::Scalar<int8_t>(-5))
      .Raw("u16", GgufWriter::kU16, GgufWriter::Scalar<uint16_t>(60000))
      .Raw("i16", GgufWriter::kI16, GgufWriter::Scalar<int16_t>(-300))
      .U32("u32", 4000000000u)
      .Raw("i32", GgufWriter::kI32, GgufWriter::Scalar<int32_t>(-7))
      .F32("f32", 0.5f)
      .Bool("bool", 1)
      .Text("text", "x")
      .Raw("u64", GgufWriter::kU64, GgufWriter::Scalar<uint64_t>(UINT64_MAX))
      .Raw("i64", GgufWriter::kI64, GgufWriter::Scalar<int64_t>(INT64_MIN))
      .Raw("f64", GgufWriter::kF64, GgufWriter::Scalar(0.25))
      .Texts("texts", {"a", "", "bc"})
      .Numbers<int16_t>("numbers", GgufWriter::kI16, {-1, 2});
  const std::string file = gguf.Build();
  const StatusOr<GgufFile> parsed = ParseGguf(BytesOf(file));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->Find("u8")->Integer(), 200);
  EXPECT_EQ(parsed->Find("i8")->Integer(), -5);
  EXPECT_EQ(parsed->Find("u16")->Integer(), 60000);
  EXPECT_EQ(parsed->Find("i16")->Integer(), -300);
  EXPECT_EQ(parsed->Find("u32")->Integer(), 4000000000);
  EXPECT_EQ(parsed->Find("i32")->Integer(), -7);
  EXPECT_EQ(parsed->Find("f32")->Number(), 0.5);
  EXPECT_EQ(parsed->Find("f32")->Integer(), std::nullopt);
  EXPECT_EQ(parsed->Find("bool")->Integer(), 1);
  EXPECT_EQ(parsed->Find("text")->Text(), "x");
  EXPECT_EQ(parsed->Find("u64")->Integer(), std::nullopt);
  EXPECT_EQ(parsed->Find("u64")->Number(), 18446744073709551616.0);
  EXPECT_EQ(parsed->Find("i64")->Integer(), INT64_MIN);
  EXPECT_EQ(parsed->Find("f64")->Number(), 0.25);
  EXPECT_EQ(parsed->Find("texts")->Texts(), (std::vector<absl::string_view>{"a", "", "bc"}));
  EXPECT_EQ(parsed->Find("numbers")->Numbers(), (std::vector<double>{-1, 2}));
  EXPECT_EQ(parsed->Find("absent"), nullptr);
  const Attributes settings = GgufSettings(*parsed);
  EXPECT_EQ(*settings.Integer("u8", 0, 255), 200);
  EXPECT_EQ(*settings.Text("text"), "x");
  EXPECT_EQ(settings.Numbers("numbers")->size(), 2u);
}

TEST(GgufReaderTest, ReadsTensorsOfBothVersions) {
  for (const uint32_t version : {2u, 3u}) {
    const std::string file = Sound().Version(version).Build();
    const StatusOr<GgufFile> parsed = ParseGguf(BytesOf(file));
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    const CheckpointTensor& a = parsed->tensors.at("a");
    EXPECT_EQ(a.shape, (Shape{2, 4}));
    EXPECT_EQ(a.dtype, kernels::DType::kF32);
    EXPECT_EQ(a.bytes.size(), 32u);
    EXPECT_EQ(static_cast<char>(a.bytes[31]), 'a');
    EXPECT_EQ(static_cast<char>(parsed->tensors.at("b").bytes[0]), 'b');
  }
}

TEST(GgufReaderTest, FollowsTheAlignmentKey) {
  for (const uint32_t alignment : {1u, 8u, 64u, 4096u}) {
    GgufWriter gguf;
    gguf.Alignment(alignment).Tensor("a", 0, {3}, std::string(12, 'a'));
    gguf.Tensor("b", 0, {2}, std::string(8, 'b'));
    const std::string file = gguf.Build();
    const StatusOr<GgufFile> parsed = ParseGguf(BytesOf(file));
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(static_cast<char>(parsed->tensors.at("b").bytes[7]), 'b');
  }
}

TEST(GgufReaderTest, EveryCutIsRefused) {
  const std::string file = Sound().Build();
  for (size_t size = 0; size < file.size(); ++size) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseGguf(BytesOf(file.substr(0, size))).status())) << size;
  }
  EXPECT_TRUE(ParseGguf(BytesOf(file)).ok());
}

TEST(GgufReaderTest, RefusesUnsupportedElementTypesByName) {
  for (const auto& [type, name] : {std::pair(9u, "Q8_1"), std::pair(17u, "IQ2_XS"),
                                   std::pair(34u, "TQ1_0"), std::pair(57u, "type 57")}) {
    const std::string file = Sound().Tensor("odd", type, {1, 256}, std::string(256, 0)).Build();
    const Status status = ParseGguf(BytesOf(file)).status();
    EXPECT_TRUE(absl::IsUnimplemented(status)) << status;
    EXPECT_NE(status.message().find(name), absl::string_view::npos) << status;
    EXPECT_NE(status.message().find("odd"), absl::string_view::npos) << status;
    EXPECT_NE(status.message().find("Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS, BF16, MXFP4"),
              absl::string_view::npos)
        << status;
  }
}

// Two blocks of each quantized type; rows without whole blocks are refused.
TEST(GgufReaderTest, KnowsEveryQuantizedType) {
  const struct {
    uint32_t type;
    uint64_t columns, bytes;
  } types[] = {{2, 32, 18},   {3, 32, 20},    {6, 32, 22},    {7, 32, 24},    {8, 32, 34},
               {10, 256, 84}, {11, 256, 110}, {12, 256, 144}, {13, 256, 176}, {14, 256, 210},
               {20, 32, 18},  {23, 256, 136}, {39, 32, 17}};
  for (const auto& [type, columns, bytes] : types) {
    const std::string file =
        Sound().Tensor("t", type, {1, 2 * columns}, std::string(2 * bytes, 0)).Build();
    const StatusOr<GgufFile> parsed = ParseGguf(BytesOf(file));
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(parsed->tensors.at("t").bytes.size(), 2 * bytes);
    EXPECT_EQ(kernels::InfoOf(parsed->tensors.at("t").dtype).name, GgmlTypeName(type));
    const std::string odd =
        Sound().Tensor("t", type, {1, columns + 16}, std::string(2 * bytes, 0)).Build();
    EXPECT_TRUE(absl::IsInvalidArgument(ParseGguf(BytesOf(odd)).status())) << type;
  }
}

struct Hostile {
  const char* what;
  std::string file;
  const char* expected;  // a piece of the message
};

std::vector<Hostile> HostileFiles() {
  const auto array = [](uint32_t element, uint64_t count) {
    return GgufWriter::Scalar(element) + GgufWriter::Scalar(count);
  };
  std::string nested;
  for (int i = 0; i < 100; ++i) nested += array(GgufWriter::kArray, 1);
  const uint64_t big = uint64_t{1} << 62;
  return {
      {"magic", "GGML" + Sound().Build().substr(4), "GGUF"},
      {"tensor count", Sound().Counts(big, 1).Build(), "tensor count"},
      {"tensor count beyond the file", Sound().Counts(1000, 1).Build(), "more than the file"},
      {"value count", Sound().Counts(2, big).Build(), "value count"},
      {"key twice", Sound().Text("general.architecture", "x").Build(), "twice"},
      {"tensor twice", Sound().Tensor("a", 0, {1}, "1234").Build(), "twice"},
      {"value type", GgufWriter().Raw("k", 13, "aaaaaaaa").Build(), "unknown value type"},
      {"string length", GgufWriter().Raw("k", 8, GgufWriter::Scalar(big)).Build(), "allowed"},
      {"string beyond the file",
       GgufWriter().Raw("k", 8, GgufWriter::Scalar<uint64_t>(5000) + "a").Build(), "are left"},
      {"array length", GgufWriter().Raw("k", 9, array(4, big)).Build(), "array's length"},
      {"array beyond the file", GgufWriter().Raw("k", 9, array(4, 1000)).Build(), "can hold"},
      {"array of strings beyond the file", GgufWriter().Raw("k", 9, array(8, 1000)).Build(),
       "can hold"},
      {"nested arrays", GgufWriter().Raw("k", 9, nested).Build(), "nested"},
      {"empty key", GgufWriter().U32("", 1).Build(), "empty"},
      {"alignment 0", GgufWriter().U32("general.alignment", 0).Build(), "power of two"},
      {"alignment 48", GgufWriter().U32("general.alignment", 48).Build(), "power of two"},
      {"alignment as text", GgufWriter().Text("general.alignment", "32").Build(), "power of two"},
      {"no dimension", Sound().Tensor("c", 0, {}, "1234").Build(), "dimensions"},
      {"five dimensions", Sound().Tensor("c", 0, {1, 1, 1, 1, 1}, "1234").Build(), "dimensions"},
      {"dimension 0", Sound().Tensor("c", 0, {0, 4}, "").Build(), "dimension 0"},
      {"shape overflow", Sound().RawTensor("c", 0, {0x7fffffff, 0x7fffffff, 0x7fffffff}, 0).Build(),
       "overflow"},
      {"dimension 2^63", Sound().RawTensor("c", 0, {uint64_t{1} << 63, 2}, 0).Build(), "dimension"},
      {"row of half blocks", Sound().Tensor("c", 8, {2, 48}, std::string(102, 0)).Build(),
       "blocks"},
      {"offset beyond the file", Sound().RawTensor("c", 0, {1}, 1 << 20).Build(), "beyond"},
      {"offset overflow", Sound().RawTensor("c", 0, {8}, UINT64_MAX - 31).Build(), "beyond"},
      {"offset not aligned", Sound().RawTensor("c", 0, {1}, 33).Build(), "aligned"},
      {"overlap", Sound().RawTensor("c", 0, {2}, 0).Build(), "overlaps"},
  };
}

TEST(GgufReaderTest, RefusesOtherVersionsByName) {
  const std::pair<uint32_t, const char*> versions[] = {
      {1, "version 1"}, {4, "version 4"}, {3u << 24, "big-endian"}, {2u << 24, "big-endian"}};
  for (const auto& [version, expected] : versions) {
    const std::string file = Sound().Version(version).Build();
    const Status status = ParseGguf(BytesOf(file)).status();
    EXPECT_TRUE(absl::IsUnimplemented(status)) << status;
    EXPECT_NE(status.message().find(expected), absl::string_view::npos) << status;
  }
}

TEST(GgufReaderTest, RefusesHostileFiles) {
  for (const Hostile& hostile : HostileFiles()) {
    const Status status = ParseGguf(BytesOf(hostile.file)).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << hostile.what << ": " << status;
    EXPECT_NE(status.message().find(hostile.expected), absl::string_view::npos)
        << hostile.what << ": " << status;
  }
}

}  // namespace
}  // namespace tessera::blockzoo
