// One formatted value: what "%" formats and str.format() share.
#pragma once

#include <string>

#include "server/text/jinja/interpreter.h"

namespace tessera::server::jinja {

inline constexpr int kMaxPrecision = 1000;

// The parts of both kinds of specification.
struct FormatSpec {
  std::string fill = " ";
  char align = '\0';  // '<', '>', '^', '='; '\0': as the type has it
  char sign = '-';    // '-', '+', ' '
  bool alternate = false;
  char grouping = '\0';
  size_t width = 0;
  int precision = -1;
  char type = '\0';
};

// INVALID_ARGUMENT with the reason.
[[nodiscard]] Status BadFormat(absl::string_view why);

// `value` must be a number. INVALID_ARGUMENT when its type does not go with the specification's.
[[nodiscard]] StatusOr<Value> FormatNumber(Interpreter& interpreter, const Value& value,
                                           const FormatSpec& spec);
// Cut to the precision and filled up; `fallback_align` where the specification has none.
[[nodiscard]] StatusOr<Value> FormatText(Interpreter& interpreter, MarkedText text,
                                         const FormatSpec& spec, char fallback_align);

}  // namespace tessera::server::jinja
