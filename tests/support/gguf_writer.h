// Writes GGUF files for tests, sound ones and, with the raw parts, broken ones.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

namespace tessera::testing {

class GgufWriter {
 public:
  enum Type : uint32_t {
    kU8,
    kI8,
    kU16,
    kI16,
    kU32,
    kI32,
    kF32,
    kBool,
    kString,
    kArray,
    kU64,
    kI64,
    kF64
  };

  // Little-endian bytes of a scalar, and a string with its length.
  template <typename T>
  static std::string Scalar(T value) {
    return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  static std::string String(const std::string& text) {
    return Scalar<uint64_t>(text.size()) + text;
  }

  GgufWriter& Raw(const std::string& key, uint32_t type, const std::string& value) {
    values_ += String(key) + Scalar(type) + value;
    ++value_count_;
    return *this;
  }
  GgufWriter& U32(const std::string& key, uint32_t value) { return Raw(key, kU32, Scalar(value)); }
  GgufWriter& F32(const std::string& key, float value) { return Raw(key, kF32, Scalar(value)); }
  GgufWriter& Bool(const std::string& key, uint8_t value) { return Raw(key, kBool, Scalar(value)); }
  GgufWriter& Text(const std::string& key, const std::string& value) {
    return Raw(key, kString, String(value));
  }
  GgufWriter& Texts(const std::string& key, const std::vector<std::string>& values) {
    std::string bytes = Scalar<uint32_t>(kString) + Scalar<uint64_t>(values.size());
    for (const std::string& value : values) bytes += String(value);
    return Raw(key, kArray, bytes);
  }
  template <typename T>
  GgufWriter& Numbers(const std::string& key, Type element, const std::vector<T>& values) {
    std::string bytes = Scalar<uint32_t>(element) + Scalar<uint64_t>(values.size());
    for (const T value : values) bytes += Scalar(value);
    return Raw(key, kArray, bytes);
  }
  // `shape` slowest first, as in the project; `type` is GGML's number.
  GgufWriter& Tensor(const std::string& name, uint32_t type, std::vector<uint64_t> shape,
                     const std::string& bytes) {
    while (data_.size() % alignment_ != 0) data_.push_back('\0');
    RawTensor(name, type, shape, data_.size());
    data_ += bytes;
    return *this;
  }
  GgufWriter& RawTensor(const std::string& name, uint32_t type, std::vector<uint64_t> shape,
                        uint64_t offset) {
    std::reverse(shape.begin(), shape.end());
    tensors_ += String(name) + Scalar<uint32_t>(shape.size());
    for (const uint64_t dimension : shape) tensors_ += Scalar(dimension);
    tensors_ += Scalar(type) + Scalar(offset);
    ++tensor_count_;
    return *this;
  }
  GgufWriter& Version(uint32_t version) {
    version_ = version;
    return *this;
  }
  // Call before the first tensor.
  GgufWriter& Alignment(uint32_t alignment) {
    alignment_ = alignment;
    return U32("general.alignment", alignment);
  }
  GgufWriter& Counts(uint64_t tensors, uint64_t values) {
    tensor_count_ = tensors;
    value_count_ = values;
    return *this;
  }

  [[nodiscard]] std::string Build() const {
    std::string file = "GGUF" + Scalar(version_) + Scalar(tensor_count_) + Scalar(value_count_) +
                       values_ + tensors_;
    while (file.size() % alignment_ != 0) file.push_back('\0');
    return file + data_;
  }

 private:
  uint32_t version_ = 3;
  uint32_t alignment_ = 32;
  uint64_t tensor_count_ = 0;
  uint64_t value_count_ = 0;
  std::string values_;
  std::string tensors_;
  std::string data_;
};

}  // namespace tessera::testing
