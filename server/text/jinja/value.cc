#include "server/text/jinja/value.h"

#include <charconv>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/text/utf8.h"

namespace tessera::server::jinja {
namespace {

// Values are built from data of bounded depth, but templates can nest them further.
constexpr int kMaxPrintDepth = 100;

void AppendRepr(const Value& value, int depth, MarkedText* out);

void AppendQuotedText(const MarkedText& text, MarkedText* out) {
  const bool double_quotes =
      text.bytes().find('\'') != std::string::npos && text.bytes().find('"') == std::string::npos;
  const char quote = double_quotes ? '"' : '\'';
  const auto add = [&](absl::string_view bytes) { out->Append(bytes, TextOrigin::kTemplate); };
  add(absl::string_view(&quote, 1));
  size_t plain = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const unsigned char c = static_cast<unsigned char>(text.bytes()[i]);
    if (c >= 0x20 && c != 0x7F && c != '\\' && c != static_cast<unsigned char>(quote)) continue;
    out->Append(text, plain, i - plain);
    plain = i + 1;
    if (c == '\n') {
      add("\\n");
    } else if (c == '\t') {
      add("\\t");
    } else if (c == '\r') {
      add("\\r");
    } else if (c < 0x20 || c == 0x7F) {
      add(absl::StrFormat("\\x%02x", c));
    } else {
      add("\\");
      out->Append(text, i, 1);
    }
  }
  out->Append(text, plain, text.size() - plain);
  add(absl::string_view(&quote, 1));
}

void AppendDictRepr(const Dict& dict, int depth, MarkedText* out) {
  out->Append("{", TextOrigin::kTemplate);
  for (size_t i = 0; i < dict.items.size(); ++i) {
    if (i > 0) out->Append(", ", TextOrigin::kTemplate);
    AppendRepr(dict.items[i].first, depth + 1, out);
    out->Append(": ", TextOrigin::kTemplate);
    AppendRepr(dict.items[i].second, depth + 1, out);
  }
  out->Append("}", TextOrigin::kTemplate);
}

void AppendRepr(const Value& value, int depth, MarkedText* out) {
  if (depth > kMaxPrintDepth) {
    out->Append("...", TextOrigin::kTemplate);
  } else if (const MarkedText* text = value.text()) {
    AppendQuotedText(*text, out);
  } else if (const Sequence* sequence = value.sequence()) {
    out->Append(sequence->tuple ? "(" : "[", TextOrigin::kTemplate);
    for (size_t i = 0; i < sequence->items->size(); ++i) {
      if (i > 0) out->Append(", ", TextOrigin::kTemplate);
      AppendRepr((*sequence->items)[i], depth + 1, out);
    }
    if (sequence->tuple && sequence->items->size() == 1) out->Append(",", TextOrigin::kTemplate);
    out->Append(sequence->tuple ? ")" : "]", TextOrigin::kTemplate);
  } else if (const Dict* dict = value.dict()) {
    AppendDictRepr(*dict, depth, out);
  } else if (value.is_undefined()) {
    out->Append("Undefined", TextOrigin::kTemplate);
  } else {
    out->Append(value.Str());
  }
}

bool EqualsAt(const Value& a, const Value& b, int depth);

bool DictsEqual(const Dict& a, const Dict& b, int depth) {
  if (a.items.size() != b.items.size()) return false;
  for (const auto& [key, value] : a.items) {
    const Value* other = b.Find(key);
    if (other == nullptr || !EqualsAt(value, *other, depth + 1)) return false;
  }
  return true;
}

bool EqualsAt(const Value& a, const Value& b, int depth) {
  if (depth > kMaxPrintDepth) return false;
  const std::optional<double> x = a.number();
  const std::optional<double> y = b.number();
  if (x && y) {
    const std::optional<int64_t> i = a.integer();
    const std::optional<int64_t> j = b.integer();
    return i && j ? *i == *j : *x == *y;
  }
  if (a.text() && b.text()) return a.text()->bytes() == b.text()->bytes();
  if (a.is_none() || b.is_none()) return a.is_none() && b.is_none();
  if (a.is_undefined() || b.is_undefined()) return a.is_undefined() && b.is_undefined();
  if (a.sequence() && b.sequence()) {
    const List& left = *a.sequence()->items;
    const List& right = *b.sequence()->items;
    if (a.sequence()->tuple != b.sequence()->tuple || left.size() != right.size()) return false;
    for (size_t i = 0; i < left.size(); ++i) {
      if (!EqualsAt(left[i], right[i], depth + 1)) return false;
    }
    return true;
  }
  if (a.dict() && b.dict()) return DictsEqual(*a.dict(), *b.dict(), depth);
  if (a.names() && b.names()) return a.names() == b.names();
  return a.function() != nullptr && a.function() == b.function();
}

}  // namespace

