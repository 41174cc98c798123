// JSON and template values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "server/text/jinja/value.h"

namespace tessera::server::jinja {

// Values of a JSON text; objects keep their order, of equal keys the last value counts, strings are
// marked `origin`. INVALID_ARGUMENT naming `field` when it is not JSON, nested deeper than 64, or
// has an integer beyond 64 bits.
[[nodiscard]] StatusOr<Value> FromJson(absl::string_view text, TextOrigin origin,
                                       absl::string_view field);

struct JsonFormat {
  std::optional<std::string> indent;  // of one level; unset: all on one line
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool ascii = false;
  bool sort_keys = false;
  size_t max_bytes = SIZE_MAX;  // writing stops soon after: a longer result is cut
};

// json.dumps() of Python. INVALID_ARGUMENT for values that have no JSON. All of it is marked data.
[[nodiscard]] StatusOr<MarkedText> ToJson(const Value& value, const JsonFormat& format);

}  // namespace tessera::server::jinja
