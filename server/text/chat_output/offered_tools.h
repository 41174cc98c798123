// The functions that a chat's request offers, as far as reading their calls needs them.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/strings/string_view.h"

namespace tessera::server {

// Immutable once made.
class OfferedTools {
 public:
  // How a value that a model wrote as bare text is meant.
  enum class Value : uint8_t { kText, kJson };

  // None are offered: no call is looked for.
  OfferedTools() = default;
  // `json`: the request's array of tools, each a function or an object with one. What is none is
  // passed over.
  explicit OfferedTools(const std::string& json);

  [[nodiscard]] bool empty() const { return functions_.empty(); }
  [[nodiscard]] bool Has(absl::string_view name) const;
  // By the parameter's schema: text when it may be a string or is not declared.
  [[nodiscard]] Value KindOf(absl::string_view name, absl::string_view parameter) const;

 private:
  using Parameters = std::map<std::string, Value, std::less<>>;
  std::map<std::string, Parameters, std::less<>> functions_;
};

}  // namespace tessera::server