const Value* Dict::Find(const Value& key) const {
  if (const MarkedText* text = key.text()) return Find(text->bytes());
  for (const auto& [k, v] : items) {
    if (k.Equals(key)) return &v;
  }
  return nullptr;
}

const Value* Dict::Find(absl::string_view key) const {
  for (const auto& [k, v] : items) {
    if (k.text() != nullptr && k.text()->bytes() == key) return &v;
  }
  return nullptr;
}

void Dict::Set(Value key, Value value) {
  for (auto& [k, v] : items) {
    if (k.Equals(key)) {
      v = std::move(value);
      return;
    }
  }
  items.emplace_back(std::move(key), std::move(value));
}

const Value* Namespace::Find(absl::string_view name) const {
  for (const auto& [n, v] : fields) {
    if (n == name) return &v;
  }
  return nullptr;
}

void Namespace::Set(absl::string_view name, Value value) {
  for (auto& [n, v] : fields) {
    if (n == name) {
      v = std::move(value);
      return;
    }
  }
  fields.emplace_back(std::string(name), std::move(value));
}

Value Value::Text(MarkedText text) {
  return Value(Data(std::make_shared<const MarkedText>(std::move(text))));
}
Value Value::Text(std::string text, TextOrigin origin) {
  return Text(MarkedText(std::move(text), origin));
}
Value Value::MakeList(List items) {
  return Value(Data(Sequence{std::make_shared<const List>(std::move(items)), false}));
}
Value Value::MakeTuple(List items) {
  return Value(Data(Sequence{std::make_shared<const List>(std::move(items)), true}));
}
Value Value::MakeDict(Dict dict) {
  return Value(Data(std::make_shared<const Dict>(std::move(dict))));
}
Value Value::MakeFunction(Function function) {
  return Value(Data(std::make_shared<const Function>(std::move(function))));
}

const MarkedText* Value::text() const {
  const auto* p = As<std::shared_ptr<const MarkedText>>();
  return p == nullptr ? nullptr : p->get();
}
const Dict* Value::dict() const {
  const auto* p = As<std::shared_ptr<const Dict>>();
  return p == nullptr ? nullptr : p->get();
}
Namespace* Value::names() const {
  const auto* p = As<std::shared_ptr<Namespace>>();
  return p == nullptr ? nullptr : p->get();
}
const Function* Value::function() const {
  const auto* p = As<std::shared_ptr<const Function>>();
  return p == nullptr ? nullptr : p->get();
}

std::optional<int64_t> Value::integer() const {
  if (const bool* b = As<bool>()) return *b ? 1 : 0;
  if (const int64_t* i = As<int64_t>()) return *i;
  return std::nullopt;
}

std::optional<double> Value::number() const {
  if (const double* d = As<double>()) return *d;
  if (const std::optional<int64_t> i = integer()) return static_cast<double>(*i);
  return std::nullopt;
}

bool Value::Truth() const {
  if (const std::optional<double> n = number()) return *n != 0;
  if (is_undefined() || is_none()) return false;
  if (const std::optional<size_t> length = text() ? text()->size() : Length()) return *length > 0;
  return true;
}

