#include "blockzoo/attributes.h"

#include <cmath>

#include "absl/strings/str_cat.h"

namespace tessera::blockzoo {
namespace {

const char* KindOf(const Attributes::Value& value) {
  static constexpr const char* kNames[] = {"an integer", "a number", "text", "a list of numbers"};
  return kNames[value.index()];
}

Status Missing(const std::string& name) {
  return Error(absl::StatusCode::kNotFound, {absl::StrCat("the setting ", name, " is missing")});
}

Status WrongKind(const std::string& name, const Attributes::Value& value, const char* wanted) {
  return Error(absl::StatusCode::kInvalidArgument,
               {.what = absl::StrCat("the setting ", name, " has the wrong kind"),
                .why = absl::StrCat("it is ", KindOf(value), ", wanted ", wanted)});
}

template <typename T>
Status OutOfRange(const std::string& name, T value, T low, T high) {
  return Error(absl::StatusCode::kInvalidArgument,
               {.what = absl::StrCat("the setting ", name, " is out of range"),
                .why = absl::StrCat("it is ", value, ", allowed ", low, " to ", high)});
}

}  // namespace

StatusOr<int64_t> Attributes::Integer(const std::string& name, int64_t low, int64_t high) const {
  const auto found = values_.find(name);
  if (found == values_.end()) return Missing(name);
  const int64_t* value = std::get_if<int64_t>(&found->second);
  if (value == nullptr) return WrongKind(name, found->second, "an integer");
  if (*value < low || *value > high) return OutOfRange(name, *value, low, high);
  return *value;
}

StatusOr<double> Attributes::Number(const std::string& name, double low, double high) const {
  const auto found = values_.find(name);
  if (found == values_.end()) return Missing(name);
  double number = 0;
  if (const int64_t* integer = std::get_if<int64_t>(&found->second)) {
    number = static_cast<double>(*integer);
  } else if (const double* value = std::get_if<double>(&found->second)) {
    number = *value;
  } else {
    return WrongKind(name, found->second, "a number");
  }
  // Written so that a NaN fails.
  if (!(number >= low && number <= high)) return OutOfRange(name, number, low, high);
  return number;
}

StatusOr<std::string> Attributes::Text(const std::string& name) const {
  const auto found = values_.find(name);
  if (found == values_.end()) return Missing(name);
  const std::string* value = std::get_if<std::string>(&found->second);
  if (value == nullptr) return WrongKind(name, found->second, "text");
  return *value;
}

StatusOr<std::vector<double>> Attributes::Numbers(const std::string& name) const {
  const auto found = values_.find(name);
  if (found == values_.end()) return Missing(name);
  const auto* value = std::get_if<std::vector<double>>(&found->second);
  if (value == nullptr) return WrongKind(name, found->second, "a list of numbers");
  return *value;
}

}  // namespace tessera::blockzoo
