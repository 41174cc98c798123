// Filters on lists and dicts.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/text/jinja/attributes.h"
#include "server/text/jinja/builtins.h"
#include "server/text/jinja/operators.h"
#include "server/text/jinja/text_builtins.h"

namespace tessera::server::jinja {
namespace {

StatusOr<Value> LengthFilter(Interpreter&, const Value& self, const BoundArgs&) {
  if (const std::optional<size_t> length = self.Length()) {
    return Value::Int(static_cast<int64_t>(*length));
  }
  return Interpreter::Fail(absl::StrCat("object of type '", self.TypeName(), "' has no length"));
}

StatusOr<Value> First(Interpreter& interpreter, const Value& self, const BoundArgs&) {
  TESSERA_ASSIGN_OR_RETURN(const auto items, interpreter.Items(self));
  if (items->empty()) return Value::MakeUndefined("no first item, the sequence is empty");
  return items->front();
}

StatusOr<Value> Last(Interpreter& interpreter, const Value& self, const BoundArgs&) {
  TESSERA_ASSIGN_OR_RETURN(const auto items, interpreter.Items(self));
  if (items->empty()) return Value::MakeUndefined("no last item, the sequence is empty");
  return items->back();
}

StatusOr<Value> ListFilter(Interpreter& interpreter, const Value& self, const BoundArgs&) {
  TESSERA_ASSIGN_OR_RETURN(const auto items, interpreter.Items(self));
  return interpreter.MakeList(*items);
}

StatusOr<Value> Join(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  TESSERA_ASSIGN_OR_RETURN(std::shared_ptr<const List> items, interpreter.Items(self));
  MarkedText separator;
  if (args[0] != nullptr) {
    TESSERA_ASSIGN_OR_RETURN(separator, interpreter.Str(*args[0]));
  }
  if (args[1] != nullptr && !args[1]->is_none()) {
    TESSERA_ASSIGN_OR_RETURN(items, AttributeOfEach(interpreter, *items, *args[1], nullptr));
  }
  return JoinItems(interpreter, *items, separator);
}

StatusOr<Value> ItemsFilter(Interpreter& interpreter, const Value& self, const BoundArgs&) {
  if (self.is_undefined()) return interpreter.MakeSequence(SequenceKind::kGenerator, {});
  if (self.dict() == nullptr) {
    return Interpreter::Fail("items takes its pairs from a mapping only");
  }
  return DictItems(interpreter, *self.dict(), SequenceKind::kGenerator);
}

StatusOr<Value> Default(Interpreter&, const Value& self, const BoundArgs& args) {
  if (!self.is_undefined() && (!args.Truth(1, false) || self.Truth())) return self;
  return args[0] == nullptr ? Value::Text("") : *args[0];
}

StatusOr<Value> Reverse(Interpreter& interpreter, const Value& self, const BoundArgs&) {
  TESSERA_ASSIGN_OR_RETURN(const auto items, interpreter.Items(self));
  List reversed(items->rbegin(), items->rend());
  if (self.text() == nullptr) {
    return interpreter.MakeSequence(SequenceKind::kGenerator, std::move(reversed));
  }
  return JoinItems(interpreter, reversed, MarkedText());
}

StatusOr<Value> Attr(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  TESSERA_ASSIGN_OR_RETURN(const MarkedText name, interpreter.Str(*args[0]));
  // Unlike a dot: never an item of a dict.
  if (self.dict() != nullptr && FindMethod(self, name.bytes()) == nullptr) {
    return Value::MakeUndefined(absl::StrCat("a dict has no attribute '", name.bytes(), "'"));
  }
  return interpreter.Attribute(self, name.bytes());
}

StatusOr<Value> Batch(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  TESSERA_ASSIGN_OR_RETURN(const auto items, interpreter.Items(self));
  TESSERA_ASSIGN_OR_RETURN(const int64_t count, IntegerArg(args[0], 0, "batch's linecount"));
  if (count < 1) return Interpreter::Fail("batch's linecount must be positive");
  const bool fill = args[1] != nullptr && !args[1]->is_none();
  List batches;
  for (size_t i = 0; i < items->size(); i += static_cast<size_t>(count)) {
    const size_t end = std::min(items->size(), i + static_cast<size_t>(count));
    List batch(items->begin() + static_cast<ptrdiff_t>(i),
               items->begin() + static_cast<ptrdiff_t>(end));
    if (fill && batch.size() < static_cast<size_t>(count)) {
      TESSERA_RETURN_IF_ERROR(interpreter.ReserveItems(static_cast<size_t>(count)));
      batch.resize(static_cast<size_t>(count), *args[1]);
    }
    TESSERA_ASSIGN_OR_RETURN(Value value, interpreter.MakeList(std::move(batch)));
    batches.push_back(std::move(value));
    if (end == items->size()) break;
  }
  return interpreter.MakeSequence(SequenceKind::kGenerator, std::move(batches));
}

StatusOr<Value> SliceFilter(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  TESSERA_ASSIGN_OR_RETURN(const auto items, interpreter.Items(self));
  TESSERA_ASSIGN_OR_RETURN(const int64_t slices, IntegerArg(args[0], 0, "slice's slices"));
  if (slices < 1) return Interpreter::Fail("slice's slices must be positive");
  TESSERA_RETURN_IF_ERROR(interpreter.ReserveItems(2 * static_cast<size_t>(slices)));
  const size_t each = items->size() / static_cast<size_t>(slices);
  const size_t longer = items->size() % static_cast<size_t>(slices);
  const bool fill = args[1] != nullptr && !args[1]->is_none();
  List columns;
  size_t pos = 0;
  for (size_t i = 0; i < static_cast<size_t>(slices); ++i) {
    const size_t size = each + (i < longer ? 1 : 0);
    List column(items->begin() + static_cast<ptrdiff_t>(pos),
                items->begin() + static_cast<ptrdiff_t>(pos + size));
    if (fill && i >= longer) column.push_back(*args[1]);
    pos += size;
    TESSERA_ASSIGN_OR_RETURN(Value value, interpreter.MakeList(std::move(column)));
    columns.push_back(std::move(value));
  }
  return interpreter.MakeSequence(SequenceKind::kGenerator, std::move(columns));
}

// map(attribute=…, default=…) or map("filter", arguments…).
StatusOr<Value> Map(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  if (!self.Truth()) return interpreter.MakeSequence(SequenceKind::kGenerator, {});
  TESSERA_ASSIGN_OR_RETURN(const auto items, interpreter.Items(self));
  const Call& call = *args.call;
  if (call.args.empty()) {
    const Value* attribute = call.Find(SIZE_MAX, "attribute");
    const Value* fallback = call.Find(SIZE_MAX, "default");
    if (attribute == nullptr || call.named.size() > (fallback == nullptr ? 1u : 2u)) {
      return Interpreter::Fail("map needs a filter's name, or attribute and perhaps default");
    }
    TESSERA_ASSIGN_OR_RETURN(const auto mapped,
                             AttributeOfEach(interpreter, *items, *attribute, fallback));
    return interpreter.MakeSequence(SequenceKind::kGenerator, *mapped);
  }
  TESSERA_ASSIGN_OR_RETURN(const MarkedText* name, TextArg(&call.args[0], "map's filter"));
  const Call rest{List(call.args.begin() + 1, call.args.end()), call.named};
  List mapped;
  for (const Value& item : *items) {
    TESSERA_RETURN_IF_ERROR(interpreter.Spend(1));
    TESSERA_ASSIGN_OR_RETURN(Value value, interpreter.Filter(name->bytes(), item, rest));
    mapped.push_back(std::move(value));
  }
  return interpreter.MakeSequence(SequenceKind::kGenerator, std::move(mapped));
}

enum class Keep { kTrue, kFalse };

// `first` is where the test's name stands among the arguments; without one, truth decides.
StatusOr<Value> Choose(Interpreter& interpreter, const Value& self, const Call& call, size_t first,
                       Keep keep) {
  if (!self.Truth()) return interpreter.MakeSequence(SequenceKind::kGenerator, {});
  TESSERA_ASSIGN_OR_RETURN(const auto items, interpreter.Items(self));
  const MarkedText* name = nullptr;
  Call rest;
  if (call.args.size() > first) {
    TESSERA_ASSIGN_OR_RETURN(name, TextArg(&call.args[first], "the test's name"));
    rest = Call{List(call.args.begin() + static_cast<ptrdiff_t>(first) + 1, call.args.end()),
                call.named};
  }
  List chosen;
  for (const Value& item : *items) {
    TESSERA_RETURN_IF_ERROR(interpreter.Spend(1));
    Value tested = item;
    if (first == 1) {
      TESSERA_ASSIGN_OR_RETURN(tested, AttributeOf(interpreter, item, call.args[0], nullptr));
    }
    bool holds = tested.Truth();
    if (name != nullptr) {
      TESSERA_ASSIGN_OR_RETURN(holds, interpreter.Test(name->bytes(), tested, rest));
    }
    if (holds == (keep == Keep::kTrue)) chosen.push_back(item);
  }
  return interpreter.MakeSequence(SequenceKind::kGenerator, std::move(chosen));
}

template <Keep kKeep>
StatusOr<Value> Select(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  return Choose(interpreter, self, *args.call, 0, kKeep);
}

template <Keep kKeep>
StatusOr<Value> SelectAttr(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  if (args.call->args.empty()) return Interpreter::Fail("the attribute's name is missing");
  return Choose(interpreter, self, *args.call, 1, kKeep);
}

StatusOr<Value> Sum(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  TESSERA_ASSIGN_OR_RETURN(std::shared_ptr<const List> items, interpreter.Items(self));
  if (args[0] != nullptr && !args[0]->is_none()) {
    TESSERA_ASSIGN_OR_RETURN(items, AttributeOfEach(interpreter, *items, *args[0], nullptr));
  }
  Value sum = args[1] == nullptr ? Value::Int(0) : *args[1];
  if (sum.text() != nullptr) return Interpreter::Fail("sum is not for strings; use join");
  for (const Value& item : *items) {
    TESSERA_RETURN_IF_ERROR(interpreter.Spend(1));
    TESSERA_ASSIGN_OR_RETURN(sum, Apply(interpreter, "+", sum, item));
  }
  return sum;
}

constexpr Builtin kListFilters[] = {
    {"length", LengthFilter},
    {"count", LengthFilter},
    {"first", First},
    {"last", Last},
    {"list", ListFilter},
    {"join", Join, "? d attribute"},
    {"items", ItemsFilter},
    {"d", Default, "? default_value boolean"},
    {"default", Default, "? default_value boolean"},
    {"reverse", Reverse},
    {"attr", Attr, "name"},
    {"batch", Batch, "linecount ? fill_with"},
    {"slice", SliceFilter, "slices ? fill_with"},
    {"map", Map, "*"},
    {"select", Select<Keep::kTrue>, "*"},
    {"reject", Select<Keep::kFalse>, "*"},
    {"selectattr", SelectAttr<Keep::kTrue>, "*"},
    {"rejectattr", SelectAttr<Keep::kFalse>, "*"},
    {"sum", Sum, "? attribute start"},
};

}  // namespace

std::span<const Builtin> ListFilters() { return kListFilters; }

}  // namespace tessera::server::jinja
