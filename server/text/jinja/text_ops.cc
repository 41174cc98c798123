#include "server/text/jinja/text_ops.h"

#include <algorithm>

#include "server/text/utf8.h"

namespace tessera::server::jinja {
namespace {

// What may be stripped: white space, or the characters of a text.
class Stripped {
 public:
  explicit Stripped(std::optional<absl::string_view> characters) : any_space_(!characters) {
    for (size_t pos = 0; characters && pos < characters->size();) {
      const CodePoint code = DecodeUtf8(*characters, pos);
      listed_.push_back(code.value);
      pos += code.length;
    }
    std::sort(listed_.begin(), listed_.end());
  }

  [[nodiscard]] bool Has(char32_t c) const {
    return any_space_ ? IsSpaceCharacter(c) : std::binary_search(listed_.begin(), listed_.end(), c);
  }

 private:
  bool any_space_;
  std::vector<char32_t> listed_;
};

// The start of the character that ends at `end`.
size_t CharacterBefore(absl::string_view text, size_t end) {
  do {
    --end;
  } while (end > 0 && (text[end] & 0xC0) == 0x80);
  return end;
}

std::vector<MarkedText> SplitSpaces(const MarkedText& text, int64_t max_splits) {
  std::vector<MarkedText> parts;
  const absl::string_view bytes = text.bytes();
  size_t pos = 0;
  for (;;) {
    while (pos < bytes.size() && IsSpaceCharacter(DecodeUtf8(bytes, pos).value)) {
      pos += DecodeUtf8(bytes, pos).length;
    }
    if (pos >= bytes.size()) return parts;
    if (max_splits >= 0 && static_cast<int64_t>(parts.size()) == max_splits) {
      parts.push_back(text.Substr(pos));
      return parts;
    }
    const size_t begin = pos;
    while (pos < bytes.size() && !IsSpaceCharacter(DecodeUtf8(bytes, pos).value)) {
      pos += DecodeUtf8(bytes, pos).length;
    }
    parts.push_back(text.Substr(begin, pos - begin));
  }
}

std::vector<MarkedText> SplitSpacesFromRight(const MarkedText& text, int64_t max_splits) {
  std::vector<MarkedText> parts;
  const absl::string_view bytes = text.bytes();
  size_t end = bytes.size();
  for (;;) {
    size_t at = end;
    while (end > 0 && IsSpaceCharacter(DecodeUtf8(bytes, at = CharacterBefore(bytes, end)).value)) {
      end = at;
    }
    if (end == 0) break;
    if (max_splits >= 0 && static_cast<int64_t>(parts.size()) == max_splits) {
      parts.push_back(text.Substr(0, end));
      break;
    }
    size_t begin = end;
    while (begin > 0 &&
           !IsSpaceCharacter(DecodeUtf8(bytes, at = CharacterBefore(bytes, begin)).value)) {
      begin = at;
    }
    parts.push_back(text.Substr(begin, end - begin));
    end = begin;
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

// Line ends of str.splitlines().
bool IsLineEnd(char32_t c) {
  return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
         c == 0x2029;
}

size_t CountCharacters(absl::string_view text, bool (*in)(char32_t)) {
  size_t count = 0;
  for (size_t pos = 0; pos < text.size();) {
    const CodePoint code = DecodeUtf8(text, pos);
    count += in(code.value) ? 1 : 0;
    pos += code.length;
  }
  return count;
}

}  // namespace

bool IsSpaceCharacter(char32_t c) {
  return c == ' ' || (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x1F) || c == 0x85 ||
         c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
         c == 0x202F || c == 0x205F || c == 0x3000;
}

MarkedText Strip(const MarkedText& text, Side side, std::optional<absl::string_view> characters) {
  const Stripped stripped(characters);
  const absl::string_view bytes = text.bytes();
  size_t begin = 0;
  size_t end = bytes.size();
  while (side != Side::kRight && begin < end) {
    const CodePoint code = DecodeUtf8(bytes, begin);
    if (!stripped.Has(code.value)) break;
    begin += code.length;
  }
  while (side != Side::kLeft && end > begin) {
    const size_t last = CharacterBefore(bytes, end);
    if (!stripped.Has(DecodeUtf8(bytes, last).value)) break;
    end = last;
  }
  return text.Substr(begin, end - begin);
}

std::vector<MarkedText> Split(const MarkedText& text, std::optional<absl::string_view> separator,
                              int64_t max_splits, Side side) {
  if (!separator) {
    return side == Side::kRight ? SplitSpacesFromRight(text, max_splits)
                                : SplitSpaces(text, max_splits);
  }
  const absl::string_view bytes = text.bytes();
  std::vector<MarkedText> parts;
  const auto more = [&] {
    return max_splits < 0 || static_cast<int64_t>(parts.size()) < max_splits;
  };
  if (side == Side::kRight) {
    size_t end = bytes.size();
    while (more() && end >= separator->size()) {
      const size_t at = bytes.rfind(*separator, end - separator->size());
      if (at == absl::string_view::npos) break;
      parts.push_back(text.Substr(at + separator->size(), end - at - separator->size()));
      end = at;
    }
    parts.push_back(text.Substr(0, end));
    std::reverse(parts.begin(), parts.end());
    return parts;
  }
  size_t pos = 0;
  while (more()) {
    const size_t at = bytes.find(*separator, pos);
    if (at == absl::string_view::npos) break;
    parts.push_back(text.Substr(pos, at - pos));
    pos = at + separator->size();
  }
  parts.push_back(text.Substr(pos));
  return parts;
}

std::vector<MarkedText> SplitLines(const MarkedText& text, LineEnds ends) {
  std::vector<MarkedText> lines;
  const absl::string_view bytes = text.bytes();
  size_t begin = 0;
  for (size_t pos = 0; pos < bytes.size();) {
    const CodePoint code = DecodeUtf8(bytes, pos);
    if (!IsLineEnd(code.value)) {
      pos += code.length;
      continue;
    }
    const bool pair = code.value == '\r' && bytes.substr(pos + 1, 1) == "\n";
    const size_t next = pos + code.length + (pair ? 1 : 0);
    lines.push_back(text.Substr(begin, (ends == LineEnds::kKeep ? next : pos) - begin));
    begin = pos = next;
  }
  if (begin < bytes.size()) lines.push_back(text.Substr(begin));
  return lines;
}

size_t CountLineEnds(absl::string_view text) { return CountCharacters(text, IsLineEnd); }

size_t CountSpaces(absl::string_view text) { return CountCharacters(text, IsSpaceCharacter); }

size_t CountMatches(absl::string_view text, absl::string_view part, int64_t count) {
  const size_t most = count < 0 ? SIZE_MAX : static_cast<size_t>(count);
  if (part.empty()) {
    const auto characters = static_cast<size_t>(
        std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
    return std::min(most, characters + 1);
  }
  size_t matches = 0;
  for (size_t pos = text.find(part); pos != absl::string_view::npos && matches < most;
       pos = text.find(part, pos + part.size())) {
    ++matches;
  }
  return matches;
}

MarkedText Replace(const MarkedText& text, absl::string_view from, const MarkedText& to,
                   int64_t count) {
  const absl::string_view bytes = text.bytes();
  const size_t matches = CountMatches(bytes, from, count);
  MarkedText result;
  size_t pos = 0;
  for (size_t i = 0; i < matches; ++i) {
    // An empty text is found before each character and at the end.
    const size_t at = from.empty() ? pos : bytes.find(from, pos);
    result.Append(text, pos, at - pos);
    result.Append(to);
    pos = at + from.size();
    if (from.empty() && pos < bytes.size()) {
      const size_t length = DecodeUtf8(bytes, pos).length;
      result.Append(text, pos, length);
      pos += length;
    }
  }
  if (pos < bytes.size()) result.Append(text, pos, bytes.size() - pos);
  return result;
}

MarkedText Pad(const MarkedText& text, size_t width, const MarkedText& fill, Side text_side) {
  const size_t length = text.Length();
  if (length >= width) return text;
  const size_t missing = width - length;
  size_t left = 0;
  if (text_side == Side::kRight) left = missing;
  if (text_side == Side::kBoth) left = missing / 2 + (missing & width & 1);
  MarkedText padded;
  for (size_t i = 0; i < left; ++i) padded.Append(fill);
  padded.Append(text);
  for (size_t i = left; i < missing; ++i) padded.Append(fill);
  return padded;
}

}  // namespace tessera::server::jinja
