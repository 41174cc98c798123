// Named settings of a block or chain: the part of a manifest that is not weights.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"
#include "config/foundation/status.h"

namespace tessera::blockzoo {

// Sorted by name, so that equal attributes have one canonical text. Values are integers, doubles,
// text or lists of doubles; doubles are written with 17 significant digits.
class Attributes {
 public:
  using Value = std::variant<int64_t, double, std::string, std::vector<double>>;

  void Set(const std::string& name, Value value) { values_[name] = std::move(value); }
  [[nodiscard]] bool Has(const std::string& name) const { return values_.contains(name); }
  [[nodiscard]] const std::map<std::string, Value>& values() const { return values_; }

  // NOT_FOUND naming the attribute when it is missing, INVALID_ARGUMENT when of another kind or
  // outside [low, high]. An integer is accepted where a number is asked for.
  [[nodiscard]] StatusOr<int64_t> Integer(const std::string& name, int64_t low, int64_t high) const;
  [[nodiscard]] StatusOr<double> Number(const std::string& name, double low, double high) const;
  [[nodiscard]] StatusOr<std::string> Text(const std::string& name) const;
  [[nodiscard]] StatusOr<std::vector<double>> Numbers(const std::string& name) const;

  bool operator==(const Attributes&) const = default;

 private:
  std::map<std::string, Value> values_;
};

}  // namespace tessera::blockzoo