const char* Value::TypeName() const {
  static constexpr const char* kNames[] = {"Undefined", "NoneType", "bool", "int",
                                           "float",     "str",      "list", "dict",
                                           "namespace", "function"};
  if (sequence() != nullptr && sequence()->tuple) return "tuple";
  return kNames[data_.index()];
}

MarkedText Value::Str() const {
  if (const MarkedText* t = text()) return *t;
  if (is_undefined()) return MarkedText();
  if (is_none()) return MarkedText("None");
  if (const bool* b = As<bool>()) return MarkedText(*b ? "True" : "False");
  if (const int64_t* i = As<int64_t>()) return MarkedText(absl::StrCat(*i));
  if (const double* d = As<double>()) return MarkedText(FloatText(*d));
  if (names() != nullptr) return MarkedText(absl::StrCat("<", names()->type_name, ">"));
  if (function() != nullptr) return MarkedText(absl::StrCat("<function ", function()->name, ">"));
  return Repr();
}

MarkedText Value::Repr() const {
  MarkedText out;
  AppendRepr(*this, 0, &out);
  return out;
}

std::optional<size_t> Value::Length() const {
  if (is_undefined()) return 0;
  if (const MarkedText* t = text()) return t->Length();
  if (const Sequence* s = sequence()) return s->items->size();
  if (const Dict* d = dict()) return d->items.size();
  return std::nullopt;
}

std::optional<List> Value::Items() const {
  if (is_undefined()) return List{};
  if (const Sequence* s = sequence()) return *s->items;
  List items;
  if (const Dict* d = dict()) {
    for (const auto& [key, value] : d->items) items.push_back(key);
    return items;
  }
  if (const MarkedText* t = text()) {
    for (size_t pos = 0; pos < t->size();) {
      const size_t length = DecodeUtf8(t->bytes(), pos).length;
      items.push_back(Text(t->Substr(pos, length)));
      pos += length;
    }
    return items;
  }
  return std::nullopt;
}

bool Value::Equals(const Value& other) const { return EqualsAt(*this, other, 0); }

std::optional<int> Value::Compare(const Value& other) const {
  const std::optional<double> x = number();
  const std::optional<double> y = other.number();
  if (x && y) {
    const std::optional<int64_t> i = integer();
    const std::optional<int64_t> j = other.integer();
    if (i && j) return *i < *j ? -1 : (*i > *j ? 1 : 0);
    return *x < *y ? -1 : (*x > *y ? 1 : 0);
  }
  if (text() && other.text()) {
    const int order = text()->bytes().compare(other.text()->bytes());
    return order < 0 ? -1 : (order > 0 ? 1 : 0);
  }
  if (sequence() && other.sequence() && sequence()->tuple == other.sequence()->tuple) {
    const List& a = *sequence()->items;
    const List& b = *other.sequence()->items;
    for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
      if (a[i].sequence() && b[i].sequence()) return std::nullopt;
      if (a[i].Equals(b[i])) continue;
      return a[i].Compare(b[i]);
    }
    return a.size() < b.size() ? -1 : (a.size() > b.size() ? 1 : 0);
  }
  return std::nullopt;
}

const Value* Call::Find(size_t index, absl::string_view name) const {
  if (index < args.size()) return &args[index];
  for (const auto& [n, v] : named) {
    if (n == name) return &v;
  }
  return nullptr;
}

std::string FloatText(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[40];
  const double size = std::fabs(value);
  const bool scientific = size != 0 && (size < 1e-4 || size >= 1e16);
  const auto format = scientific ? std::chars_format::scientific : std::chars_format::fixed;
  const auto result = std::to_chars(buffer, buffer + sizeof(buffer), value, format);
  std::string text(buffer, result.ptr);
  if (!scientific && text.find('.') == std::string::npos) text += ".0";
  return text;
}

}  // namespace tessera::server::jinja
