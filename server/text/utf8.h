// UTF-8 beyond config/foundation/text.h: decoding, the incremental repair of broken bytes, and the
// alphabet of byte-level vocabularies.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "config/foundation/text.h"

namespace tessera::server {

struct CodePoint {
  char32_t value = 0;
  uint32_t length = 0;  // bytes in the text, 1 to 4
};

// The code point at `text[pos]`. `text` must be valid UTF-8 and `pos` a character's start.
[[nodiscard]] CodePoint DecodeUtf8(absl::string_view text, size_t pos);

// Turns a stream of bytes into a stream of whole characters. At most 3 bytes are held back; each
// maximal broken part becomes one U+FFFD, as Python's errors="replace" does. Not thread-safe.
class Utf8Repair {
 public:
  // Appends to `out` the characters that `bytes` completes.
  void Append(absl::string_view bytes, std::string* out);
  // Ends the stream: what is held back becomes one U+FFFD. The object can be used again.
  void Flush(std::string* out);
  [[nodiscard]] size_t held_back_bytes() const { return held_; }

 private:
  std::array<char, 4> pending_{};
  size_t held_ = 0;    // bytes in pending_
  size_t needed_ = 0;  // continuation bytes still missing
  uint8_t low_ = 0x80;
  uint8_t high_ = 0xBF;
};

// The alphabet of byte-level vocabularies: each byte is written as one printable character.
[[nodiscard]] char32_t ByteToSymbol(uint8_t byte);
// The byte that the symbol writes; nullopt outside the alphabet.
[[nodiscard]] std::optional<uint8_t> SymbolToByte(char32_t symbol);
// The bytes that a token's text writes; nullopt when a character is outside the alphabet or the
// text is not UTF-8.
[[nodiscard]] std::optional<std::string> SymbolsToBytes(absl::string_view text);

}  // namespace tessera::server
