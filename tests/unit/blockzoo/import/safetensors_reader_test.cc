#include "blockzoo/import/safetensors_reader.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "blockzoo/zoo_io.h"
#include "tests/support/safetensors_writer.h"

namespace tessera::blockzoo {
namespace {

using testing::SafetensorsWriter;

TEST(SafetensorsReaderTest, ReadsTensorsInAnyOrderOfNames) {
  SafetensorsWriter writer;
  writer.Tensor("z", "F32", {2, 2}, std::string(16, 'z'))
      .Tensor("a", "BF16", {3}, std::string(6, 'a'))
      .Tensor("s", "F16", {}, "ss");
  const std::string file = writer.Build();
  const auto tensors = ParseSafetensors(BytesOf(file));
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  ASSERT_EQ(tensors->size(), 3u);
  EXPECT_EQ((*tensors)[0].name, "a");
  EXPECT_EQ((*tensors)[0].type, "BF16");
  EXPECT_EQ((*tensors)[0].bytes.size(), 6u);
  EXPECT_EQ(static_cast<char>((*tensors)[0].bytes[0]), 'a');
  EXPECT_EQ((*tensors)[1].shape, Shape{1});
  EXPECT_EQ((*tensors)[2].shape, (Shape{2, 2}));
}

TEST(SafetensorsReaderTest, RefusesTypesThatNoWeightHasByName) {
  for (const char* dtype : {"I64", "F64", "C64"}) {
    const std::string file = SafetensorsWriter().Tensor("odd", dtype, {1}, "12345678").Build();
    const auto tensors = ParseSafetensors(BytesOf(file));
    ASSERT_TRUE(tensors.ok()) << tensors.status();
    const Status status = AsWeight(tensors->front()).status();
    EXPECT_TRUE(absl::IsUnimplemented(status)) << status;
    EXPECT_NE(status.message().find(dtype), absl::string_view::npos);
    EXPECT_NE(status.message().find("odd"), absl::string_view::npos);
  }
  const std::string deep =
      SafetensorsWriter().Tensor("odd", "F32", {1, 1, 1, 1, 1}, "1234").Build();
  EXPECT_TRUE(absl::IsInvalidArgument(AsWeight(ParseSafetensors(BytesOf(deep))->front()).status()));
  for (const char* dtype : {"Q8_0", "F4", ""}) {
    const std::string file = SafetensorsWriter().Tensor("odd", dtype, {1}, "12345678").Build();
    const Status status = ParseSafetensors(BytesOf(file)).status();
    EXPECT_TRUE(absl::IsUnimplemented(status)) << status;
    EXPECT_NE(status.message().find("odd"), absl::string_view::npos);
  }
}

TEST(SafetensorsReaderTest, EveryCutIsRefused) {
  const std::string file = SafetensorsWriter()
                               .Tensor("a", "F32", {2}, std::string(8, 'a'))
                               .Tensor("b", "F32", {2}, std::string(8, 'b'))
                               .Build();
  for (size_t size = 0; size < file.size(); ++size) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseSafetensors(BytesOf(file.substr(0, size))).status()));
  }
}

TEST(SafetensorsReaderTest, RefusesHostileHeaders) {
  const auto entry = [](const std::string& name, const std::string& shape, const std::string& at) {
    return absl::StrCat("\"", name, "\":{\"dtype\":\"F32\",\"shape\":", shape,
                        ",\"data_offsets\":", at, "}");
  };
  const auto one = [&entry](const std::string& shape, const std::string& at) {
    return absl::StrCat("{", entry("a", shape, at), "}");
  };
  const auto two = [&entry](const char* name, const std::string& shape, const std::string& at) {
    return absl::StrCat("{", entry("a", "[4]", "[0,16]"), ",", entry(name, shape, at), "}");
  };
  const struct {
    std::string header;
    const char* expected;
  } cases[] = {
      {"[]", "not a JSON object"},
      {"{", "not a JSON object"},
      {std::string(1000, '['), "not a JSON object"},
      {two("a", "[4]", "[0,16]"), "twice"},
      {two("b", "[1]", "[12,16]"), "overlap"},
      {one("[3]", "[4,16]"), "gap"},
      {one("[3]", "[0,12]"), "after the last"},
      {one("[4]", "[0,17]"), "within"},
      {one("[4]", "[16,0]"), "within"},
      {one("[4]", "[0]"), "within"},
      {one("[4]", "[-1,15]"), "whole numbers"},
      {one("[4.0]", "[0,16]"), "whole numbers"},
      {one("4", "[0,16]"), "must be a list"},
      {one("[5]", "[0,16]"), "needs 20"},
      {one("[0]", "[0,0]"), "is 0"},
      {one("[2147483647,2147483647,2147483647]", "[0,16]"), "overflow"},
      {absl::StrCat("{", entry("", "[4]", "[0,16]"), "}"), "no name"},
      {"{\"a\":5}", "must be an object"},
      {"{\"a\":{\"shape\":[4],\"data_offsets\":[0,16]}}", "dtype"},
  };
  for (const auto& [header, expected] : cases) {
    const std::string file = SafetensorsWriter::WithHeader(header, std::string(16, 'x'));
    const Status status = ParseSafetensors(BytesOf(file)).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << header << ": " << status;
    EXPECT_NE(status.message().find(expected), absl::string_view::npos) << status;
  }
  std::string huge(16, '\xff');
  EXPECT_TRUE(absl::IsInvalidArgument(ParseSafetensors(BytesOf(huge)).status()));
}

}  // namespace
}  // namespace tessera::blockzoo
