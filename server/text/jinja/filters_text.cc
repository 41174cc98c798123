// Filters that make texts, and those on numbers.
#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/text/jinja/builtins.h"
#include "server/text/jinja/format.h"
#include "server/text/jinja/json.h"
#include "server/text/jinja/numbers.h"
#include "server/text/jinja/text_builtins.h"
#include "server/text/utf8.h"

namespace tessera::server::jinja {
namespace {

using MapText = MarkedText (*)(const MarkedText&);

template <MapText kMap>
StatusOr<Value> CaseFilter(Interpreter& interpreter, const Value& self, const BoundArgs&) {
  TESSERA_ASSIGN_OR_RETURN(const MarkedText text, interpreter.Str(self));
  TESSERA_RETURN_IF_ERROR(interpreter.Spend(text.size() / 16));
  return interpreter.MakeText(kMap(text));
}

// Unlike str.title(): words begin behind white space, hyphens and opening brackets only.
MarkedText TitleWords(const MarkedText& text) {
  MarkedText result;
  const absl::string_view bytes = text.bytes();
  const auto splits = [&](char32_t c) {
    return IsSpaceCharacter(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
  };
  for (size_t pos = 0; pos < bytes.size();) {
    const size_t first = DecodeUtf8(bytes, pos).length;
    size_t end = pos + first;
    const bool split = splits(DecodeUtf8(bytes, pos).value);
    while (!split && end < bytes.size() && !splits(DecodeUtf8(bytes, end).value)) {
      end += DecodeUtf8(bytes, end).length;
    }
    result.Append(Upper(text.Substr(pos, first)));
    result.Append(Lower(text.Substr(pos + first, end - pos - first)));
    pos = end;
  }
  return result;
}

StatusOr<Value> Trim(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  TESSERA_ASSIGN_OR_RETURN(const MarkedText text, interpreter.Str(self));
  if (args[0] == nullptr || args[0]->is_none()) {
    return interpreter.MakeText(Strip(text, Side::kBoth, std::nullopt));
  }
  TESSERA_ASSIGN_OR_RETURN(const MarkedText* characters, TextArg(args[0], "trim's chars"));
  TESSERA_RETURN_IF_ERROR(interpreter.ReserveText(4 * characters->size()));
  return interpreter.MakeText(Strip(text, Side::kBoth, characters->bytes()));
}

StatusOr<Value> ReplaceFilter(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  TESSERA_ASSIGN_OR_RETURN(const MarkedText text, interpreter.Str(self));
  TESSERA_ASSIGN_OR_RETURN(const MarkedText from, interpreter.Str(*args[0]));
  TESSERA_ASSIGN_OR_RETURN(const MarkedText to, interpreter.Str(*args[1]));
  const Value* count = args[2] != nullptr && args[2]->is_none() ? nullptr : args[2];
  TESSERA_ASSIGN_OR_RETURN(const int64_t most, IntegerArg(count, -1, "replace's count"));
  return ReplaceText(interpreter, text, from, to, most);
}

StatusOr<Value> StringFilter(Interpreter& interpreter, const Value& self, const BoundArgs&) {
  TESSERA_ASSIGN_OR_RETURN(MarkedText text, interpreter.Str(self));
  return Value::Text(std::move(text));
}

StatusOr<Value> Safe(Interpreter& interpreter, const Value& self, const BoundArgs&) {
  TESSERA_ASSIGN_OR_RETURN(MarkedText text, interpreter.Str(self));
  text.MarkHtml();
  return Value::Text(std::move(text));
}

StatusOr<Value> ForceEscape(Interpreter& interpreter, const Value& self, const BoundArgs&) {
  TESSERA_ASSIGN_OR_RETURN(const MarkedText text, interpreter.Str(self));
  TESSERA_ASSIGN_OR_RETURN(MarkedText escaped, EscapeHtml(interpreter, text));
  return Value::Text(std::move(escaped));
}

StatusOr<Value> Escape(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  const bool is_html = self.text() != nullptr && self.text()->is_html();
  return is_html ? self : ForceEscape(interpreter, self, args);
}

StatusOr<Value> Indent(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  if (self.text() == nullptr) {
    return Interpreter::Fail(absl::StrCat("indent needs a string, not ", self.TypeName()));
  }
  MarkedText indention(std::string(4, ' '));
  if (args[0] != nullptr && args[0]->text() != nullptr) {
    indention = *args[0]->text();
  } else {
    TESSERA_ASSIGN_OR_RETURN(const int64_t width, IntegerArg(args[0], 4, "indent's width"));
    TESSERA_RETURN_IF_ERROR(
        interpreter.ReserveText(static_cast<size_t>(std::max<int64_t>(width, 0))));
    indention = MarkedText(std::string(static_cast<size_t>(std::max<int64_t>(width, 0)), ' '));
  }
  const bool blank = args.Truth(2, false);
  MarkedText text = *self.text();
  text.Append("\n", text.empty() ? TextOrigin::kTemplate : text.OriginAt(text.size() - 1));
  TESSERA_ASSIGN_OR_RETURN(const std::vector<MarkedText> lines,
                           SplitTextLines(interpreter, text, LineEnds::kDrop));
  size_t product = 0;
  if (__builtin_mul_overflow(lines.size(), indention.size() + 1, &product)) product = SIZE_MAX / 2;
  TESSERA_RETURN_IF_ERROR(interpreter.ReserveText(text.size() + product));
  MarkedText result;
  if (args.Truth(1, false)) result.Append(indention);
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) {
      result.Append("\n", TextOrigin::kTemplate);
      if (blank || !lines[i].empty()) result.Append(indention);
    }
    result.Append(lines[i]);
  }
  return Value::Text(std::move(result));
}

StatusOr<Value> Center(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  TESSERA_ASSIGN_OR_RETURN(const MarkedText text, interpreter.Str(self));
  TESSERA_ASSIGN_OR_RETURN(const int64_t width, IntegerArg(args[0], 80, "center's width"));
  return PadText(interpreter, text, width, MarkedText(" "), Side::kBoth);
}

StatusOr<Value> Format(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  TESSERA_ASSIGN_OR_RETURN(const MarkedText format, interpreter.Str(self));
  const Call& call = *args.call;
  if (!call.args.empty() && !call.named.empty()) {
    return Interpreter::Fail("format takes values by position or by name, not both");
  }
  if (call.named.empty()) {
    TESSERA_ASSIGN_OR_RETURN(const Value values,
                             interpreter.MakeSequence(SequenceKind::kTuple, call.args));
    return FormatPercent(interpreter, format, values);
  }
  Dict dict;
  for (const auto& [name, value] : call.named) dict.Set(Value::Text(name), value);
  TESSERA_ASSIGN_OR_RETURN(const Value values, interpreter.MakeDict(std::move(dict)));
  return FormatPercent(interpreter, format, values);
}

StatusOr<Value> WordCount(Interpreter& interpreter, const Value& self, const BoundArgs&) {
  TESSERA_ASSIGN_OR_RETURN(const MarkedText text, interpreter.Str(self));
  TESSERA_RETURN_IF_ERROR(interpreter.Spend(text.size() / 16));
  int64_t words = 0;
  bool in_word = false;
  for (size_t pos = 0; pos < text.size();) {
    const CodePoint code = DecodeUtf8(text.bytes(), pos);
    const bool part = IsWordCharacter(code.value);
    if (part && !in_word) ++words;
    in_word = part;
    pos += code.length;
  }
  return Value::Int(words);
}

StatusOr<Value> Truncate(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  TESSERA_ASSIGN_OR_RETURN(const int64_t length, IntegerArg(args[0], 255, "truncate's length"));
  MarkedText end("...");
  if (args[2] != nullptr) {
    TESSERA_ASSIGN_OR_RETURN(const MarkedText* given, TextArg(args[2], "truncate's end"));
    end = *given;
  }
  const Value* given = args[3] != nullptr && args[3]->is_none() ? nullptr : args[3];
  TESSERA_ASSIGN_OR_RETURN(const int64_t leeway, IntegerArg(given, 5, "truncate's leeway"));
  const auto end_length = static_cast<int64_t>(end.Length());
  if (length < end_length || leeway < 0) {
    return Interpreter::Fail(
        "truncate needs a length of at least its end's, and no negative leeway");
  }
  const std::optional<size_t> size = self.Length();
  if (size && static_cast<int64_t>(*size) - leeway <= length) return self;
  TESSERA_ASSIGN_OR_RETURN(const MarkedText* whole, TextArg(&self, "what truncate cuts"));
  const MarkedText& text = *whole;
  MarkedText cut = text.Substr(0, text.ByteOf(static_cast<size_t>(length - end_length)));
  if (!args.Truth(1, false)) {
    const size_t space = cut.bytes().rfind(' ');
    if (space != std::string::npos) cut = cut.Substr(0, space);
  }
  TESSERA_RETURN_IF_ERROR(interpreter.ReserveText(cut.size() + end.size()));
  cut.Append(end);
  return Value::Text(std::move(cut));
}

StatusOr<Value> ToJsonFilter(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  JsonFormat format;
  format.max_bytes = interpreter.limits().text_bytes;
  format.ascii = args.Truth(0, false);
  format.sort_keys = args.Truth(3, false);
  if (args[1] != nullptr && !args[1]->is_none()) {
    if (const MarkedText* text = args[1]->text()) {
      format.indent = text->bytes();
    } else {
      TESSERA_ASSIGN_OR_RETURN(const int64_t width, IntegerArg(args[1], 0, "tojson's indent"));
      format.indent = std::string(static_cast<size_t>(std::clamp<int64_t>(width, 0, 1000)), ' ');
    }
    if (format.indent->size() > 1000) return Interpreter::Fail("tojson's indent is above 1000");
    format.item_separator.assign(1, ',');
  }
  if (args[2] != nullptr && !args[2]->is_none()) {
    const Sequence* pair = args[2]->sequence();
    if (pair == nullptr || pair->items->size() != 2 || (*pair->items)[0].text() == nullptr ||
        (*pair->items)[1].text() == nullptr) {
      return Interpreter::Fail("tojson's separators must be a pair of strings");
    }
    format.item_separator = (*pair->items)[0].text()->bytes();
    format.key_separator = (*pair->items)[1].text()->bytes();
  }
  TESSERA_RETURN_IF_ERROR(
      interpreter.Spend(format.sort_keys ? self.extent().weight : self.extent().weight / 4));
  StatusOr<MarkedText> text = ToJson(self, format);
  if (!text.ok()) return Interpreter::Fail(PartsOf(text.status()).why);
  return interpreter.MakeText(*std::move(text));
}

StatusOr<Value> Abs(Interpreter&, const Value& self, const BoundArgs&) {
  if (const double* number = self.As<double>()) return Value::Float(std::fabs(*number));
  if (const std::optional<int64_t> number = self.integer(); number && *number != INT64_MIN) {
    return Value::Int(*number < 0 ? -*number : *number);
  }
  return Interpreter::Fail(absl::StrCat("abs needs a number, not ", self.TypeName()));
}

StatusOr<Value> Int(Interpreter&, const Value& self, const BoundArgs& args) {
  TESSERA_ASSIGN_OR_RETURN(const int64_t base, IntegerArg(args[1], 10, "int's base"));
  if (self.is_undefined()) return Interpreter::Fail(self.As<Undefined>()->hint);
  const Value fallback = args[0] == nullptr ? Value::Int(0) : *args[0];
  if (const std::optional<int64_t> number = self.integer()) return Value::Int(*number);
  std::optional<double> number = self.number();
  if (const MarkedText* text = self.text()) {
    if (const std::optional<int64_t> parsed = ParseInteger(text->bytes(), base)) {
      return Value::Int(*parsed);
    }
    number = ParseFloat(text->bytes());
  }
  if (!number || std::isnan(*number)) return fallback;
  if (std::fabs(*number) >= 9.2e18) return Interpreter::Fail("an integer does not fit 64 bits");
  return Value::Int(static_cast<int64_t>(*number));
}

StatusOr<Value> Float(Interpreter&, const Value& self, const BoundArgs& args) {
  if (self.is_undefined()) return Interpreter::Fail(self.As<Undefined>()->hint);
  if (const std::optional<double> number = self.number()) return Value::Float(*number);
  if (self.text() != nullptr) {
    if (const std::optional<double> number = ParseFloat(self.text()->bytes())) {
      return Value::Float(*number);
    }
  }
  return args[0] == nullptr ? Value::Float(0) : *args[0];
}

StatusOr<Value> Round(Interpreter&, const Value& self, const BoundArgs& args) {
  if (!self.number()) {
    return Interpreter::Fail(absl::StrCat("round needs a number, not ", self.TypeName()));
  }
  TESSERA_ASSIGN_OR_RETURN(const int64_t precision, IntegerArg(args[0], 0, "round's precision"));
  const std::string method =
      args[1] != nullptr && args[1]->text() != nullptr ? args[1]->text()->bytes() : "common";
  if (precision < -300 || precision > 300)
    return Interpreter::Fail("round's precision is too large");
  if (method == "common") return RoundHalfEven(self, static_cast<int>(precision));
  if (method != "ceil" && method != "floor") {
    return Interpreter::Fail("round's method must be common, ceil or floor");
  }
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = *self.number() * scale;
  return Value::Float((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
}

constexpr Builtin kTextFilters[] = {
    {"upper", CaseFilter<Upper>},
    {"lower", CaseFilter<Lower>},
    {"title", CaseFilter<TitleWords>},
    {"capitalize", CaseFilter<Capitalize>},
    {"trim", Trim, "? chars"},
    {"replace", ReplaceFilter, "old new ? count"},
    {"string", StringFilter},
    {"safe", Safe},
    {"e", Escape},
    {"escape", Escape},
    {"forceescape", ForceEscape},
    {"indent", Indent, "? width first blank"},
    {"center", Center, "? width"},
    {"format", Format, "*"},
    {"wordcount", WordCount},
    {"truncate", Truncate, "? length killwords end leeway"},
    {"tojson", ToJsonFilter, "? ensure_ascii indent separators sort_keys"},
};

constexpr Builtin kNumberFilters[] = {
    {"abs", Abs},
    {"int", Int, "? default base"},
    {"float", Float, "? default"},
    {"round", Round, "? precision method"},
};

}  // namespace

std::span<const Builtin> TextFilters() { return kTextFilters; }
std::span<const Builtin> NumberFilters() { return kNumberFilters; }

}  // namespace tessera::server::jinja
