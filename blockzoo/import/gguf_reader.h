// The GGUF container, versions 2 and 3: typed values, then tensor descriptions, then aligned data.
// Nothing in a file is trusted: every count, length and offset is checked against the file before
// use, and values stay views into it, so that parsing takes memory in proportion to keys and
// tensors only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "blockzoo/import/checkpoint.h"

namespace tessera::blockzoo {

enum class GgufType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};
inline constexpr uint32_t kGgufTypeCount = 13;

// One value of the file, checked to lie inside it. Views are valid while the file's bytes are.
class GgufValue {
 public:
  GgufValue(GgufType type, GgufType element, uint64_t count, std::span<const std::byte> bytes)
      : type_(type), element_(element), count_(count), bytes_(bytes) {}

  [[nodiscard]] GgufType type() const { return type_; }
  [[nodiscard]] GgufType element() const { return element_; }  // of an array
  [[nodiscard]] uint64_t count() const { return count_; }      // of an array

  // nullopt when the value is of another kind. A bool is an integer 0 or 1; a uint64 above 2^63 - 1
  // is no integer but a number.
  [[nodiscard]] std::optional<int64_t> Integer() const;
  [[nodiscard]] std::optional<double> Number() const;
  [[nodiscard]] std::optional<absl::string_view> Text() const;
  [[nodiscard]] std::optional<std::vector<double>> Numbers() const;           // numeric arrays
  [[nodiscard]] std::optional<std::vector<absl::string_view>> Texts() const;  // string arrays

 private:
  GgufType type_;
  GgufType element_;
  uint64_t count_;
  std::span<const std::byte> bytes_;  // the elements; of a string, its characters
};

struct GgufLimits {
  static constexpr uint64_t kValues = 65536;
  static constexpr uint64_t kTensors = 1 << 20;
  static constexpr uint64_t kKeyBytes = 65535;
  static constexpr uint64_t kTensorNameBytes = 1024;
  static constexpr uint64_t kStringBytes = 64 << 20;
  static constexpr uint64_t kArrayElements = 16 << 20;
  static constexpr uint64_t kArrayDepth = 4;
  static constexpr int64_t kSplits = 10'000;  // parts of a split file
};

struct GgufFile {
  uint32_t version = 0;
  std::map<std::string, GgufValue, std::less<>> values;
  std::map<std::string, CheckpointTensor, std::less<>> tensors;

  [[nodiscard]] const GgufValue* Find(absl::string_view key) const;
};

// INVALID_ARGUMENT with the byte offset and the reason when the file breaks the format or a limit,
// UNIMPLEMENTED naming the tensor and the type when an element type is not supported. The result
// views `file`.
[[nodiscard]] StatusOr<GgufFile> ParseGguf(std::span<const std::byte> file);

// The name of a GGML element type ("Q4_K"), or "type 57" when unknown.
[[nodiscard]] std::string GgmlTypeName(uint32_t type);

}  // namespace tessera::blockzoo
