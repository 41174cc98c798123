// Case and classes of characters: the part of text_ops.h that needs Unicode's tables.
#include <unicode/uchar.h>
#include <unicode/ustring.h>

#include <utility>

#include "server/text/jinja/text_ops.h"
#include "server/text/utf8.h"

namespace tessera::server::jinja {
namespace {

constexpr char32_t kSigma = 0x3A3;
constexpr char32_t kFinalSigma = 0x3C2;
constexpr char32_t kSmallSigma = 0x3C3;

bool IsCased(char32_t c) { return u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_CASED); }
bool IsIgnorable(char32_t c) {
  return u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_CASE_IGNORABLE);
}

enum class Case { kUpper, kLower, kTitle };

// The full mapping of one character, up to three code points.
std::string Mapped(char32_t c, Case to) {
  if (c < 0x80) {
    char byte = static_cast<char>(c);
    if (to == Case::kLower && byte >= 'A' && byte <= 'Z') byte |= 0x20;
    if (to != Case::kLower && byte >= 'a' && byte <= 'z') byte &= ~0x20;
    return std::string(1, byte);
  }
  UChar source[2];
  int32_t length = 0;
  U16_APPEND_UNSAFE(source, length, c);
  UChar target[8];
  UErrorCode error = U_ZERO_ERROR;
  int32_t written = 0;
  if (to == Case::kUpper) {
    written = u_strToUpper(target, 8, source, length, "", &error);
  } else if (to == Case::kLower) {
    written = u_strToLower(target, 8, source, length, "", &error);
  } else {
    written = u_strToTitle(target, 8, source, length, nullptr, "", &error);
  }
  std::string out;
  if (U_FAILURE(error)) {
    AppendUtf8(c, &out);
    return out;
  }
  for (int32_t i = 0; i < written;) {
    UChar32 code = 0;
    U16_NEXT(target, i, written, code);
    AppendUtf8(static_cast<char32_t>(code), &out);
  }
  return out;
}

// A sigma that ends a word: a letter stands before it and none behind, marks between do not count.
bool EndsWord(absl::string_view bytes, size_t pos, size_t length) {
  size_t before = pos;
  bool letter = false;
  while (before > 0) {
    do {
      --before;
    } while (before > 0 && (bytes[before] & 0xC0) == 0x80);
    const char32_t c = DecodeUtf8(bytes, before).value;
    if (IsIgnorable(c)) continue;
    letter = IsCased(c);
    break;
  }
  if (!letter) return false;
  for (size_t after = pos + length; after < bytes.size();) {
    const CodePoint code = DecodeUtf8(bytes, after);
    if (!IsIgnorable(code.value)) return !IsCased(code.value);
    after += code.length;
  }
  return true;
}

// Maps each character to what `choose` says of it.
template <typename Choose>
MarkedText MapCharacters(const MarkedText& text, Choose choose) {
  MarkedText result;
  const absl::string_view bytes = text.bytes();
  for (size_t pos = 0; pos < bytes.size();) {
    const CodePoint code = DecodeUtf8(bytes, pos);
    const Case to = choose(code.value);
    if (code.value == kSigma && to == Case::kLower) {
      std::string sigma;
      AppendUtf8(EndsWord(bytes, pos, code.length) ? kFinalSigma : kSmallSigma, &sigma);
      result.Append(sigma, text.OriginAt(pos));
    } else {
      result.Append(Mapped(code.value, to), text.OriginAt(pos));
    }
    pos += code.length;
  }
  return result;
}

}  // namespace

MarkedText Upper(const MarkedText& text) {
  return MapCharacters(text, [](char32_t) { return Case::kUpper; });
}

MarkedText Lower(const MarkedText& text) {
  return MapCharacters(text, [](char32_t) { return Case::kLower; });
}

MarkedText Capitalize(const MarkedText& text) {
  bool first = true;
  return MapCharacters(
      text, [&](char32_t) { return std::exchange(first, false) ? Case::kTitle : Case::kLower; });
}

MarkedText Title(const MarkedText& text) {
  bool in_word = false;
  return MapCharacters(text, [&](char32_t c) {
    return std::exchange(in_word, IsCased(c)) ? Case::kLower : Case::kTitle;
  });
}

MarkedText SwapCase(const MarkedText& text) {
  return MapCharacters(text, [](char32_t c) {
    return u_isUUppercase(static_cast<UChar32>(c)) ? Case::kLower : Case::kUpper;
  });
}

bool IsWordCharacter(char32_t c) { return c == '_' || u_isalnum(static_cast<UChar32>(c)); }

bool AllCharacters(absl::string_view text, const std::function<bool(char32_t)>& in) {
  for (size_t pos = 0; pos < text.size();) {
    const CodePoint code = DecodeUtf8(text, pos);
    if (!in(code.value)) return false;
    pos += code.length;
  }
  return !text.empty();
}

bool IsLower(absl::string_view text) {
  bool any = false;
  const bool none_other = AllCharacters(text, [&](char32_t c) {
    const auto code = static_cast<UChar32>(c);
    any = any || u_isULowercase(code);
    return !u_isUUppercase(code) && !u_istitle(code);
  });
  return any && none_other;
}

bool IsUpper(absl::string_view text) {
  bool any = false;
  const bool none_other = AllCharacters(text, [&](char32_t c) {
    const auto code = static_cast<UChar32>(c);
    any = any || u_isUUppercase(code);
    return !u_isULowercase(code) && !u_istitle(code);
  });
  return any && none_other;
}

}  // namespace tessera::server::jinja
