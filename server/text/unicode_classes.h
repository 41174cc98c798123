// What kind of character a code point is, as tokenizers see it: general categories of Unicode 16,
// and the older views that parts of the `tokenizers` library still have.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace tessera::server {

// Bits of ClassesOf. The subtypes of letters exclude each other.
enum CharClass : uint32_t {
  kUpperLetter = 1u << 0,     // Lu
  kLowerLetter = 1u << 1,     // Ll
  kTitleLetter = 1u << 2,     // Lt
  kModifierLetter = 1u << 3,  // Lm
  kOtherLetter = 1u << 4,     // Lo
  kMark = 1u << 5,            // M
  kNumber = 1u << 6,          // N
  kPunctuation = 1u << 7,     // P
  kSymbol = 1u << 8,          // S
  kWhiteSpace = 1u << 9,      // White_Space
  kWordPart = 1u << 10,       // \w of Unicode's regular expressions
  kNewNumber = 1u << 11,      // N of Unicode 17
  // Unicode 8 and 9, with their errors: what BERT's parts and StripAccents look at.
  kBertPunctuation = 1u << 12,
  kBertControl = 1u << 13,
  kBertMark = 1u << 14,
  kAccent = 1u << 15,

  kLetter = kUpperLetter | kLowerLetter | kTitleLetter | kModifierLetter | kOtherLetter,
};

// Pages of 256 characters; equal pages are kept once. Immutable, thread-safe.
class CharClasses {
 public:
  // The one table, made at the first call.
  static const CharClasses& Get();
  // The classes of `code`; 0 for what is no Unicode character.
  [[nodiscard]] uint32_t Of(char32_t code) const {
    return code < kCodePoints ? pages_[starts_[code / kPageSize] + code % kPageSize] : 0;
  }

 private:
  static constexpr uint32_t kPageSize = 256;
  static constexpr uint32_t kCodePoints = 0x110000;

  CharClasses();

  std::array<uint32_t, kCodePoints / kPageSize> starts_{};
  std::vector<uint32_t> pages_;
};

[[nodiscard]] inline uint32_t ClassesOf(char32_t code) { return CharClasses::Get().Of(code); }
// The lower case of one character as one character, as Unicode 17 says.
[[nodiscard]] char32_t LowerCaseOf(char32_t code);

}  // namespace tessera::server
