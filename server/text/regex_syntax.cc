#include "server/text/regex_syntax.h"

#include <unicode/uchar.h>
#include <unicode/uscript.h>

#include <array>
#include <iterator>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/text/unicode_classes.h"

namespace tessera::server {
namespace {

constexpr size_t kMaxClassDepth = 16;
constexpr size_t kMaxWrittenBytes = size_t{1} << 20;
// The Unicode version of PCRE2 10.42; characters that came later are written out.
constexpr uint8_t kLibraryUnicode = 14;
constexpr char32_t kLastCharacter = 0x10FFFF;

// A set of characters that patterns have a name for.
struct NamedSet {
  absl::string_view name;     // of \p{…}, or the letter of an escape
  uint32_t any, all;          // of CharClass: one of these, and each of those
  absl::string_view library;  // the part of the set that PCRE2 has in its properties
  uint32_t categories;        // that part, as ICU's general categories
};

constexpr uint32_t kWordCategories = U_GC_L_MASK | U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK;
constexpr NamedSet kSets[] = {
    {"L", kLetter, 0, "\\p{L}", U_GC_L_MASK},
    {"Lu", kUpperLetter, 0, "\\p{Lu}", U_GC_LU_MASK},
    {"Ll", kLowerLetter, 0, "\\p{Ll}", U_GC_LL_MASK},
    {"Lt", kTitleLetter, 0, "\\p{Lt}", U_GC_LT_MASK},
    {"Lm", kModifierLetter, 0, "\\p{Lm}", U_GC_LM_MASK},
    {"Lo", kOtherLetter, 0, "\\p{Lo}", U_GC_LO_MASK},
    {"M", kMark, 0, "\\p{M}", U_GC_M_MASK},
    {"N", kNumber, 0, "\\p{N}", U_GC_N_MASK},
    // No letter-like number came with the versions that are written out.
    {"Nd", kNumber, kWordPart, "\\p{Nd}", U_GC_ND_MASK | U_GC_NL_MASK | U_GC_NO_MASK},
    {"P", kPunctuation, 0, "\\p{P}", U_GC_P_MASK},
    {"S", kSymbol, 0, "\\p{S}", U_GC_S_MASK},
    {"w", kWordPart, 0, "\\p{L}\\p{M}\\p{Nd}\\p{Pc}", kWordCategories},
    {"s", kWhiteSpace, 0, "", 0},
    {"Han", 0, 0, "", 0},
};

// Characters of the script that came with Unicode 15.1.
constexpr char32_t kNewHan[] = {0x2EBF0, 0x2EE5D};
// Numbers that \w has where it stands outside a class.
constexpr absl::string_view kLatinNumbers = "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}";

const NamedSet* FindSet(absl::string_view name) {
  for (const NamedSet& set : kSets) {
    if (set.name == name) return &set;
  }
  return nullptr;
}

bool Has(const NamedSet& set, char32_t code) {
  if (set.name == "Han") {
    UErrorCode error = U_ZERO_ERROR;
    return (code >= kNewHan[0] && code <= kNewHan[1]) ||
           uscript_getScript(static_cast<UChar32>(code), &error) == USCRIPT_HAN;
  }
  // The joiners are word characters of Unicode, not of Oniguruma.
  if (set.name == "w" && (code == 0x200C || code == 0x200D)) return false;
  const uint32_t classes = ClassesOf(code);
  return (classes & set.any) != 0 && (classes & set.all) == set.all;
}

bool LibraryHas(const NamedSet& set, char32_t code) {
  UVersionInfo age;
  u_charAge(static_cast<UChar32>(code), age);
  return age[0] != 0 && age[0] <= kLibraryUnicode &&
         (U_MASK(u_charType(static_cast<UChar32>(code))) & set.categories) != 0;
}

// The characters for which `wanted` holds, as the inside of a class.
template <typename Wanted>
std::string Written(const Wanted& wanted) {
  std::string text;
  for (char32_t first = 0; first <= kLastCharacter; ++first) {
    // Half of a pair is no character, and PCRE2 refuses it.
    if (first == 0xD800) first = 0xE000;
    if (!wanted(first)) continue;
    char32_t last = first;
    while (last < kLastCharacter && last + 1 != 0xD800 && wanted(last + 1)) ++last;
    absl::StrAppend(&text, "\\x{", absl::Hex(static_cast<uint32_t>(first)), "}-\\x{",
                    absl::Hex(static_cast<uint32_t>(last)), "}");
    first = last;
  }
  return text;
}

// The inside of a class for a set and for all other characters, each made when first asked for.
struct SetTexts {
  std::once_flag inside_made, outside_made;
  std::string inside, outside;
};

SetTexts& TextsOf(const NamedSet& set) {
  static std::array<SetTexts, std::size(kSets)> texts;
  return texts[static_cast<size_t>(&set - kSets)];
}

const std::string& Inside(const NamedSet& set) {
  SetTexts& texts = TextsOf(set);
  std::call_once(texts.inside_made, [&] {
    texts.inside = absl::StrCat(set.library, Written([&](char32_t code) {
                                  return Has(set, code) && !LibraryHas(set, code);
                                }));
  });
  return texts.inside;
}

const std::string& Outside(const NamedSet& set) {
  SetTexts& texts = TextsOf(set);
  std::call_once(texts.outside_made,
                 [&] { texts.outside = Written([&](char32_t code) { return !Has(set, code); }); });
  return texts.outside;
}

// What a class is in PCRE2's syntax.
struct ClassText {
  bool plain = false;  // nothing but items, which another class may take over
  std::string items;
  std::string whole;
};

class Translator {
 public:
  explicit Translator(absl::string_view pattern) : pattern_(pattern) {}

