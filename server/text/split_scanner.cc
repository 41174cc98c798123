#include "server/text/split_scanner.h"

#include "server/text/unicode_classes.h"
#include "server/text/utf8.h"

namespace tessera::server {
namespace {

constexpr uint32_t kLetterOrNumber = kLetter | kNumber;
constexpr uint32_t kNoSymbolClasses = kWhiteSpace | kLetterOrNumber;
// The two halves of a word in the patterns that split at a change of case.
constexpr uint32_t kUpperPart =
    kUpperLetter | kTitleLetter | kModifierLetter | kOtherLetter | kMark;
constexpr uint32_t kLowerPart = kLowerLetter | kModifierLetter | kOtherLetter | kMark;
constexpr size_t kNone = static_cast<size_t>(-1);

struct Char {
  char32_t code = 0;
  uint32_t length = 0;  // 0 behind the end
  uint32_t classes = 0;
};

// The subject, character by character.
class Subject {
 public:
  explicit Subject(absl::string_view text) : text_(text), classes_(CharClasses::Get()) {}

  [[nodiscard]] size_t size() const { return text_.size(); }
  [[nodiscard]] Char At(size_t pos) const {
    if (pos >= text_.size()) return {};
    const uint8_t lead = static_cast<uint8_t>(text_[pos]);
    if (lead < 0x80) return {lead, 1, classes_.Of(lead)};
    const CodePoint code = DecodeUtf8(text_, pos);
    return {code.value, code.length, classes_.Of(code.value)};
  }
  // The end of the run from `pos` of characters with any of the classes; at most `most` of them.
  [[nodiscard]] size_t Run(size_t pos, uint32_t classes, size_t most = kNone) const {
    for (; most > 0; --most) {
      const Char c = At(pos);
      if ((c.classes & classes) == 0) break;
      pos += c.length;
    }
    return pos;
  }
  // The end of the run of characters with none of the classes.
  [[nodiscard]] size_t RunWithout(size_t pos, uint32_t classes) const {
    for (Char c = At(pos); c.length > 0 && (c.classes & classes) == 0; c = At(pos)) pos += c.length;
    return pos;
  }
  [[nodiscard]] size_t RunOf(size_t pos, absl::string_view bytes) const {
    while (pos < text_.size() && bytes.find(text_[pos]) != bytes.npos) ++pos;
    return pos;
  }

