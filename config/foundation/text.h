// Text that comes from outside: UTF-8 checks and quoting that cannot be broken out of.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace tessera {

// Bytes of the UTF-8 character at the start of `text` (1-4); 0 if `text` is empty or does not start
// with a valid one (overlong forms, surrogates and values above U+10FFFF are invalid).
[[nodiscard]] size_t Utf8CharacterBytes(absl::string_view text);

// Offset of the first byte that is not part of valid UTF-8, or nothing.
[[nodiscard]] std::optional<size_t> FindInvalidUtf8(absl::string_view text);

// Appends `code_point` as UTF-8. Surrogates and values above U+10FFFF become U+FFFD.
void AppendUtf8(char32_t code_point, std::string* out);

// Appends `text` as a JSON string with its quotes, also valid as a double-quoted YAML scalar.
// Control characters (C0, DEL, C1), U+2028 and U+2029 are escaped and invalid bytes become U+FFFD,
// so that the result is always one line of printable text.
void AppendQuoted(absl::string_view text, std::string* out);

// `AppendQuoted` of at most the first `max_bytes` bytes, with `...` after a cut.
[[nodiscard]] std::string Quoted(absl::string_view text, size_t max_bytes = 120);

}  // namespace tessera