  StatusOr<std::string> Run() {
    std::string out;
    while (at_ < pattern_.size()) {
      if (pattern_[at_] == '[') {
        TESSERA_ASSIGN_OR_RETURN(const ClassText text, Class(1));
        out += text.whole;
      } else if (const std::optional<Named> named = TakeNamed()) {
        absl::StrAppend(&out, named->negated ? "[^" : "[", named->items,
                        named->word ? kLatinNumbers : "", "]");
      } else {
        TakePlain(&out);
      }
      TESSERA_RETURN_IF_ERROR(CheckWritten(out.size()));
    }
    return out;
  }

 private:
  // A set that the pattern names, or all but the set.
  struct Named {
    absl::string_view items;
    bool negated = false;
    // All but the set as the inside of a class, which cannot take over [^…].
    absl::string_view opposite;
    bool word = false;  // \w or \W
  };

  [[nodiscard]] bool AtText(absl::string_view text) const {
    return absl::StartsWith(pattern_.substr(at_), text);
  }

  Status ClassError(absl::string_view why) const {
    return Error(absl::StatusCode::kInvalidArgument,
                 {"tokenizer pattern does not compile", absl::StrCat("pattern byte ", at_),
                  std::string(why), "the pattern must be one that its library accepts"});
  }

  [[nodiscard]] Status CheckWritten(size_t bytes) const {
    return bytes <= kMaxWrittenBytes ? absl::OkStatus() : Status(ClassError("it grows too long"));
  }

  // One character, or an escape with the character behind it.
  void TakePlain(std::string* out) {
    const size_t length = pattern_[at_] == '\\' && at_ + 1 < pattern_.size() ? 2 : 1;
    absl::StrAppend(out, pattern_.substr(at_, length));
    at_ += length;
  }

