// Numbers as Python reads and rounds them.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/strings/string_view.h"
#include "server/text/jinja/value.h"

namespace tessera::server::jinja {

// int(text, base) and float(text); nullopt when it is no such number or does not fit 64 bits.
[[nodiscard]] std::optional<int64_t> ParseInteger(absl::string_view text, int64_t base);
[[nodiscard]] std::optional<double> ParseFloat(absl::string_view text);

// round(number, precision): ties to even, of the exact value. |precision| <= 300.
[[nodiscard]] Value RoundHalfEven(const Value& number, int precision);

}  // namespace tessera::server::jinja
