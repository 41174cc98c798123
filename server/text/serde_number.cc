#include "server/text/serde_number.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <limits>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace tessera::server {
namespace {

constexpr int kLargestPower = 308;
// Beyond it every number is 0 or infinite, and sums cannot overflow.
constexpr int64_t kExponentLimit = int64_t{1} << 31;

double PowerOfTen(int64_t exponent) {
  static const std::array<double, kLargestPower + 1> kPowers = [] {
    std::array<double, kLargestPower + 1> powers{};
    for (int i = 0; i <= kLargestPower; ++i) {
      const std::string text = absl::StrCat("1e", i);
      std::from_chars(text.data(), text.data() + text.size(), powers[i]);
    }
    return powers;
  }();
  return kPowers[exponent];
}

double Scaled(double value, int64_t exponent) {
  while (exponent < -kLargestPower && value != 0) {
    value /= PowerOfTen(kLargestPower);
    exponent += kLargestPower;
  }
  if (value == 0) return value;
  if (exponent > kLargestPower) return std::numeric_limits<double>::infinity();
  return exponent < 0 ? value / PowerOfTen(-exponent) : value * PowerOfTen(exponent);
}

// Adds a digit; false when 64 bits cannot hold it.
bool AddDigit(char digit, uint64_t* significand) {
  const uint64_t value = static_cast<uint64_t>(digit - '0');
  constexpr uint64_t kMost = std::numeric_limits<uint64_t>::max();
  if (*significand > (kMost - value) / 10) return false;
  *significand = 10 * *significand + value;
  return true;
}

// The digits that `text` begins with; they are taken from it.
absl::string_view TakeDigits(absl::string_view* text) {
  size_t count = 0;
  while (count < text->size() && absl::ascii_isdigit((*text)[count])) ++count;
  const absl::string_view digits = text->substr(0, count);
  text->remove_prefix(count);
  return digits;
}

// The exponent behind the "e" that `text` begins with.
int64_t ExponentOf(absl::string_view text) {
  text.remove_prefix(1);
  const bool negative = !text.empty() && text[0] == '-';
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) text.remove_prefix(1);
  int64_t exponent = 0;
  for (const char digit : TakeDigits(&text)) {
    exponent = std::min(10 * exponent + (digit - '0'), kExponentLimit);
  }
  return negative ? -exponent : exponent;
}

}  // namespace

double SerdeNumber(absl::string_view text) {
  const bool negative = !text.empty() && text[0] == '-';
  if (negative) text.remove_prefix(1);
  uint64_t significand = 0;
  int64_t exponent = 0;
  // Behind the first digit that does not fit, digits before the point count only as places.
  const absl::string_view whole = TakeDigits(&text);
  for (size_t i = 0; i < whole.size() && exponent == 0; ++i) {
    if (!AddDigit(whole[i], &significand)) exponent = static_cast<int64_t>(whole.size() - i);
  }
  if (!text.empty() && text[0] == '.') {
    text.remove_prefix(1);
    for (const char digit : TakeDigits(&text)) {
      if (!AddDigit(digit, &significand)) break;
      --exponent;
    }
  }
  if (!text.empty()) exponent += ExponentOf(text);
  const double value = Scaled(static_cast<double>(significand), exponent);
  return negative ? -value : value;
}

}  // namespace tessera::server
