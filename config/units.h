// Values as people write them in settings: `30s`, `16MiB`, `0.95`, `true`.
#pragma once

#include <compare>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "config/foundation/clock.h"
#include "config/foundation/status.h"

namespace tessera {

// A size, apart from other integers so that it is written with its unit.
struct ByteSize {
  int64_t bytes = 0;
  auto operator<=>(const ByteSize&) const = default;
};

constexpr ByteSize KiB(int64_t n) { return {n << 10}; }
constexpr ByteSize MiB(int64_t n) { return {n << 20}; }
constexpr ByteSize GiB(int64_t n) { return {n << 30}; }

// INVALID_ARGUMENT, with the accepted forms as the message, where the text is not such a value.
// Durations: ns, us, ms, s, m, h, d. Sizes: B, KiB, MiB, GiB, TiB. A fraction may stand before the
// unit (`1.5s`); a sign may not. Doubles must be finite.
[[nodiscard]] StatusOr<Duration> ParseDuration(absl::string_view text);
[[nodiscard]] StatusOr<ByteSize> ParseByteSize(absl::string_view text);
[[nodiscard]] StatusOr<bool> ParseBool(absl::string_view text);
[[nodiscard]] StatusOr<int64_t> ParseInt(absl::string_view text);
[[nodiscard]] StatusOr<double> ParseDouble(absl::string_view text);

// The shortest exact form, which the parsers read back to the same value.
[[nodiscard]] std::string FormatValue(Duration value);
[[nodiscard]] std::string FormatValue(ByteSize value);
[[nodiscard]] std::string FormatValue(bool value);
[[nodiscard]] std::string FormatValue(int64_t value);
[[nodiscard]] std::string FormatValue(double value);

}  // namespace tessera
