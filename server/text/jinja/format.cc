#include "server/text/jinja/format.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/text/jinja/format_value.h"
#include "server/text/utf8.h"

namespace tessera::server::jinja {
namespace {

// Reads digits at `*pos`; -1 when there are none.
StatusOr<int> ReadNumber(absl::string_view text, size_t* pos) {
  const size_t begin = *pos;
  while (*pos < text.size() && absl::ascii_isdigit(text[*pos])) ++*pos;
  if (*pos == begin) return -1;
  int value = 0;
  if (*pos - begin > 9 || !absl::SimpleAtoi(text.substr(begin, *pos - begin), &value)) {
    return BadFormat("a number is too large");
  }
  return value;
}

// One value in a "%" format.
StatusOr<Value> PercentValue(Interpreter& interpreter, const Value& value, FormatSpec spec) {
  switch (spec.type) {
    case 's': {
      TESSERA_ASSIGN_OR_RETURN(MarkedText text, interpreter.Str(value));
      return FormatText(interpreter, std::move(text), spec, '>');
    }
    case 'r': {
      MarkedText text = value.Repr(size_t{1} << 20);
      return FormatText(interpreter, std::move(text), spec, '>');
    }
    case 'd':
    case 'i':
    case 'u': {
      const std::optional<double> number = value.number();
      if (!number) break;
      if (std::fabs(*number) >= 9e18 && !value.integer()) return BadFormat("a number is too large");
      if (std::isnan(*number)) return BadFormat("not a number has no integer");
      const int64_t integer = value.integer() ? *value.integer() : static_cast<int64_t>(*number);
      spec.type = 'd';
      return FormatNumber(interpreter, Value::Int(integer), spec);
    }
    case 'x':
    case 'X':
    case 'o':
    case 'c':
      if (!value.integer()) break;
      return FormatNumber(interpreter, value, spec);
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
      if (!value.number()) break;
      return FormatNumber(interpreter, Value::Float(*value.number()), spec);
    default:
      return BadFormat(absl::StrCat("unknown conversion '", std::string(1, spec.type), "'"));
  }
  return Interpreter::Fail(
      absl::StrCat("%", std::string(1, spec.type), " needs a number, not ", value.TypeName()));
}

// Flags, width, precision and type behind "%" and a name.
StatusOr<FormatSpec> ReadPercentSpec(absl::string_view format, size_t* pos) {
  FormatSpec spec;
  for (; *pos < format.size() && absl::StrContains("-+ #0", format.substr(*pos, 1)); ++*pos) {
    const char flag = format[*pos];
    if (flag == '-') spec.align = '<';
    if (flag == '+' || (flag == ' ' && spec.sign == '-')) spec.sign = flag;
    if (flag == '#') spec.alternate = true;
    if (flag == '0' && spec.align == '\0') spec.align = '=';
  }
  TESSERA_ASSIGN_OR_RETURN(const int width, ReadNumber(format, pos));
  spec.width = static_cast<size_t>(std::max(width, 0));
  if (format.substr(*pos, 1) == ".") {
    ++*pos;
    TESSERA_ASSIGN_OR_RETURN(spec.precision, ReadNumber(format, pos));
    spec.precision = std::max(spec.precision, 0);
  }
  if (*pos >= format.size()) return BadFormat("it ends too early");
  spec.type = format[(*pos)++];
  const bool number = !absl::StrContains("sr", absl::string_view(&spec.type, 1));
  if (spec.align == '=' && number) spec.fill.assign(1, '0');
  if (spec.align == '=' && !number) spec.align = '>';
  if (number && spec.precision > kMaxPrecision) return BadFormat("a precision is too large");
  return spec;
}

// "[[fill]align][sign][#][0][width][,][.precision][type]".
StatusOr<FormatSpec> ReadBraceSpec(absl::string_view text) {
  FormatSpec spec;
  size_t pos = 0;
  const auto is_align = [&](size_t at) {
    return at < text.size() && absl::StrContains("<>^=", text.substr(at, 1));
  };
  if (!text.empty()) {
    const size_t first = DecodeUtf8(text, 0).length;
    if (is_align(first)) {
      spec.fill = std::string(text.substr(0, first));
      spec.align = text[first];
      pos = first + 1;
    } else if (is_align(0)) {
      spec.align = text[pos++];
    }
  }
  if (pos < text.size() && absl::StrContains("-+ ", text.substr(pos, 1))) spec.sign = text[pos++];
  if (text.substr(pos, 1) == "#") {
    spec.alternate = true;
    ++pos;
  }
  if (text.substr(pos, 1) == "0" && spec.align == '\0') {
    spec.align = '=';
    spec.fill.assign(1, '0');
    ++pos;
  }
  TESSERA_ASSIGN_OR_RETURN(const int width, ReadNumber(text, &pos));
  spec.width = static_cast<size_t>(std::max(width, 0));
  if (text.substr(pos, 1) == "," || text.substr(pos, 1) == "_") spec.grouping = text[pos++];
  if (text.substr(pos, 1) == ".") {
    ++pos;
    TESSERA_ASSIGN_OR_RETURN(spec.precision, ReadNumber(text, &pos));
    if (spec.precision < 0) return BadFormat("a precision is missing");
  }
  if (pos < text.size()) spec.type = text[pos++];
  if (pos < text.size()) return BadFormat("a specification has too many characters");
  return spec;
}

StatusOr<Value> BraceValue(Interpreter& interpreter, const Value& value, absl::string_view text) {
  TESSERA_ASSIGN_OR_RETURN(const FormatSpec spec, ReadBraceSpec(text));
  if (value.number() && (value.As<bool>() == nullptr || spec.type != '\0')) {
    if (spec.precision > kMaxPrecision) return BadFormat("a precision is too large");
    return FormatNumber(interpreter, value, spec);
  }
  if (spec.type != '\0' && spec.type != 's') {
    return BadFormat(
        absl::StrCat("'", std::string(1, spec.type), "' is not for a ", value.TypeName()));
  }
  if (value.text() == nullptr && value.As<bool>() == nullptr && !text.empty()) {
    return BadFormat(absl::StrCat("a ", value.TypeName(), " takes no specification"));
  }
  if (spec.align == '=' && spec.fill != "0") return BadFormat("'=' is for numbers");
  FormatSpec plain = spec;
  if (plain.align == '=') plain.align = '<';
  TESSERA_ASSIGN_OR_RETURN(MarkedText str, interpreter.Str(value));
  return FormatText(interpreter, std::move(str), plain, '<');
}

// The argument that a replacement field names: "", "0", "name", with ".attribute" and "[item]".
class Fields {
 public:
  Fields(Interpreter& interpreter, const Call& call) : interpreter_(interpreter), call_(call) {}

