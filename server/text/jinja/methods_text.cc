// Methods of strings.
#include <unicode/uchar.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/text/jinja/builtins.h"
#include "server/text/jinja/format.h"
#include "server/text/jinja/text_builtins.h"

namespace tessera::server::jinja {
namespace {

template <MarkedText (*kMap)(const MarkedText&)>
StatusOr<Value> MapCase(Interpreter& interpreter, const Value& self, const BoundArgs&) {
  TESSERA_RETURN_IF_ERROR(interpreter.Spend(self.text()->size() / 16));
  return interpreter.MakeText(kMap(*self.text()));
}

template <Side kSide>
StatusOr<Value> StripMethod(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  if (args[0] == nullptr || args[0]->is_none()) {
    return interpreter.MakeText(Strip(*self.text(), kSide, std::nullopt));
  }
  TESSERA_ASSIGN_OR_RETURN(const MarkedText* characters, TextArg(args[0], "the characters"));
  TESSERA_RETURN_IF_ERROR(interpreter.ReserveText(4 * characters->size()));
  return interpreter.MakeText(Strip(*self.text(), kSide, characters->bytes()));
}

template <Side kSide>
StatusOr<Value> SplitMethod(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  const MarkedText& text = *self.text();
  TESSERA_ASSIGN_OR_RETURN(const int64_t most, IntegerArg(args[1], -1, "maxsplit"));
  TESSERA_RETURN_IF_ERROR(interpreter.Spend(text.size() / 64));
  if (args[0] == nullptr || args[0]->is_none()) {
    const size_t pieces = CountSpaces(text.bytes()) + 1;
    TESSERA_RETURN_IF_ERROR(interpreter.ReserveItems(
        4 * (most < 0 ? pieces : std::min(pieces, static_cast<size_t>(most) + 1))));
    return TextList(interpreter, Split(text, std::nullopt, most, kSide));
  }
  TESSERA_ASSIGN_OR_RETURN(const MarkedText* separator, TextArg(args[0], "the separator"));
  if (separator->empty()) return Interpreter::Fail("empty separator");
  TESSERA_RETURN_IF_ERROR(
      interpreter.ReserveItems(4 * (CountMatches(text.bytes(), separator->bytes(), most) + 1)));
  return TextList(interpreter, Split(text, separator->bytes(), most, kSide));
}

StatusOr<Value> SplitLinesMethod(Interpreter& interpreter, const Value& self,
                                 const BoundArgs& args) {
  TESSERA_ASSIGN_OR_RETURN(
      std::vector<MarkedText> lines,
      SplitTextLines(interpreter, *self.text(),
                     args.Truth(0, false) ? LineEnds::kKeep : LineEnds::kDrop));
  return TextList(interpreter, std::move(lines));
}

// The parts before, of and behind the separator.
template <Side kSide>
StatusOr<Value> Partition(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  const MarkedText& text = *self.text();
  TESSERA_ASSIGN_OR_RETURN(const MarkedText* separator, TextArg(args[0], "the separator"));
  if (separator->empty()) return Interpreter::Fail("empty separator");
  TESSERA_RETURN_IF_ERROR(interpreter.ReserveText(text.size()));
  const absl::string_view bytes = text.bytes();
  const size_t at =
      kSide == Side::kLeft ? bytes.find(separator->bytes()) : bytes.rfind(separator->bytes());
  if (at == absl::string_view::npos) {
    const Value none = Value::Text("");
    List parts = kSide == Side::kLeft ? List{self, none, none} : List{none, none, self};
    return interpreter.MakeSequence(SequenceKind::kTuple, std::move(parts));
  }
  return interpreter.MakeSequence(SequenceKind::kTuple,
                                  {Value::Text(text.Substr(0, at)), Value::Text(*separator),
                                   Value::Text(text.Substr(at + separator->size()))});
}

// The part of a text between two optional bounds, in characters as a slice counts them; nullopt
// when it begins behind the end.
struct Window {
  absl::string_view bytes;
  size_t first_byte = 0;
};

StatusOr<std::optional<Window>> WindowOf(Interpreter& interpreter, const MarkedText& text,
                                         const Value* begin, const Value* end) {
  TESSERA_RETURN_IF_ERROR(interpreter.Spend(text.size() / 128));
  const Value* bounds[] = {begin, end};
  const auto count = static_cast<int64_t>(text.Length());
  int64_t places[] = {0, count};
  for (size_t i = 0; i < 2; ++i) {
    if (bounds[i] == nullptr || bounds[i]->is_none()) continue;
    TESSERA_ASSIGN_OR_RETURN(int64_t place, IntegerArg(bounds[i], 0, "a bound"));
    if (place < 0) place = std::max<int64_t>(place + count, 0);
    if (i == 0 && place > count) return std::optional<Window>();
    places[i] = std::min(place, count);
  }
  if (places[0] > places[1]) return std::optional<Window>();
  const size_t first = text.ByteOf(static_cast<size_t>(places[0]));
  const size_t last = text.ByteOf(static_cast<size_t>(places[1]));
  return std::optional<Window>(
      Window{absl::string_view(text.bytes()).substr(first, last - first), first});
}

enum class IfMissing { kMinusOne, kError };

template <Side kSide, IfMissing kIfMissing>
StatusOr<Value> Find(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  TESSERA_ASSIGN_OR_RETURN(const MarkedText* part, TextArg(args[0], "what to find"));
  TESSERA_ASSIGN_OR_RETURN(const std::optional<Window> window,
                           WindowOf(interpreter, *self.text(), args[1], args[2]));
  size_t at = absl::string_view::npos;
  if (window) {
    at = kSide == Side::kLeft ? window->bytes.find(part->bytes())
                              : window->bytes.rfind(part->bytes());
  }
  if (at != absl::string_view::npos) {
    const MarkedText before = self.text()->Substr(0, window->first_byte + at);
    return Value::Int(static_cast<int64_t>(before.Length()));
  }
  if (kIfMissing == IfMissing::kError) return Interpreter::Fail("substring not found");
  return Value::Int(-1);
}

StatusOr<Value> CountMethod(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  TESSERA_ASSIGN_OR_RETURN(const MarkedText* part, TextArg(args[0], "what to count"));
  TESSERA_ASSIGN_OR_RETURN(const std::optional<Window> window,
                           WindowOf(interpreter, *self.text(), args[1], args[2]));
  if (!window) return Value::Int(0);
  return Value::Int(static_cast<int64_t>(CountMatches(window->bytes, part->bytes(), -1)));
}

// startswith and endswith take one text or a tuple of them.
template <Side kSide>
StatusOr<Value> Edge(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  TESSERA_ASSIGN_OR_RETURN(const std::optional<Window> window,
                           WindowOf(interpreter, *self.text(), args[1], args[2]));
  List parts = {*args[0]};
  if (args[0]->sequence() != nullptr && args[0]->sequence()->tuple()) {
    parts = *args[0]->sequence()->items;
  }
  bool found = false;
  for (const Value& part : parts) {
    TESSERA_RETURN_IF_ERROR(interpreter.Spend(1));
    TESSERA_ASSIGN_OR_RETURN(const MarkedText* edge, TextArg(&part, "the text to look for"));
    if (!window) continue;
    found = found || (kSide == Side::kLeft ? absl::StartsWith(window->bytes, edge->bytes())
                                           : absl::EndsWith(window->bytes, edge->bytes()));
  }
  return Value::Bool(found);
}

template <Side kSide>
StatusOr<Value> RemoveEdge(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  const MarkedText& text = *self.text();
  TESSERA_ASSIGN_OR_RETURN(const MarkedText* edge, TextArg(args[0], "the text to remove"));
  const bool found = kSide == Side::kLeft ? absl::StartsWith(text.bytes(), edge->bytes())
                                          : absl::EndsWith(text.bytes(), edge->bytes());
  if (!found) return self;
  const size_t begin = kSide == Side::kLeft ? edge->size() : 0;
  return interpreter.MakeText(text.Substr(begin, text.size() - edge->size()));
}

StatusOr<Value> ReplaceMethod(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  TESSERA_ASSIGN_OR_RETURN(const MarkedText* from, TextArg(args[0], "what to replace"));
  TESSERA_ASSIGN_OR_RETURN(const MarkedText* to, TextArg(args[1], "the replacement"));
  TESSERA_ASSIGN_OR_RETURN(const int64_t count, IntegerArg(args[2], -1, "the count"));
  return ReplaceText(interpreter, *self.text(), *from, *to, count);
}

StatusOr<Value> JoinMethod(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  TESSERA_ASSIGN_OR_RETURN(const auto items, interpreter.Items(*args[0]));
  for (size_t i = 0; i < items->size(); ++i) {
    if ((*items)[i].text() != nullptr) continue;
    return Interpreter::Fail(
        absl::StrCat("sequence item ", i, ": expected a string, not ", (*items)[i].TypeName()));
  }
  return JoinItems(interpreter, *items, *self.text());
}

StatusOr<Value> FormatMethod(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  return FormatBraces(interpreter, *self.text(), *args.call);
}

template <Side kSide>
StatusOr<Value> Justify(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  TESSERA_ASSIGN_OR_RETURN(const int64_t width, IntegerArg(args[0], 0, "the width"));
  MarkedText fill(" ");
  if (args[1] != nullptr) {
    TESSERA_ASSIGN_OR_RETURN(const MarkedText* given, TextArg(args[1], "the fill character"));
    if (given->Length() != 1) return Interpreter::Fail("the fill must be one character");
    fill = *given;
  }
  return PadText(interpreter, *self.text(), width, fill, kSide);
}

StatusOr<Value> ZFill(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  TESSERA_ASSIGN_OR_RETURN(const int64_t width, IntegerArg(args[0], 0, "the width"));
  const MarkedText& text = *self.text();
  const bool sign = !text.empty() && (text.bytes()[0] == '-' || text.bytes()[0] == '+');
  TESSERA_ASSIGN_OR_RETURN(const Value padded, PadText(interpreter, sign ? text.Substr(1) : text,
                                                       width - (sign && width > 0 ? 1 : 0),
                                                       MarkedText("0"), Side::kRight));
  if (!sign) return padded;
  MarkedText result = text.Substr(0, 1);
  result.Append(*padded.text());
  return interpreter.MakeText(std::move(result));
}

template <bool (*kOf)(absl::string_view)>
StatusOr<Value> TextIs(Interpreter& interpreter, const Value& self, const BoundArgs&) {
  TESSERA_RETURN_IF_ERROR(interpreter.Spend(self.text()->size() / 64));
  return Value::Bool(kOf(self.text()->bytes()));
}

// As Python sees it: of "No" and "Nl", only those with a numeric value.
bool IsNumericCharacter(char32_t c) {
  return u_getNumericValue(static_cast<UChar32>(c)) != U_NO_NUMERIC_VALUE;
}
bool IsDecimalCharacter(char32_t c) {
  return u_charType(static_cast<UChar32>(c)) == U_DECIMAL_DIGIT_NUMBER;
}
bool IsDigitCharacter(char32_t c) {
  const int32_t type = u_getIntPropertyValue(static_cast<UChar32>(c), UCHAR_NUMERIC_TYPE);
  return type == U_NT_DECIMAL || type == U_NT_DIGIT;
}
bool IsLetter(char32_t c) { return u_isalpha(static_cast<UChar32>(c)); }
bool IsAscii(char32_t c) { return c < 0x80; }

bool AllSpace(absl::string_view text) { return AllCharacters(text, IsSpaceCharacter); }
bool AllLetters(absl::string_view text) { return AllCharacters(text, IsLetter); }
bool AllDigits(absl::string_view text) { return AllCharacters(text, IsDigitCharacter); }
bool AllDecimal(absl::string_view text) { return AllCharacters(text, IsDecimalCharacter); }
bool AllNumeric(absl::string_view text) { return AllCharacters(text, IsNumericCharacter); }
bool AllAscii(absl::string_view text) { return text.empty() || AllCharacters(text, IsAscii); }
bool AllAlphanumeric(absl::string_view text) {
  return AllCharacters(text, [](char32_t c) { return IsLetter(c) || IsNumericCharacter(c); });
}

constexpr Builtin kTextMethods[] = {
    {"upper", MapCase<Upper>},
    {"lower", MapCase<Lower>},
    {"title", MapCase<Title>},
    {"capitalize", MapCase<Capitalize>},
    {"swapcase", MapCase<SwapCase>},
    {"strip", StripMethod<Side::kBoth>, "? chars"},
    {"lstrip", StripMethod<Side::kLeft>, "? chars"},
    {"rstrip", StripMethod<Side::kRight>, "? chars"},
    {"split", SplitMethod<Side::kLeft>, "? sep maxsplit"},
    {"rsplit", SplitMethod<Side::kRight>, "? sep maxsplit"},
    {"splitlines", SplitLinesMethod, "? keepends"},
    {"partition", Partition<Side::kLeft>, "sep"},
    {"rpartition", Partition<Side::kRight>, "sep"},
    {"find", Find<Side::kLeft, IfMissing::kMinusOne>, "sub ? start end"},
    {"rfind", Find<Side::kRight, IfMissing::kMinusOne>, "sub ? start end"},
    {"index", Find<Side::kLeft, IfMissing::kError>, "sub ? start end"},
    {"rindex", Find<Side::kRight, IfMissing::kError>, "sub ? start end"},
    {"count", CountMethod, "sub ? start end"},
    {"startswith", Edge<Side::kLeft>, "prefix ? start end"},
    {"endswith", Edge<Side::kRight>, "suffix ? start end"},
    {"removeprefix", RemoveEdge<Side::kLeft>, "prefix"},
    {"removesuffix", RemoveEdge<Side::kRight>, "suffix"},
    {"replace", ReplaceMethod, "old new ? count"},
    {"join", JoinMethod, "iterable"},
    {"format", FormatMethod, "*"},
    {"center", Justify<Side::kBoth>, "width ? fillchar"},
    {"ljust", Justify<Side::kLeft>, "width ? fillchar"},
    {"rjust", Justify<Side::kRight>, "width ? fillchar"},
    {"zfill", ZFill, "width"},
    {"islower", TextIs<IsLower>},
    {"isupper", TextIs<IsUpper>},
    {"isspace", TextIs<AllSpace>},
    {"isalpha", TextIs<AllLetters>},
    {"isalnum", TextIs<AllAlphanumeric>},
    {"isdigit", TextIs<AllDigits>},
    {"isdecimal", TextIs<AllDecimal>},
    {"isnumeric", TextIs<AllNumeric>},
    {"isascii", TextIs<AllAscii>},
};

}  // namespace

std::span<const Builtin> TextMethods() { return kTextMethods; }

}  // namespace tessera::server::jinja
