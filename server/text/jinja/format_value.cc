#include "server/text/jinja/format_value.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/text/jinja/text_ops.h"
#include "server/text/utf8.h"

namespace tessera::server::jinja {
namespace {

std::string Printed(const char* conversion, int precision, double value) {
  char small[64];
  const int size = std::snprintf(small, sizeof(small), conversion, precision, value);
  if (size < static_cast<int>(sizeof(small))) return small;
  std::string large(static_cast<size_t>(size) + 1, '\0');
  std::snprintf(large.data(), large.size(), conversion, precision, value);
  large.pop_back();
  return large;
}

// A float without a type but with a precision: as short as "g", and always seen to be a float.
std::string GeneralFloat(double value, int precision) {
  const int digits = std::max(precision, 1);
  const std::string scientific = Printed("%.*e", digits - 1, value);
  const size_t e = scientific.find('e');
  int exponent = 0;
  if (e == std::string::npos || !absl::SimpleAtoi(scientific.substr(e + 1), &exponent)) {
    return scientific;
  }
  if (exponent + 1 > digits - 1 || exponent + 1 <= -4) {
    std::string mantissa = scientific.substr(0, e);
    if (mantissa.find('.') != std::string::npos) {
      mantissa.erase(mantissa.find_last_not_of('0') + 1);
      if (mantissa.back() == '.') mantissa.pop_back();
    }
    return mantissa + scientific.substr(e);
  }
  std::string plain = Printed("%.*g", digits, value);
  if (plain.find('.') == std::string::npos) plain += ".0";
  return plain;
}

// The digits of a number's absolute value.
StatusOr<std::string> FloatDigits(double value, const FormatSpec& spec) {
  value = std::fabs(value);
  if (!std::isfinite(value)) return std::string(std::isnan(value) ? "nan" : "inf");
  const int precision = spec.precision < 0 ? 6 : spec.precision;
  switch (spec.type) {
    case '\0':
      return spec.precision < 0 ? FloatText(value) : GeneralFloat(value, spec.precision);
    case 'e':
      return Printed("%.*e", precision, value);
    case 'E':
      return Printed("%.*E", precision, value);
    case 'f':
    case 'F':
      return Printed("%.*f", precision, value);
    case 'g':
    case 'n':
      return Printed(spec.alternate ? "%#.*g" : "%.*g", precision, value);
    case 'G':
      return Printed(spec.alternate ? "%#.*G" : "%.*G", precision, value);
    case '%':
      return Printed("%.*f", precision, value * 100) + "%";
    default:
      return BadFormat(absl::StrCat("'", std::string(1, spec.type), "' is not for a float"));
  }
}

StatusOr<std::string> IntegerDigits(int64_t value, const FormatSpec& spec) {
  const uint64_t size = value < 0 ? 0 - static_cast<uint64_t>(value) : value;
  uint64_t base = 10;
  if (spec.type == 'b') base = 2;
  if (spec.type == 'o') base = 8;
  if (spec.type == 'x' || spec.type == 'X') base = 16;
  const char* const names = spec.type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
  std::string digits;
  uint64_t rest = size;
  do {
    digits.push_back(names[rest % base]);
    rest /= base;
  } while (rest > 0);
  std::reverse(digits.begin(), digits.end());
  if (spec.alternate && base != 10) digits = absl::StrCat("0", std::string(1, spec.type), digits);
  return digits;
}

void Group(char separator, std::string* digits) {
  size_t end = 0;
  while (end < digits->size() && absl::ascii_isdigit((*digits)[end])) ++end;
  for (size_t at = end; at > 3;) {
    at -= 3;
    digits->insert(at, 1, separator);
  }
}

StatusOr<Value> Padded(Interpreter& interpreter, const MarkedText& text, const FormatSpec& spec,
                       char align) {
  const size_t missing = spec.width - std::min(spec.width, text.Length());
  TESSERA_RETURN_IF_ERROR(interpreter.ReserveText(text.size() + missing * spec.fill.size()));
  const MarkedText fill(spec.fill);
  if (align == '^') {
    MarkedText padded;
    for (size_t i = 0; i < missing / 2; ++i) padded.Append(fill);
    padded.Append(text);
    return Value::Text(Pad(padded, spec.width, fill, Side::kLeft));
  }
  return Value::Text(Pad(text, spec.width, fill, align == '>' ? Side::kRight : Side::kLeft));
}

}  // namespace

Status BadFormat(absl::string_view why) {
  return Interpreter::Fail(absl::StrCat("a format is broken: ", why));
}

StatusOr<Value> FormatNumber(Interpreter& interpreter, const Value& value, const FormatSpec& spec) {
  const bool as_integer =
      value.integer() &&
      (spec.type == '\0' || absl::StrContains("bcdoxXn", absl::string_view(&spec.type, 1)));
  std::string digits;
  bool negative = false;
  if (as_integer && spec.type == 'c') {
    std::string character;
    AppendUtf8(static_cast<char32_t>(std::clamp<int64_t>(*value.integer(), 0, 0x110000)),
               &character);
    return Padded(interpreter, MarkedText(character), spec, spec.align == '\0' ? '<' : spec.align);
  }
  if (as_integer) {
    TESSERA_ASSIGN_OR_RETURN(digits, IntegerDigits(*value.integer(), spec));
    negative = *value.integer() < 0;
  } else {
    TESSERA_ASSIGN_OR_RETURN(digits, FloatDigits(*value.number(), spec));
    negative = std::signbit(*value.number()) && !std::isnan(*value.number());
  }
  if (spec.grouping != '\0') Group(spec.grouping, &digits);
  const std::string sign = negative ? "-" : (spec.sign == '-' ? "" : std::string(1, spec.sign));
  if (spec.align == '=') {
    const size_t used = sign.size() + digits.size();
    const size_t missing = spec.width - std::min(spec.width, used);
    TESSERA_RETURN_IF_ERROR(interpreter.ReserveText(used + missing * spec.fill.size()));
    std::string text = sign;
    for (size_t i = 0; i < missing; ++i) text += spec.fill;
    return Value::Text(text + digits);
  }
  return Padded(interpreter, MarkedText(sign + digits), spec,
                spec.align == '\0' ? '>' : spec.align);
}

StatusOr<Value> FormatText(Interpreter& interpreter, MarkedText text, const FormatSpec& spec,
                           char fallback_align) {
  if (spec.precision >= 0) text = text.Substr(0, text.ByteOf(spec.precision));
  return Padded(interpreter, text, spec, spec.align == '\0' ? fallback_align : spec.align);
}

}  // namespace tessera::server::jinja
