#include "server/text/jinja/numbers.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "server/text/jinja/text_ops.h"

namespace tessera::server::jinja {
namespace {

// Without the white space around and the underscores between digits; nullopt when one is elsewhere.
std::optional<std::string> Digits(absl::string_view text) {
  const std::string bytes = Strip(MarkedText(std::string(text)), Side::kBoth, std::nullopt).bytes();
  std::string digits;
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i] != '_') {
      digits.push_back(bytes[i]);
    } else if (i == 0 || i + 1 == bytes.size() || !absl::ascii_isalnum(bytes[i - 1]) ||
               !absl::ascii_isalnum(bytes[i + 1])) {
      return std::nullopt;
    }
  }
  if (digits.empty()) return std::nullopt;
  return digits;
}

}  // namespace

std::optional<int64_t> ParseInteger(absl::string_view text, int64_t base) {
  const std::optional<std::string> digits = Digits(text);
  if (!digits || base < 0 || base == 1 || base > 36) return std::nullopt;
  absl::string_view rest = *digits;
  const bool negative = rest[0] == '-';
  if (rest[0] == '-' || rest[0] == '+') rest.remove_prefix(1);
  if (rest.size() > 2 && rest[0] == '0') {
    const char letter = absl::ascii_tolower(rest[1]);
    const int64_t named = letter == 'x' ? 16 : (letter == 'o' ? 8 : (letter == 'b' ? 2 : 0));
    if (named != 0 && (base == named || base == 0)) {
      rest.remove_prefix(2);
      base = named;
    }
  }
  if (base == 0) base = 10;
  if (rest.empty()) return std::nullopt;
  int64_t value = 0;
  for (const char c : rest) {
    if (!absl::ascii_isalnum(c)) return std::nullopt;
    const int64_t digit = absl::ascii_isdigit(c) ? c - '0' : absl::ascii_tolower(c) - 'a' + 10;
    if (digit >= base || __builtin_mul_overflow(value, base, &value) ||
        __builtin_sub_overflow(value, digit, &value)) {
      return std::nullopt;
    }
  }
  if (negative) return value;
  if (value == INT64_MIN) return std::nullopt;
  return -value;
}

std::optional<double> ParseFloat(absl::string_view text) {
  const std::optional<std::string> digits = Digits(text);
  if (!digits) return std::nullopt;
  double value = 0;
  // Hexadecimal forms and "nan(...)" are not Python's.
  if (absl::StrContains(absl::AsciiStrToLower(*digits), "x") || absl::StrContains(*digits, "(")) {
    return std::nullopt;
  }
  if (!absl::SimpleAtod(*digits, &value)) return std::nullopt;
  return value;
}

Value RoundHalfEven(const Value& number, int precision) {
  if (const std::optional<int64_t> integer = number.integer()) {
    if (precision >= 0) return Value::Int(*integer);
    if (precision < -18) return Value::Int(0);
    int64_t unit = 1;
    for (int i = 0; i < -precision; ++i) unit *= 10;
    int64_t quotient = *integer / unit;
    const uint64_t rest = std::abs(*integer % unit);
    const uint64_t half = static_cast<uint64_t>(unit) / 2;
    if (rest > half || (rest == half && quotient % 2 != 0)) quotient += *integer < 0 ? -1 : 1;
    int64_t rounded = 0;
    if (__builtin_mul_overflow(quotient, unit, &rounded)) return Value::Float(*number.number());
    return Value::Int(rounded);
  }
  const double value = *number.number();
  if (!std::isfinite(value)) return number;
  if (precision >= 0) {
    char text[720];
    std::snprintf(text, sizeof(text), "%.*f", precision, value);
    return Value::Float(std::strtod(text, nullptr));
  }
  const double unit = std::pow(10.0, -precision);
  return Value::Float(std::nearbyint(value / unit) * unit);
}

}  // namespace tessera::server::jinja