  // \d \w \s \h, \p{…} of a known category, and their opposites.
  std::optional<Named> TakeNamed() {
    if (pattern_[at_] != '\\' || at_ + 1 >= pattern_.size()) return std::nullopt;
    const auto letter = static_cast<unsigned char>(pattern_[at_ + 1]);
    const char lower = absl::ascii_tolower(letter);
    bool negated = absl::ascii_isupper(letter);
    if (lower == 'h') {
      at_ += 2;
      return Named{"0-9a-fA-F", negated, "\\x{0}-/:-@G-`g-\\x{d7ff}\\x{e000}-\\x{10ffff}"};
    }
    const NamedSet* set = nullptr;
    size_t length = 2;
    if (lower == 'd' || lower == 'w' || lower == 's') {
      set = FindSet(lower == 'd' ? "Nd" : absl::string_view(&lower, 1));
    } else if (lower == 'p' && absl::StartsWith(pattern_.substr(at_ + 2), "{")) {
      const size_t end = pattern_.find('}', at_);
      if (end == pattern_.npos) return std::nullopt;
      absl::string_view name = pattern_.substr(at_ + 3, end - at_ - 3);
      if (absl::ConsumePrefix(&name, "^")) negated = !negated;
      // The sets of \w and \s are no properties.
      if (!absl::StartsWith(name, "w") && !absl::StartsWith(name, "s")) set = FindSet(name);
      length = end + 1 - at_;
    }
    if (set == nullptr) return std::nullopt;
    at_ += length;
    return Named{Inside(*set), negated, negated ? Outside(*set) : absl::string_view(),
                 lower == 'w'};
  }

  // A union of what stands in a class up to && or its end.
  struct Union {
    std::string items;
    std::vector<std::string> classes;

    [[nodiscard]] std::string Text() const {
      if (classes.empty()) return absl::StrCat("[", items, "]");
      std::string text = items.empty() ? "(?:" : absl::StrCat("(?:[", items, "]|");
      for (size_t i = 0; i < classes.size(); ++i) {
        absl::StrAppend(&text, i > 0 ? "|" : "", classes[i]);
      }
      return text + ")";
    }
  };

  StatusOr<ClassText> Class(size_t depth) {
    if (depth > kMaxClassDepth) return ClassError("classes nest too deep");
    ++at_;
    const bool negated = AtText("^");
    if (negated) ++at_;
    std::vector<Union> unions(1);
    if (AtText("]")) {
      unions.back().items = "\\]";
      ++at_;
    }
    while (!AtText("]")) {
      if (at_ >= pattern_.size()) return ClassError("a class does not end");
      if (AtText("&&")) {
        at_ += 2;
        unions.emplace_back();
      } else {
        TESSERA_RETURN_IF_ERROR(Member(depth, &unions.back()));
      }
    }
    ++at_;
    for (const Union& one : unions) {
      if (one.items.empty() && one.classes.empty()) return ClassError("an empty class");
    }
    return Joined(unions, negated);
  }

  Status Member(size_t depth, Union* out) {
    const size_t posix_end = AtText("[:") ? pattern_.find(":]", at_) : pattern_.npos;
    if (posix_end != pattern_.npos) {
      absl::StrAppend(&out->items, pattern_.substr(at_, posix_end + 2 - at_));
      at_ = posix_end + 2;
    } else if (pattern_[at_] == '[') {
      TESSERA_ASSIGN_OR_RETURN(const ClassText inner, Class(depth + 1));
      if (inner.plain) {
        out->items += inner.items;
      } else {
        out->classes.push_back(inner.whole);
      }
    } else if (const std::optional<Named> named = TakeNamed()) {
      absl::StrAppend(&out->items, named->negated ? named->opposite : named->items);
    } else {
      TakePlain(&out->items);
    }
    return CheckWritten(out->items.size());
  }

  static ClassText Joined(const std::vector<Union>& unions, bool negated) {
    ClassText text;
    if (unions.size() == 1 && unions[0].classes.empty()) {
      text.plain = !negated;
      text.items = unions[0].items;
      text.whole = absl::StrCat(negated ? "[^" : "[", text.items, "]");
      return text;
    }
    std::string joined = "(?:";
    for (size_t i = 0; i + 1 < unions.size(); ++i) {
      absl::StrAppend(&joined, "(?=", unions[i].Text(), ")");
    }
    absl::StrAppend(&joined, unions.back().Text(), ")");
    text.whole = negated ? absl::StrCat("(?:(?!", joined, ")(?s:.))") : joined;
    return text;
  }

  absl::string_view pattern_;
  size_t at_ = 0;
};

}  // namespace

StatusOr<std::string> ToLibrarySyntax(absl::string_view pattern) {
  return Translator(pattern).Run();
}

}  // namespace tessera::server
