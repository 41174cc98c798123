#include "server/text/unicode_classes.h"

#include <unicode/uchar.h>

#include <algorithm>
#include <vector>

namespace tessera::server {
namespace {

struct AddedRange {
  char32_t first, last;
  uint32_t classes;
};

// Characters that came with Unicode 15.1 and 16, for an ICU that is older.
constexpr AddedRange kAdditions[] = {{0x897, 0x897, kMark},
                                     {0x1B4E, 0x1B4F, kPunctuation},
                                     {0x1B7F, 0x1B7F, kPunctuation},
                                     {0x1C89, 0x1C89, kUpperLetter},
                                     {0x1C8A, 0x1C8A, kLowerLetter},
                                     {0x2427, 0x2429, kSymbol},
                                     {0x2FFC, 0x2FFF, kSymbol},
                                     {0x31E4, 0x31E5, kSymbol},
                                     {0x31EF, 0x31EF, kSymbol},
                                     {0xA7CB, 0xA7CC, kUpperLetter},
                                     {0xA7CD, 0xA7CD, kLowerLetter},
                                     {0xA7DA, 0xA7DA, kUpperLetter},
                                     {0xA7DB, 0xA7DB, kLowerLetter},
                                     {0xA7DC, 0xA7DC, kUpperLetter},
                                     {0x105C0, 0x105F3, kOtherLetter},
                                     {0x10D40, 0x10D49, kNumber},
                                     {0x10D4A, 0x10D4D, kOtherLetter},
                                     {0x10D4E, 0x10D4E, kModifierLetter},
                                     {0x10D4F, 0x10D4F, kOtherLetter},
                                     {0x10D50, 0x10D65, kUpperLetter},
                                     {0x10D69, 0x10D6D, kMark},
                                     {0x10D6E, 0x10D6E, kPunctuation},
                                     {0x10D6F, 0x10D6F, kModifierLetter},
                                     {0x10D70, 0x10D85, kLowerLetter},
                                     {0x10D8E, 0x10D8F, kSymbol},
                                     {0x10EC2, 0x10EC4, kOtherLetter},
                                     {0x10EFC, 0x10EFC, kMark},
                                     {0x11380, 0x11389, kOtherLetter},
                                     {0x1138B, 0x1138B, kOtherLetter},
                                     {0x1138E, 0x1138E, kOtherLetter},
                                     {0x11390, 0x113B5, kOtherLetter},
                                     {0x113B7, 0x113B7, kOtherLetter},
                                     {0x113B8, 0x113C0, kMark},
                                     {0x113C2, 0x113C2, kMark},
                                     {0x113C5, 0x113C5, kMark},
                                     {0x113C7, 0x113CA, kMark},
                                     {0x113CC, 0x113D0, kMark},
                                     {0x113D1, 0x113D1, kOtherLetter},
                                     {0x113D2, 0x113D2, kMark},
                                     {0x113D3, 0x113D3, kOtherLetter},
                                     {0x113D4, 0x113D5, kPunctuation},
                                     {0x113D7, 0x113D8, kPunctuation},
                                     {0x113E1, 0x113E2, kMark},
                                     {0x116D0, 0x116E3, kNumber},
                                     {0x11BC0, 0x11BE0, kOtherLetter},
                                     {0x11BE1, 0x11BE1, kPunctuation},
                                     {0x11BF0, 0x11BF9, kNumber},
                                     {0x11F5A, 0x11F5A, kMark},
                                     {0x13460, 0x143FA, kOtherLetter},
                                     {0x16100, 0x1611D, kOtherLetter},
                                     {0x1611E, 0x1612F, kMark},
                                     {0x16130, 0x16139, kNumber},
                                     {0x16D40, 0x16D42, kModifierLetter},
                                     {0x16D43, 0x16D6A, kOtherLetter},
                                     {0x16D6B, 0x16D6C, kModifierLetter},
                                     {0x16D6D, 0x16D6F, kPunctuation},
                                     {0x16D70, 0x16D79, kNumber},
                                     {0x18CFF, 0x18CFF, kOtherLetter},
                                     {0x1CC00, 0x1CCEF, kSymbol},
                                     {0x1CCF0, 0x1CCF9, kNumber},
                                     {0x1CD00, 0x1CEB3, kSymbol},
                                     {0x1E5D0, 0x1E5ED, kOtherLetter},
                                     {0x1E5EE, 0x1E5EF, kMark},
                                     {0x1E5F0, 0x1E5F0, kOtherLetter},
                                     {0x1E5F1, 0x1E5FA, kNumber},
                                     {0x1E5FF, 0x1E5FF, kPunctuation},
                                     {0x1F8B2, 0x1F8BB, kSymbol},
                                     {0x1F8C0, 0x1F8C1, kSymbol},
                                     {0x1FA89, 0x1FA89, kSymbol},
                                     {0x1FA8F, 0x1FA8F, kSymbol},
                                     {0x1FABE, 0x1FABE, kSymbol},
                                     {0x1FAC6, 0x1FAC6, kSymbol},
                                     {0x1FADC, 0x1FADC, kSymbol},
                                     {0x1FADF, 0x1FADF, kSymbol},
                                     {0x1FAE9, 0x1FAE9, kSymbol},
                                     {0x1FBCB, 0x1FBEF, kSymbol},
                                     {0x2EBF0, 0x2EE5D, kOtherLetter}};

constexpr AddedRange kUnicode17Numbers[] = {{0x11DE0, 0x11DE9, kNewNumber},
                                            {0x16FF4, 0x16FF6, kNewNumber}};

// Lower case that came with Unicode 16 and 17.
struct CaseRange {
  char32_t first, last, lower;
};
constexpr CaseRange kLowerCase[] = {
    {0x1C89, 0x1C89, 0x1C8A},    {0xA7CB, 0xA7CB, 0x264},  {0xA7CC, 0xA7CC, 0xA7CD},
    {0xA7CE, 0xA7CE, 0xA7CF},    {0xA7D2, 0xA7D2, 0xA7D3}, {0xA7D4, 0xA7D4, 0xA7D5},
    {0xA7DA, 0xA7DA, 0xA7DB},    {0xA7DC, 0xA7DC, 0x19B},  {0x10D50, 0x10D65, 0x10D70},
    {0x16EA0, 0x16EB8, 0x16EBB},
};

uint32_t CategoryClasses(int8_t category) {
  switch (category) {
    case U_UPPERCASE_LETTER:
      return kUpperLetter | kWordPart;
    case U_LOWERCASE_LETTER:
      return kLowerLetter | kWordPart;
    case U_TITLECASE_LETTER:
      return kTitleLetter | kWordPart;
    case U_MODIFIER_LETTER:
      return kModifierLetter | kWordPart;
    case U_OTHER_LETTER:
      return kOtherLetter | kWordPart;
    case U_NON_SPACING_MARK:
    case U_ENCLOSING_MARK:
    case U_COMBINING_SPACING_MARK:
      return kMark | kWordPart;
    case U_DECIMAL_DIGIT_NUMBER:
      return kNumber | kNewNumber | kWordPart;
    case U_LETTER_NUMBER:
    case U_OTHER_NUMBER:
      return kNumber | kNewNumber;
    case U_CONNECTOR_PUNCTUATION:
      return kPunctuation | kWordPart;
    case U_DASH_PUNCTUATION:
    case U_START_PUNCTUATION:
    case U_END_PUNCTUATION:
    case U_OTHER_PUNCTUATION:
    case U_INITIAL_PUNCTUATION:
    case U_FINAL_PUNCTUATION:
      return kPunctuation;
    case U_MATH_SYMBOL:
    case U_CURRENCY_SYMBOL:
    case U_MODIFIER_SYMBOL:
    case U_OTHER_SYMBOL:
      return kSymbol;
    default:
      return 0;
  }
}

bool KnownTo(UChar32 code, uint8_t unicode_major) {
  UVersionInfo age;
  u_charAge(code, age);
  return age[0] < unicode_major || (age[0] == unicode_major && age[1] == 0);
}

uint32_t OldClasses(UChar32 code, int8_t category, uint32_t classes) {
  uint32_t old = 0;
  const bool ascii_symbol = code < 0x80 && (classes & (kPunctuation | kSymbol)) != 0;
  if (ascii_symbol || code == 0x166D || code == 0x111C9 ||
      ((classes & kPunctuation) != 0 && KnownTo(code, 8))) {
    old |= kBertPunctuation;
  }
  const bool control = category == U_CONTROL_CHAR || category == U_FORMAT_CHAR;
  if (category == U_PRIVATE_USE_CHAR || (control && KnownTo(code, 8))) old |= kBertControl;
  const bool later_mark = code == 0x1885 || code == 0x1886 || code == 0xA9BD || code == 0x111C9;
  if (code == 0x1734 || (category == U_NON_SPACING_MARK && !later_mark && KnownTo(code, 8))) {
    old |= kBertMark;
  }
  if (code == 0x1CF2 || code == 0x1CF3 ||
      ((classes & kMark) != 0 && code != 0x111C9 && KnownTo(code, 9))) {
    old |= kAccent;
  }
  return old;
}

uint32_t FullClasses(UChar32 code, int8_t category) {
  uint32_t classes = CategoryClasses(category);
  if (u_isUWhiteSpace(code)) classes |= kWhiteSpace;
  if (u_hasBinaryProperty(code, UCHAR_ALPHABETIC)) classes |= kWordPart;
  if (u_hasBinaryProperty(code, UCHAR_JOIN_CONTROL)) classes |= kWordPart;
  return classes | OldClasses(code, category, classes);
}

struct Filling {
  std::vector<uint32_t>& all;
};

UBool FillRange(const void* context, UChar32 begin, UChar32 end, UCharCategory category) {
  std::vector<uint32_t>& all = static_cast<const Filling*>(context)->all;
  if (category == U_UNASSIGNED || category == U_SURROGATE) return true;
  for (UChar32 code = begin; code < end; ++code) {
    all[static_cast<size_t>(code)] = category == U_PRIVATE_USE_CHAR
                                         ? uint32_t{kBertControl}
                                         : FullClasses(code, static_cast<int8_t>(category));
  }
  return true;
}

void AddWhereUnassigned(const AddedRange& range, uint32_t classes, std::vector<uint32_t>* all) {
  for (char32_t code = range.first; code <= range.last; ++code) {
    if (u_charType(static_cast<UChar32>(code)) == U_UNASSIGNED) (*all)[code] |= classes;
  }
}

}  // namespace

CharClasses::CharClasses() {
  std::vector<uint32_t> all(kCodePoints, 0);
  const Filling filling{all};
  u_enumCharTypes(&FillRange, &filling);
  for (const AddedRange& range : kAdditions) {
    const uint32_t number = (range.classes & kNumber) != 0 ? uint32_t{kNewNumber} : 0;
    const bool word = (range.classes & (kLetter | kMark | kNumber)) != 0;
    AddWhereUnassigned(range, range.classes | number | (word ? uint32_t{kWordPart} : 0), &all);
  }
  for (const AddedRange& range : kUnicode17Numbers) AddWhereUnassigned(range, kNewNumber, &all);
  for (uint32_t page = 0; page < kCodePoints / kPageSize; ++page) {
    const auto begin = all.begin() + page * kPageSize;
    uint32_t at = 0;
    while (at < pages_.size() && !std::equal(begin, begin + kPageSize, pages_.begin() + at)) {
      at += kPageSize;
    }
    if (at == pages_.size()) pages_.insert(pages_.end(), begin, begin + kPageSize);
    starts_[page] = at;
  }
}

const CharClasses& CharClasses::Get() {
  static const CharClasses classes;
  return classes;
}

char32_t LowerCaseOf(char32_t code) {
  if (code < 0x80) return code >= 'A' && code <= 'Z' ? code + ('a' - 'A') : code;
  for (const CaseRange& range : kLowerCase) {
    if (code >= range.first && code <= range.last) return range.lower + (code - range.first);
  }
  return static_cast<char32_t>(u_tolower(static_cast<UChar32>(code)));
}

}  // namespace tessera::server