  StatusOr<Value> Find(absl::string_view field) {
    const size_t end = std::min(field.find_first_of(".["), field.size());
    const absl::string_view first = field.substr(0, end);
    field.remove_prefix(end);
    size_t index = 0;
    Value value;
    if (first.empty() || absl::SimpleAtoi(first, &index)) {
      if (first.empty()) index = next_++;
      if (index >= call_.args.size()) return BadFormat("there are not so many arguments");
      value = call_.args[index];
    } else {
      const Value* named = call_.Find(SIZE_MAX, first);
      if (named == nullptr) return BadFormat(absl::StrCat("no argument '", first, "'"));
      value = *named;
    }
    while (!field.empty()) {
      TESSERA_ASSIGN_OR_RETURN(value, Step(value, &field));
    }
    return value;
  }

 private:
  StatusOr<Value> Step(const Value& value, absl::string_view* field) {
    TESSERA_RETURN_IF_ERROR(interpreter_.Spend(1));
    if (field->front() == '.') {
      field->remove_prefix(1);
      const size_t end = std::min(field->find_first_of(".["), field->size());
      const absl::string_view name = field->substr(0, end);
      field->remove_prefix(end);
      return interpreter_.Attribute(value, name);
    }
    const size_t end = field->find(']');
    if (field->front() != '[' || end == absl::string_view::npos)
      return BadFormat("a field is not closed");
    const absl::string_view key = field->substr(1, end - 1);
    field->remove_prefix(end + 1);
    int64_t index = 0;
    if (absl::SimpleAtoi(key, &index)) return interpreter_.Item(value, Value::Int(index));
    return interpreter_.Item(value, Value::Text(std::string(key)));
  }

