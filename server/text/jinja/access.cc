// Interpreter: what values are asked for.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/text/jinja/builtins.h"
#include "server/text/jinja/interpreter.h"

namespace tessera::server::jinja {
namespace {

Value Missing(const Value& object, absl::string_view name) {
  return Value::MakeUndefined(
      absl::StrCat("'", object.TypeName(), " object' has no attribute '", name.substr(0, 80), "'"));
}

std::optional<Value> LoopField(const Loop& loop, absl::string_view name) {
  const auto count = static_cast<int64_t>(loop.items->size());
  const auto index = static_cast<int64_t>(loop.index);
  if (name == "index") return Value::Int(index + 1);
  if (name == "index0") return Value::Int(index);
  if (name == "revindex") return Value::Int(count - index);
  if (name == "revindex0") return Value::Int(count - index - 1);
  if (name == "first") return Value::Bool(index == 0);
  if (name == "last") return Value::Bool(index + 1 == count);
  if (name == "length") return Value::Int(count);
  if (name == "depth") return Value::Int(static_cast<int64_t>(loop.depth));
  if (name == "depth0") return Value::Int(static_cast<int64_t>(loop.depth) - 1);
  if (name == "previtem") {
    if (index == 0) return Value::MakeUndefined("there is no previous item");
    return (*loop.items)[index - 1];
  }
  if (name == "nextitem") {
    if (index + 1 >= count) return Value::MakeUndefined("there is no next item");
    return (*loop.items)[index + 1];
  }
  return std::nullopt;
}

Value Bound(const Value& object, const Builtin& method) {
  return Value::MakeFunction({std::string(method.name),
                              [object, &method](Interpreter& interpreter, const Call& call) {
                                return Invoke(interpreter, method, object, call);
                              },
                              object.extent().depth + 1});
}

}  // namespace

StatusOr<MarkedText> Interpreter::Str(const Value& value) {
  if (const MarkedText* text = value.text()) return *text;
  MarkedText text = value.Str(limits_.text_bytes);
  TESSERA_RETURN_IF_ERROR(ReserveText(text.size()));
  TESSERA_RETURN_IF_ERROR(Spend(text.size() / 32));
  return text;
}

StatusOr<std::shared_ptr<const List>> Interpreter::Items(const Value& value) {
  if (value.sequence() != nullptr) return value.Items();
  if (const MarkedText* text = value.text()) {
    // Each character becomes a value of its own.
    TESSERA_RETURN_IF_ERROR(Spend(text->size() / 4));
    TESSERA_RETURN_IF_ERROR(ReserveItems(4 * text->Length()));
  } else if (const Dict* dict = value.dict()) {
    TESSERA_RETURN_IF_ERROR(ReserveItems(dict->items.size()));
  }
  std::shared_ptr<const List> items = value.Items();
  if (items == nullptr) return Fail(absl::StrCat("'", value.TypeName(), "' cannot be iterated"));
  return items;
}

Status Interpreter::CheckHashable(const Value& value) {
  TESSERA_RETURN_IF_ERROR(Spend(value.extent().weight / 8));
  if (value.IsHashable()) return absl::OkStatus();
  return Fail(absl::StrCat("a ", value.TypeName(), " can be no key"));
}

StatusOr<bool> Interpreter::Equal(const Value& a, const Value& b) {
  const uint64_t weight = std::min(a.extent().weight, b.extent().weight);
  TESSERA_RETURN_IF_ERROR(Spend(weight / 8));
  return a.Equals(b);
}

StatusOr<bool> Interpreter::Ordered(absl::string_view op, const Value& a, const Value& b) {
  const std::optional<double> x = a.number();
  const std::optional<double> y = b.number();
  if (x && y && (*x != *x || *y != *y)) return false;
  // Each level of nested lists is compared twice: for equality, then for order.
  const Extent p = a.extent();
  const Extent q = b.extent();
  TESSERA_RETURN_IF_ERROR(Spend(std::min(p.weight, q.weight) / 8 * std::min(p.depth, q.depth)));
  const std::optional<int> order = a.Compare(b);
  if (!order) {
    if (a.is_undefined() || b.is_undefined()) {
      return Fail((a.is_undefined() ? a : b).As<Undefined>()->hint);
    }
    return Fail(absl::StrCat("'", op, "' not supported between instances of '", a.TypeName(),
                             "' and '", b.TypeName(), "'"));
  }
  if (op == "<") return *order < 0;
  if (op == "<=") return *order <= 0;
  if (op == ">") return *order > 0;
  return *order >= 0;
}

StatusOr<bool> Interpreter::Contains(const Value& container, const Value& value) {
  if (const MarkedText* text = container.text()) {
    if (value.text() == nullptr) {
      return Fail(
          absl::StrCat("'in <string>' requires string as left operand, not ", value.TypeName()));
    }
    TESSERA_RETURN_IF_ERROR(Spend(text->size() / 256));
    return absl::string_view(text->bytes()).find(value.text()->bytes()) != absl::string_view::npos;
  }
  if (const Dict* dict = container.dict()) {
    TESSERA_RETURN_IF_ERROR(CheckHashable(value));
    TESSERA_RETURN_IF_ERROR(Spend(value.text() != nullptr ? 0 : dict->items.size() / 4));
    return dict->Find(value) != nullptr;
  }
  if (container.sequence() == nullptr && !container.is_undefined()) {
    return Fail(absl::StrCat("a value of type '", container.TypeName(), "' contains nothing"));
  }
  TESSERA_ASSIGN_OR_RETURN(const std::shared_ptr<const List> items, Items(container));
  TESSERA_RETURN_IF_ERROR(Spend(items->size() / 8));
  for (const Value& item : *items) {
    TESSERA_ASSIGN_OR_RETURN(const bool equal, Equal(item, value));
    if (equal) return true;
  }
  return false;
}

StatusOr<Value> Interpreter::Attribute(const Value& object, absl::string_view name) {
  if (object.is_undefined()) return Fail(object.As<Undefined>()->hint);
  if (!name.empty() && name[0] == '_') {
    return Fail(absl::StrCat("the attribute '", name.substr(0, 80),
                             "' starts with an underscore, which templates may not read"));
  }
  if (const Builtin* method = FindMethod(object, name)) return Bound(object, *method);
  if (const Dict* dict = object.dict()) {
    if (const Value* value = dict->Find(name)) return *value;
  } else if (const Namespace* names = object.names()) {
    TESSERA_RETURN_IF_ERROR(Spend(names->fields.size() / 16));
    if (const Value* value = names->Find(name)) return *value;
  } else if (const Loop* loop = object.loop()) {
    if (std::optional<Value> field = LoopField(*loop, name)) return *std::move(field);
  } else if (const jinja::Sequence* group = object.sequence();
             group != nullptr && group->kind == SequenceKind::kGroup) {
    if (name == "grouper") return group->items->at(0);
    if (name == "list") return group->items->at(1);
  }
  return Missing(object, name);
}

StatusOr<Value> Interpreter::Item(const Value& object, const Value& key) {
  if (object.is_undefined()) return Fail(object.As<Undefined>()->hint);
  const MarkedText* name = key.text();
  if (const Dict* dict = object.dict()) {
    TESSERA_RETURN_IF_ERROR(Spend(name != nullptr ? 0 : dict->items.size() / 4));
    if (const Value* value = dict->Find(key)) return *value;
  } else if (const std::optional<int64_t> index = key.integer()) {
    const MarkedText* text = object.text();
    const jinja::Sequence* sequence = object.sequence();
    const bool indexed = sequence != nullptr && sequence->kind <= SequenceKind::kGroup;
    if (text == nullptr && !indexed) return Missing(object, absl::StrCat(*index));
    if (text != nullptr) TESSERA_RETURN_IF_ERROR(Spend(text->size() / 256));
    const auto count =
        static_cast<int64_t>(text != nullptr ? text->Length() : sequence->items->size());
    const int64_t at = *index < 0 ? *index + count : *index;
    if (at < 0 || at >= count) {
      return Value::MakeUndefined(
          absl::StrCat("'", object.TypeName(), " object' has no item ", *index));
    }
    if (text == nullptr) return (*sequence->items)[at];
    const size_t begin = text->ByteOf(at);
    size_t end = begin + 1;
    while (end < text->size() && (text->bytes()[end] & 0xC0) == 0x80) ++end;
    return Value::Text(text->Substr(begin, end - begin));
  }
  if (name != nullptr) {
    if (object.dict() == nullptr) return Attribute(object, name->bytes());
    if (const Builtin* method = FindMethod(object, name->bytes())) return Bound(object, *method);
    return Missing(object, name->bytes());
  }
  return Missing(object, key.Repr(80).bytes());
}

StatusOr<Value> Interpreter::CallValue(const Value& callee, const Call& call) {
  const Nested nested(this);
  TESSERA_RETURN_IF_ERROR(nested.Check());
  if (const Function* function = callee.function()) return function->call(*this, call);
  if (const Loop* loop = callee.loop()) return CallLoop(*loop, call);
  if (callee.is_undefined()) return Fail(callee.As<Undefined>()->hint);
  return Fail(absl::StrCat("'", callee.TypeName(), "' object is not callable"));
}

StatusOr<Value> Interpreter::Filter(absl::string_view name, const Value& value, const Call& call) {
  const Builtin* filter = FindFilter(name);
  if (filter == nullptr) return Fail(absl::StrCat("no filter named '", name.substr(0, 80), "'"));
  const Nested nested(this);
  TESSERA_RETURN_IF_ERROR(nested.Check());
  return Invoke(*this, *filter, value, call);
}

StatusOr<bool> Interpreter::Test(absl::string_view name, const Value& value, const Call& call) {
  const Builtin* test = FindTest(name);
  if (test == nullptr) return Fail(absl::StrCat("no test named '", name.substr(0, 80), "'"));
  TESSERA_ASSIGN_OR_RETURN(const Value result, Invoke(*this, *test, value, call));
  return result.Truth();
}

}  // namespace tessera::server::jinja
