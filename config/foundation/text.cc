#include "config/foundation/text.h"

#include <cstdint>

namespace tessera {
namespace {

bool IsContinuation(char c) { return (static_cast<uint8_t>(c) & 0xC0) == 0x80; }

char32_t DecodeValid(absl::string_view character) {
  const auto byte = [&](size_t i) {
    return static_cast<char32_t>(static_cast<uint8_t>(character[i]));
  };
  switch (character.size()) {
    case 1:
      return byte(0);
    case 2:
      return (byte(0) & 0x1F) << 6 | (byte(1) & 0x3F);
    case 3:
      return (byte(0) & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    default:
      return (byte(0) & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 |
             (byte(3) & 0x3F);
  }
}

void AppendEscape(char32_t code_point, std::string* out) {
  static constexpr char kDigits[] = "0123456789abcdef";
  *out += "\\u";
  for (int shift = 12; shift >= 0; shift -= 4) out->push_back(kDigits[code_point >> shift & 15]);
}

bool NeedsEscape(char32_t c) {
  return c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0x2028 || c == 0x2029;
}

void AppendQuotedCharacter(absl::string_view character, std::string* out) {
  const char32_t c = DecodeValid(character);
  switch (c) {
    case '"':
      *out += "\\\"";
      return;
    case '\\':
      *out += "\\\\";
      return;
    case '\n':
      *out += "\\n";
      return;
    case '\r':
      *out += "\\r";
      return;
    case '\t':
      *out += "\\t";
      return;
    default:
      break;
  }
  if (NeedsEscape(c)) {
    AppendEscape(c, out);
  } else {
    out->append(character.data(), character.size());
  }
}

}  // namespace

size_t Utf8CharacterBytes(absl::string_view text) {
  if (text.empty()) return 0;
  const uint8_t first = static_cast<uint8_t>(text[0]);
  size_t size = 0;
  if (first < 0x80) {
    return 1;
  } else if (first >= 0xC2 && first <= 0xDF) {
    size = 2;
  } else if (first >= 0xE0 && first <= 0xEF) {
    size = 3;
  } else if (first >= 0xF0 && first <= 0xF4) {
    size = 4;
  } else {
    return 0;
  }
  if (text.size() < size) return 0;
  for (size_t i = 1; i < size; ++i) {
    if (!IsContinuation(text[i])) return 0;
  }
  const char32_t value = DecodeValid(text.substr(0, size));
  if (size == 3 && (value < 0x800 || (value >= 0xD800 && value <= 0xDFFF))) return 0;
  if (size == 4 && (value < 0x10000 || value > 0x10FFFF)) return 0;
  return size;
}

std::optional<size_t> FindInvalidUtf8(absl::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const size_t size = Utf8CharacterBytes(text.substr(i));
    if (size == 0) return i;
    i += size;
  }
  return std::nullopt;
}

void AppendUtf8(char32_t code_point, std::string* out) {
  char32_t c = code_point;
  if (c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF)) c = 0xFFFD;
  if (c < 0x80) {
    out->push_back(static_cast<char>(c));
  } else if (c < 0x800) {
    out->push_back(static_cast<char>(0xC0 | c >> 6));
    out->push_back(static_cast<char>(0x80 | (c & 0x3F)));
  } else if (c < 0x10000) {
    out->push_back(static_cast<char>(0xE0 | c >> 12));
    out->push_back(static_cast<char>(0x80 | (c >> 6 & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (c & 0x3F)));
  } else {
    out->push_back(static_cast<char>(0xF0 | c >> 18));
    out->push_back(static_cast<char>(0x80 | (c >> 12 & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (c >> 6 & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (c & 0x3F)));
  }
}

void AppendQuoted(absl::string_view text, std::string* out) {
  out->push_back('"');
  for (size_t i = 0; i < text.size();) {
    const size_t size = Utf8CharacterBytes(text.substr(i));
    if (size == 0) {
      AppendUtf8(0xFFFD, out);
      ++i;
      continue;
    }
    AppendQuotedCharacter(text.substr(i, size), out);
    i += size;
  }
  out->push_back('"');
}

std::string Quoted(absl::string_view text, size_t max_bytes) {
  std::string out;
  if (text.size() <= max_bytes) {
    AppendQuoted(text, &out);
    return out;
  }
  size_t cut = max_bytes;
  while (cut > 0 && IsContinuation(text[cut])) --cut;
  AppendQuoted(text.substr(0, cut), &out);
  out += "...";
  return out;
}

}  // namespace tessera