  Interpreter& interpreter_;
  const Call& call_;
  size_t next_ = 0;
};

// Takes the part of `format` from a "{" to its "}", and formats it.
StatusOr<Value> BraceField(Interpreter& interpreter, absl::string_view format, size_t* pos,
                           Fields* fields) {
  const size_t end = format.find('}', *pos);
  if (end == absl::string_view::npos) return BadFormat("'{' is not closed");
  absl::string_view field = format.substr(*pos + 1, end - *pos - 1);
  *pos = end + 1;
  if (absl::StrContains(field, "{")) return BadFormat("fields within fields are not supported");
  absl::string_view spec;
  const size_t colon = field.find(':');
  if (colon != absl::string_view::npos) {
    spec = field.substr(colon + 1);
    field = field.substr(0, colon);
  }
  char conversion = '\0';
  if (field.size() >= 2 && field[field.size() - 2] == '!') {
    conversion = field.back();
    field.remove_suffix(2);
  }
  TESSERA_ASSIGN_OR_RETURN(Value value, fields->Find(field));
  if (conversion == 'r') {
    TESSERA_ASSIGN_OR_RETURN(value, interpreter.MakeText(value.Repr(size_t{1} << 20)));
  } else if (conversion == 's') {
    TESSERA_ASSIGN_OR_RETURN(MarkedText text, interpreter.Str(value));
    value = Value::Text(std::move(text));
  } else if (conversion != '\0') {
    return BadFormat("a conversion is not r or s");
  }
  return BraceValue(interpreter, value, spec);
}

// Appends a part to the result within the limits.
Status Add(Interpreter& interpreter, const MarkedText& part, MarkedText* result) {
  TESSERA_RETURN_IF_ERROR(interpreter.Spend(1));
  TESSERA_RETURN_IF_ERROR(interpreter.ReserveText(part.size()));
  result->Append(part);
  return absl::OkStatus();
}

}  // namespace

StatusOr<Value> FormatPercent(Interpreter& interpreter, const MarkedText& format,
                              const Value& values) {
  const absl::string_view bytes = format.bytes();
  const Sequence* tuple = values.sequence();
  if (tuple != nullptr && !tuple->tuple()) tuple = nullptr;
  const size_t count = tuple != nullptr ? tuple->items->size() : 1;
  size_t next = 0;
  MarkedText result;
  for (size_t pos = 0; pos < bytes.size();) {
    const size_t percent = std::min(bytes.find('%', pos), bytes.size());
    TESSERA_RETURN_IF_ERROR(Add(interpreter, format.Substr(pos, percent - pos), &result));
    pos = percent + 1;
    if (percent >= bytes.size()) break;
    const Value* value = nullptr;
    if (bytes.substr(pos, 1) == "(") {
      const size_t end = bytes.find(')', pos);
      if (end == absl::string_view::npos || values.dict() == nullptr) {
        return BadFormat("a named value needs a dict");
      }
      value = values.dict()->Find(bytes.substr(pos + 1, end - pos - 1));
      if (value == nullptr) return BadFormat("a named value is missing");
      pos = end + 1;
    }
    TESSERA_ASSIGN_OR_RETURN(const FormatSpec spec, ReadPercentSpec(bytes, &pos));
    if (spec.type == '%') {
      result.Append("%", format.OriginAt(percent));
      continue;
    }
    if (value == nullptr) {
      if (next >= count) return BadFormat("not enough values");
      value = tuple != nullptr ? &(*tuple->items)[next] : &values;
      ++next;
    }
    TESSERA_ASSIGN_OR_RETURN(const Value part, PercentValue(interpreter, *value, spec));
    TESSERA_RETURN_IF_ERROR(Add(interpreter, *part.text(), &result));
  }
  // As in Python, whatever has items by key may be left unused.
  const bool keyed = values.dict() || values.is_undefined() ||
                     (values.sequence() && values.sequence()->kind == SequenceKind::kList);
  if (next < count && (tuple != nullptr || !keyed)) {
    return BadFormat("not all values are used");
  }
  return interpreter.MakeText(std::move(result));
}

StatusOr<Value> FormatBraces(Interpreter& interpreter, const MarkedText& format, const Call& call) {
  const absl::string_view bytes = format.bytes();
  Fields fields(interpreter, call);
  MarkedText result;
  for (size_t pos = 0; pos < bytes.size();) {
    const size_t brace = std::min(bytes.find_first_of("{}", pos), bytes.size());
    TESSERA_RETURN_IF_ERROR(Add(interpreter, format.Substr(pos, brace - pos), &result));
    pos = brace;
    if (pos >= bytes.size()) break;
    if (bytes.substr(pos + 1, 1) == bytes.substr(pos, 1)) {
      result.Append(format, pos, 1);
      pos += 2;
    } else if (bytes[pos] == '}') {
      return BadFormat("'}' stands alone");
    } else {
      TESSERA_ASSIGN_OR_RETURN(const Value part, BraceField(interpreter, bytes, &pos, &fields));
      TESSERA_RETURN_IF_ERROR(Add(interpreter, *part.text(), &result));
    }
  }
  return interpreter.MakeText(std::move(result));
}

}  // namespace tessera::server::jinja
