#include "config/units.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <span>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace tessera {
namespace {

struct Unit {
  absl::string_view name;
  int64_t size;
};

// Largest first: the formatters take the first that divides.
constexpr Unit kDurations[] = {{"d", 86'400'000'000'000},
                               {"h", 3'600'000'000'000},
                               {"m", 60'000'000'000},
                               {"s", 1'000'000'000},
                               {"ms", 1'000'000},
                               {"us", 1'000},
                               {"ns", 1}};
constexpr Unit kSizes[] = {
    {"TiB", int64_t{1} << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}};

// Nothing if `text` is not digits, an optional fraction and a unit of `units`, if the value does
// not fit, or if the fraction is finer than the smallest unit.
StatusOr<int64_t> ParseWithUnit(absl::string_view text, std::span<const Unit> units,
                                absl::string_view message) {
  const Status error = absl::InvalidArgumentError(message);
  size_t at = 0;
  int64_t whole = 0;
  int64_t fraction = 0;
  int64_t scale = 1;
  const auto is_digit = [&] {
    return at < text.size() && absl::ascii_isdigit(static_cast<unsigned char>(text[at]));
  };
  if (!is_digit()) return error;
  for (; is_digit(); ++at) {
    if (__builtin_mul_overflow(whole, int64_t{10}, &whole) ||
        __builtin_add_overflow(whole, int64_t{text[at] - '0'}, &whole)) {
      return error;
    }
  }
  if (at < text.size() && text[at] == '.') {
    ++at;
    if (!is_digit()) return error;
    for (; is_digit(); ++at) {
      if (scale >= 1'000'000'000) return error;
      fraction = fraction * 10 + (text[at] - '0');
      scale *= 10;
    }
  }
  for (const Unit& unit : units) {
    if (text.substr(at) != unit.name) continue;
    int64_t value = 0;
    int64_t part = 0;
    if (__builtin_mul_overflow(whole, unit.size, &value) ||
        __builtin_mul_overflow(fraction, unit.size, &part) || part % scale != 0 ||
        __builtin_add_overflow(value, part / scale, &value)) {
      return error;
    }
    return value;
  }
  return error;
}

std::string FormatWithUnit(int64_t value, std::span<const Unit> units, absl::string_view zero) {
  if (value == 0) return std::string(zero);
  for (const Unit& unit : units) {
    if (value % unit.size == 0) return absl::StrCat(value / unit.size, unit.name);
  }
  return std::string(zero);
}

}  // namespace

StatusOr<Duration> ParseDuration(absl::string_view text) {
  TESSERA_ASSIGN_OR_RETURN(
      const int64_t ns,
      ParseWithUnit(text, kDurations, "must be a time with its unit, such as 500ms, 30s or 10m"));
  return Duration(ns);
}

StatusOr<ByteSize> ParseByteSize(absl::string_view text) {
  TESSERA_ASSIGN_OR_RETURN(
      const int64_t bytes,
      ParseWithUnit(text, kSizes,
                    "must be a size with its unit (B, KiB, MiB, GiB or TiB), such as 16MiB"));
  return ByteSize{bytes};
}

StatusOr<bool> ParseBool(absl::string_view text) {
  if (text == "true") return true;
  if (text == "false") return false;
  return absl::InvalidArgumentError("must be true or false");
}

StatusOr<int64_t> ParseInt(absl::string_view text) {
  int64_t value = 0;
  const bool plain =
      !text.empty() && !absl::ascii_isspace(static_cast<unsigned char>(text.front())) &&
      !absl::ascii_isspace(static_cast<unsigned char>(text.back())) && text[0] != '+';
  if (!plain || !absl::SimpleAtoi(text, &value)) {
    return absl::InvalidArgumentError("must be a whole number");
  }
  return value;
}

StatusOr<double> ParseDouble(absl::string_view text) {
  double value = 0;
  const bool plain = text.find_first_not_of("0123456789+-.eE") == absl::string_view::npos;
  if (!plain || !absl::SimpleAtod(text, &value) || !std::isfinite(value)) {
    return absl::InvalidArgumentError("must be a number");
  }
  return value;
}

std::string FormatValue(Duration value) { return FormatWithUnit(value.count(), kDurations, "0s"); }
std::string FormatValue(ByteSize value) { return FormatWithUnit(value.bytes, kSizes, "0B"); }
std::string FormatValue(bool value) { return value ? "true" : "false"; }
std::string FormatValue(int64_t value) { return absl::StrCat(value); }

std::string FormatValue(double value) {
  char text[32];
  for (const int digits : {6, 15, 17}) {
    std::snprintf(text, sizeof(text), "%.*g", digits, value);
    if (std::strtod(text, nullptr) == value) break;
  }
  return text;
}

}  // namespace tessera
