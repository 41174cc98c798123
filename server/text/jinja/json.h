// JSON and template values.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "server/text/jinja/value.h"

namespace tessera::server::jinja {

// Values of a JSON text; objects keep their order, strings are marked `origin`. INVALID_ARGUMENT
// naming `field` when it is not JSON or nested deeper than 64.
[[nodiscard]] StatusOr<Value> FromJson(absl::string_view text, TextOrigin origin,
                                       absl::string_view field);

struct JsonFormat {
  int indent = -1;  // below 0: on one line
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool ascii = false;
  bool sort_keys = false;
};

// json.dumps() of Python. INVALID_ARGUMENT for values that have no JSON. All of it is marked data.
[[nodiscard]] StatusOr<MarkedText> ToJson(const Value& value, const JsonFormat& format);

}  // namespace tessera::server::jinja