 private:
  absl::string_view text_;
  const CharClasses& classes_;
};

bool IsLineEnd(char32_t code) { return code == '\r' || code == '\n'; }

enum class LetterCase { kExact, kAny };

// The end of an English contraction ('s 't 're 've 'm 'll 'd) at `pos`; kNone when there is none.
size_t Contraction(const Subject& s, size_t pos, LetterCase letters) {
  if (s.At(pos).code != '\'') return kNone;
  const auto letter = [&](size_t at) -> char32_t {
    const char32_t code = s.At(at).code;
    if (letters == LetterCase::kExact) return code;
    // The long s is an s in another case.
    return code == 0x17F ? U's' : (code < 0x80 ? code | 0x20 : code);
  };
  const char32_t first = letter(pos + 1);
  const size_t second = pos + 1 + s.At(pos + 1).length;
  switch (first) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return second;
    case 'r':
    case 'v':
      return letter(second) == 'e' ? second + 1 : kNone;
    case 'l':
      return letter(second) == 'l' ? second + 1 : kNone;
    default:
      return kNone;
  }
}

// \s+(?!\S)|\s+ at a white space: the run without its last character when a word follows.
size_t WhiteSpace(const Subject& s, size_t pos) {
  size_t last = pos;
  size_t end = pos;
  for (Char c = s.At(end); (c.classes & kWhiteSpace) != 0; c = s.At(end)) {
    last = end;
    end += c.length;
  }
  return end < s.size() && last > pos ? last : end;
}

// \s*[\r\n]+|\s+(?!\S)|\s+ at a white space.
size_t LinesOrWhiteSpace(const Subject& s, size_t pos) {
  size_t line_end = kNone;
  size_t end = pos;
  for (Char c = s.At(end); (c.classes & kWhiteSpace) != 0; c = s.At(end)) {
    end += c.length;
    if (IsLineEnd(c.code)) line_end = end;
  }
  return line_end != kNone ? line_end : WhiteSpace(s, pos);
}

//  ?[^\s\p{L}\p{N}]+ and the bytes `behind`; kNone when there is none.
size_t Symbols(const Subject& s, size_t pos, absl::string_view behind) {
  const size_t begin = s.At(pos).code == ' ' ? pos + 1 : pos;
  const size_t end = s.RunWithout(begin, kNoSymbolClasses);
  return end == begin ? kNone : s.RunOf(end, behind);
}

PatternMatch ScanGpt2(absl::string_view subject, size_t from) {
  if (from >= subject.size()) return {};
  const Subject s(subject);
  if (const size_t end = Contraction(s, from, LetterCase::kExact); end != kNone) {
    return {true, from, end};
  }
  const size_t begin = s.At(from).code == ' ' ? from + 1 : from;
  const uint32_t classes = s.At(begin).classes;
  if ((classes & kLetter) != 0) return {true, from, s.Run(begin, kLetter)};
  if ((classes & kNumber) != 0) return {true, from, s.Run(begin, kNumber)};
  if (const size_t end = Symbols(s, from, ""); end != kNone) return {true, from, end};
  return {true, from, WhiteSpace(s, from)};
}

// cl100k and what came of it; `digits` is how many digits a piece has at most.
template <size_t digits>
PatternMatch ScanCl100k(absl::string_view subject, size_t from) {
  if (from >= subject.size()) return {};
  const Subject s(subject);
  if (const size_t end = Contraction(s, from, LetterCase::kAny); end != kNone) {
    return {true, from, end};
  }
  const Char first = s.At(from);
  if ((first.classes & kLetter) != 0) return {true, from, s.Run(from, kLetter)};
  if ((first.classes & kNumber) != 0) return {true, from, s.Run(from, kNumber, digits)};
  if (!IsLineEnd(first.code)) {
    const size_t begin = from + first.length;
    if (const size_t end = s.Run(begin, kLetter); end > begin) return {true, from, end};
  }
  if (const size_t end = Symbols(s, from, "\r\n"); end != kNone) return {true, from, end};
  return {true, from, LinesOrWhiteSpace(s, from)};
}

// Upper* Lower+ with the regular expression's backtracking; kNone when it does not match.
size_t UpperThenLower(const Subject& s, size_t begin) {
  size_t upper_end = begin;
  size_t backtrack = kNone;  // the end of the last character that both halves may have
  for (Char c = s.At(upper_end); (c.classes & kUpperPart) != 0; c = s.At(upper_end)) {
    upper_end += c.length;
    if ((c.classes & kLowerPart) != 0) backtrack = upper_end;
  }
  const size_t end = s.Run(upper_end, kLowerPart);
  return end > upper_end ? end : backtrack;
}

// Upper+ Lower*, where UpperThenLower does not match.
size_t UpperOnly(const Subject& s, size_t begin) {
  const size_t end = s.Run(begin, kUpperPart);
  return end > begin ? end : kNone;
}

// [^\r\n\p{L}\p{N}]? before either of the two forms of a word.
size_t CasedWord(const Subject& s, size_t from) {
  const Char first = s.At(from);
  const bool prefix = (first.classes & kLetterOrNumber) == 0 && !IsLineEnd(first.code);
  for (const auto form : {&UpperThenLower, &UpperOnly}) {
    if (prefix) {
      if (const size_t end = form(s, from + first.length); end != kNone) return end;
    }
    if (const size_t end = form(s, from); end != kNone) return end;
  }
  return kNone;
}

enum class Contractions { kNone, kBehindWords };

// o200k and what came of it.
template <size_t digits, Contractions contractions>
PatternMatch ScanO200k(absl::string_view subject, size_t from) {
  if (from >= subject.size()) return {};
  const Subject s(subject);
  if (const size_t word = CasedWord(s, from); word != kNone) {
    size_t end = kNone;
    if (contractions == Contractions::kBehindWords) end = Contraction(s, word, LetterCase::kAny);
    return {true, from, end != kNone ? end : word};
  }
  if ((s.At(from).classes & kNumber) != 0) return {true, from, s.Run(from, kNumber, digits)};
  if (const size_t end = Symbols(s, from, "\r\n/"); end != kNone) return {true, from, end};
  return {true, from, LinesOrWhiteSpace(s, from)};
}

// DeepSeek-V3's words at `from`; kNone where nothing matches (digits, control characters).
size_t DeepseekWord(const Subject& s, size_t from) {
  const Char first = s.At(from);
  const auto ascii_letters = [&](size_t pos) {
    while ((s.At(pos).code | 0x20) >= 'a' && (s.At(pos).code | 0x20) <= 'z') ++pos;
    return pos;
  };
  if (first.code < 0x80 && (first.classes & (kPunctuation | kSymbol)) != 0) {
    if (const size_t end = ascii_letters(from + 1); end > from + 1) return end;
  }
  if (!IsLineEnd(first.code) && (first.classes & (kLetter | kPunctuation | kSymbol)) == 0) {
    const size_t begin = from + first.length;
    if (const size_t end = s.Run(begin, kLetter | kMark); end > begin) return end;
  }
  if (const size_t end = s.Run(from, kLetter | kMark); end > from) return end;
  const size_t begin = first.code == ' ' ? from + 1 : from;
  if (const size_t end = s.Run(begin, kPunctuation | kSymbol); end > begin) {
    return s.RunOf(end, "\r\n");
  }
  return (first.classes & kWhiteSpace) != 0 ? LinesOrWhiteSpace(s, from) : kNone;
}

PatternMatch ScanDeepseekV3(absl::string_view subject, size_t from) {
  const Subject s(subject);
  for (size_t pos = from; pos < subject.size(); pos += s.At(pos).length) {
    if (const size_t end = DeepseekWord(s, pos); end != kNone) return {true, pos, end};
  }
  return {};
}

// Runs of one class, at most `most` characters each.
template <uint32_t classes, size_t most>
PatternMatch ScanRun(absl::string_view subject, size_t from) {
  const Subject s(subject);
  const size_t begin = s.RunWithout(from, classes);
  if (begin >= subject.size()) return {};
  return {true, begin, s.Run(begin, classes, most)};
}

constexpr ScannedPattern kPatterns[] = {
    {"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
     &ScanGpt2},
    {"'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", &ScanGpt2},
    {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}"
     "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     &ScanCl100k<3>},
    {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}"
     "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     &ScanCl100k<1>},
    {"[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"
     "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
     "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*"
     "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
     "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     &ScanO200k<3, Contractions::kBehindWords>},
    {"[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"
     "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*"
     "|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     &ScanO200k<1, Contractions::kNone>},
    {"[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
     "|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*"
     "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     &ScanDeepseekV3},
    {"\\p{N}", &ScanRun<kNumber, 1>},
    {"\\p{N}{1,3}", &ScanRun<kNumber, 3>},
    {"\\p{N}+", &ScanRun<kNumber, kNone>},
    {"\\s+", &ScanRun<kWhiteSpace, kNone>},
};

}  // namespace

PatternMatch ScanBertPunctuation(absl::string_view subject, size_t from) {
  return ScanRun<kBertPunctuation, 1>(subject, from);
}
PatternMatch ScanWhiteSpace(absl::string_view subject, size_t from) {
  return ScanRun<kWhiteSpace, 1>(subject, from);
}
PatternMatch ScanDigit(absl::string_view subject, size_t from) {
  return ScanRun<kNewNumber, 1>(subject, from);
}
PatternMatch ScanDigits(absl::string_view subject, size_t from) {
  return ScanRun<kNewNumber, kNone>(subject, from);
}
PatternMatch ScanWordsAndSymbols(absl::string_view subject, size_t from) {
  const Subject s(subject);
  const size_t begin = s.Run(from, kWhiteSpace);
  if (begin >= subject.size()) return {};
  const bool word = (s.At(begin).classes & kWordPart) != 0;
  return {true, begin,
          word ? s.Run(begin, kWordPart) : s.RunWithout(begin, kWordPart | kWhiteSpace)};
}

std::span<const ScannedPattern> ScannedPatterns() { return kPatterns; }

SplitScanner FindScanner(absl::string_view pattern) {
  for (const ScannedPattern& known : kPatterns) {
    if (known.pattern == pattern) return known.scanner;
  }
  return nullptr;
}

}  // namespace tessera::server
