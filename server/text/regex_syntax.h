// Patterns as Oniguruma reads them, which tokenizer.json is written for, in PCRE2's syntax.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "config/foundation/status.h"

namespace tessera::server {

// Writes `pattern` so that PCRE2 finds what Oniguruma finds: \d, \w, \s and the general categories
// know the characters of Unicode 16, \w has all of Unicode's word characters, \h is a hexadecimal
// digit, and classes may hold classes and intersections (&&). INVALID_ARGUMENT with the offset
// when a class does not end or classes nest too deep; whatever else is wrong, PCRE2 tells.
[[nodiscard]] StatusOr<std::string> ToLibrarySyntax(absl::string_view pattern);

}  // namespace tessera::server
