// Writes safetensors files for tests.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace tessera::testing {

class SafetensorsWriter {
 public:
  SafetensorsWriter& Tensor(const std::string& name, const std::string& dtype,
                            const std::vector<uint64_t>& shape, const std::string& bytes) {
    absl::StrAppend(&entries_, entries_.empty() ? "" : ",", "\"", name, "\":{\"dtype\":\"", dtype,
                    "\",\"shape\":[", absl::StrJoin(shape, ","), "],\"data_offsets\":[",
                    data_.size(), ",", data_.size() + bytes.size(), "]}");
    data_ += bytes;
    return *this;
  }

  [[nodiscard]] std::string Build() const {
    return WithHeader(absl::StrCat("{", entries_, "}"), data_);
  }

  static std::string WithHeader(const std::string& header, const std::string& data) {
    const uint64_t size = header.size();
    return std::string(reinterpret_cast<const char*>(&size), 8) + header + data;
  }

 private:
  std::string entries_;
  std::string data_;
};

}  // namespace tessera::testing
