// Python's string operations on marked texts: each byte of a result keeps the mark that it had.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/text/jinja/marked_text.h"

namespace tessera::server::jinja {

[[nodiscard]] bool IsSpaceCharacter(char32_t c);
// Letters, digits and the underscore.
[[nodiscard]] bool IsWordCharacter(char32_t c);

enum class Side { kLeft, kRight, kBoth };

// `characters` unset: white space.
[[nodiscard]] MarkedText Strip(const MarkedText& text, Side side,
                               std::optional<absl::string_view> characters);

// str.split() and str.rsplit(). `separator` unset: runs of white space; it must not be empty.
// `max_splits` below 0: no bound. `side` is kLeft or kRight: where counting starts.
[[nodiscard]] std::vector<MarkedText> Split(const MarkedText& text,
                                            std::optional<absl::string_view> separator,
                                            int64_t max_splits, Side side);
[[nodiscard]] size_t CountSpaces(absl::string_view text);
enum class LineEnds { kDrop, kKeep };
[[nodiscard]] std::vector<MarkedText> SplitLines(const MarkedText& text, LineEnds ends);

[[nodiscard]] size_t CountLineEnds(absl::string_view text);

// How often replacing would happen; `count` below 0: no bound.
[[nodiscard]] size_t CountMatches(absl::string_view text, absl::string_view part, int64_t count);
[[nodiscard]] MarkedText Replace(const MarkedText& text, absl::string_view from,
                                 const MarkedText& to, int64_t count);

// Unicode's case mappings; a result is at most three times as long.
[[nodiscard]] MarkedText Upper(const MarkedText& text);
[[nodiscard]] MarkedText Lower(const MarkedText& text);
[[nodiscard]] MarkedText Capitalize(const MarkedText& text);
[[nodiscard]] MarkedText Title(const MarkedText& text);  // str.title()
[[nodiscard]] MarkedText SwapCase(const MarkedText& text);

// `text` has characters and all are of the class.
[[nodiscard]] bool AllCharacters(absl::string_view text, const std::function<bool(char32_t)>& in);
// Some character has case, and each that has is lower (upper).
[[nodiscard]] bool IsLower(absl::string_view text);
[[nodiscard]] bool IsUpper(absl::string_view text);

// Fills up to `width` characters; kBoth centres as Python does.
[[nodiscard]] MarkedText Pad(const MarkedText& text, size_t width, const MarkedText& fill,
                             Side text_side);

}  // namespace tessera::server::jinja
