#include "server/text/jinja/value.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/text/utf8.h"

namespace tessera::server::jinja {
namespace {

// A dict with more items than this finds texts by their hash.
constexpr size_t kIndexedItems = 16;

void AppendRepr(const Value& value, size_t max_bytes, MarkedText* out);

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

void AppendDictRepr(const Dict& dict, size_t max_bytes, MarkedText* out) {
  out->Append("{", TextOrigin::kTemplate);
  for (size_t i = 0; i < dict.items.size() && out->size() <= max_bytes; ++i) {
    if (i > 0) out->Append(", ", TextOrigin::kTemplate);
    AppendRepr(dict.items[i].first, max_bytes, out);
    out->Append(": ", TextOrigin::kTemplate);
    AppendRepr(dict.items[i].second, max_bytes, out);
  }
  out->Append("}", TextOrigin::kTemplate);
}

void AppendRepr(const Value& value, size_t max_bytes, MarkedText* out) {
  if (const MarkedText* text = value.text()) {
    AppendQuotedText(*text, out);
  } else if (const Sequence* sequence = value.sequence()) {
    out->Append(sequence->tuple() ? "(" : "[", TextOrigin::kTemplate);
    for (size_t i = 0; i < sequence->items->size() && out->size() <= max_bytes; ++i) {
      if (i > 0) out->Append(", ", TextOrigin::kTemplate);
      AppendRepr((*sequence->items)[i], max_bytes, out);
    }
    if (sequence->tuple() && sequence->items->size() == 1) out->Append(",", TextOrigin::kTemplate);
    out->Append(sequence->tuple() ? ")" : "]", TextOrigin::kTemplate);
  } else if (const Dict* dict = value.dict()) {
    AppendDictRepr(*dict, max_bytes, out);
  } else if (value.is_undefined()) {
    out->Append("Undefined", TextOrigin::kTemplate);
  } else {
    out->Append(value.Str());
  }
}

bool SequencesEqual(const Sequence& a, const Sequence& b) {
  if (a.items == b.items) return true;
  if (a.tuple() != b.tuple() || a.items->size() != b.items->size()) return false;
  return std::equal(a.items->begin(), a.items->end(), b.items->begin(),
                    [](const Value& x, const Value& y) { return x.Equals(y); });
}

bool DictsEqual(const Dict& a, const Dict& b) {
  if (&a == &b) return true;
  if (a.items.size() != b.items.size()) return false;
  return std::all_of(a.items.begin(), a.items.end(), [&](const auto& item) {
    const Value* other = b.Find(item.first);
    return other != nullptr && item.second.Equals(*other);
  });
}

void Join(const Extent& part, Extent* whole) {
  whole->depth = std::max(whole->depth, part.depth + 1);
  whole->weight += std::min(part.weight, UINT64_MAX / 4 - whole->weight);
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
  if (!index.empty()) {
    const auto found = index.find(key);
    return found == index.end() ? nullptr : &items[found->second].second;
  }
  for (const auto& [k, v] : items) {
    if (k.text() != nullptr && k.text()->bytes() == key) return &v;
  }
  return nullptr;
}

void Dict::Set(Value key, Value value) {
  index.clear();
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
Value Value::MakeSequence(SequenceKind kind, List items) {
  Extent extent;
  for (const Value& item : items) Join(item.extent(), &extent);
  return Value(Data(Sequence{std::make_shared<const List>(std::move(items)), kind, extent}));
}
Value Value::MakeDict(Dict dict) {
  dict.extent = Extent{};
  for (const auto& [key, value] : dict.items) {
    Join(key.extent(), &dict.extent);
    Join(value.extent(), &dict.extent);
  }
  dict.index.clear();
  for (size_t i = 0; dict.items.size() > kIndexedItems && i < dict.items.size(); ++i) {
    const MarkedText* key = dict.items[i].first.text();
    if (key != nullptr) dict.index.emplace(key->bytes(), i);
  }
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
Loop* Value::loop() const {
  const auto* p = As<std::shared_ptr<Loop>>();
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

Extent Value::extent() const {
  if (const MarkedText* t = text()) return {1, 1 + t->size() / 64};
  if (const Sequence* s = sequence()) return s->extent;
  if (const Dict* d = dict()) return d->extent;
  if (const Function* f = function()) return {f->depth, 1};
  return {};
}

bool Value::Truth() const {
  if (const std::optional<double> n = number()) return *n != 0;
  if (is_undefined() || is_none()) return false;
  if (const std::optional<size_t> length = text() ? text()->size() : Length()) return *length > 0;
  return true;
}

const char* Value::TypeName() const {
  static constexpr const char* kNames[] = {"Undefined", "NoneType", "bool",    "int",
                                           "float",     "str",      "list",    "dict",
                                           "namespace", "loop",     "function"};
  static constexpr const char* kSequences[] = {"list", "tuple", "tuple", "view", "generator"};
  if (const Sequence* s = sequence()) return kSequences[static_cast<size_t>(s->kind)];
  return kNames[data_.index()];
}

MarkedText Value::Str(size_t max_bytes) const {
  if (const MarkedText* t = text()) return *t;
  if (is_undefined()) return MarkedText();
  if (is_none()) return MarkedText("None");
  if (const bool* b = As<bool>()) return MarkedText(*b ? "True" : "False");
  if (const int64_t* i = As<int64_t>()) return MarkedText(absl::StrCat(*i));
  if (const double* d = As<double>()) return MarkedText(FloatText(*d));
  if (names() != nullptr) return MarkedText("<namespace>");
  if (loop() != nullptr) {
    return MarkedText(
        absl::StrCat("<LoopContext ", loop()->index + 1, "/", loop()->items->size(), ">"));
  }
  if (function() != nullptr) return MarkedText(absl::StrCat("<function ", function()->name, ">"));
  return Repr(max_bytes);
}

MarkedText Value::Repr(size_t max_bytes) const {
  MarkedText out;
  AppendRepr(*this, max_bytes, &out);
  return out;
}

std::optional<size_t> Value::Length() const {
  if (is_undefined()) return 0;
  if (const MarkedText* t = text()) return t->Length();
  if (const Sequence* s = sequence()) {
    if (s->kind == SequenceKind::kGenerator) return std::nullopt;
    return s->items->size();
  }
  if (const Dict* d = dict()) return d->items.size();
  if (const Loop* l = loop()) return l->items->size();
  return std::nullopt;
}

std::shared_ptr<const List> Value::Items() const {
  if (const Sequence* s = sequence()) return s->items;
  List items;
  if (is_undefined()) return std::make_shared<const List>();
  if (const Dict* d = dict()) {
    items.reserve(d->items.size());
    for (const auto& [key, value] : d->items) items.push_back(key);
    return std::make_shared<const List>(std::move(items));
  }
  if (const MarkedText* t = text()) {
    for (size_t pos = 0; pos < t->size();) {
      const size_t length = DecodeUtf8(t->bytes(), pos).length;
      items.push_back(Text(t->Substr(pos, length)));
      pos += length;
    }
    return std::make_shared<const List>(std::move(items));
  }
  return nullptr;
}

bool Value::Equals(const Value& other) const {
  const std::optional<double> x = number();
  const std::optional<double> y = other.number();
  if (x && y) {
    const std::optional<int64_t> i = integer();
    const std::optional<int64_t> j = other.integer();
    return i && j ? *i == *j : *x == *y;
  }
  if (text() && other.text()) return text()->bytes() == other.text()->bytes();
  if (is_none() || other.is_none()) return is_none() && other.is_none();
  if (is_undefined() || other.is_undefined()) return is_undefined() && other.is_undefined();
  if (sequence() && other.sequence()) return SequencesEqual(*sequence(), *other.sequence());
  if (dict() && other.dict()) return DictsEqual(*dict(), *other.dict());
  if (names() || other.names()) return names() == other.names();
  if (loop() || other.loop()) return loop() == other.loop();
  return function() != nullptr && function() == other.function();
}

bool Value::IsHashable() const {
  if (const Sequence* s = sequence()) {
    return s->kind != SequenceKind::kList &&
           (!s->tuple() || std::all_of(s->items->begin(), s->items->end(),
                                       [](const Value& item) { return item.IsHashable(); }));
  }
  return dict() == nullptr;
}

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
  if (sequence() && other.sequence() && sequence()->tuple() == other.sequence()->tuple()) {
    const List& a = *sequence()->items;
    const List& b = *other.sequence()->items;
    for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
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
