// The tests behind "is".
#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "server/text/jinja/builtins.h"
#include "server/text/jinja/operators.h"
#include "server/text/jinja/text_ops.h"

namespace tessera::server::jinja {
namespace {

using Predicate = bool (*)(const Value&);

template <Predicate kPredicate>
StatusOr<Value> Is(Interpreter&, const Value& self, const BoundArgs&) {
  return Value::Bool(kPredicate(self));
}

bool IsDefined(const Value& v) { return !v.is_undefined(); }
bool IsUndefined(const Value& v) { return v.is_undefined(); }
bool IsNone(const Value& v) { return v.is_none(); }
bool IsBoolean(const Value& v) { return v.As<bool>() != nullptr; }
bool IsTrue(const Value& v) { return v.As<bool>() != nullptr && *v.As<bool>(); }
bool IsFalse(const Value& v) { return v.As<bool>() != nullptr && !*v.As<bool>(); }
bool IsInteger(const Value& v) { return v.As<int64_t>() != nullptr; }
bool IsFloat(const Value& v) { return v.As<double>() != nullptr; }
bool IsNumber(const Value& v) { return v.number().has_value(); }
bool IsString(const Value& v) { return v.text() != nullptr; }
bool IsMapping(const Value& v) { return v.dict() != nullptr; }
bool IsIterable(const Value& v) {
  return v.is_undefined() || v.text() || v.sequence() || v.dict() || v.loop();
}
bool IsSequence(const Value& v) {
  if (const Sequence* s = v.sequence()) return s->kind <= SequenceKind::kGroup;
  return v.is_undefined() || v.text() || v.dict();
}
bool IsCallable(const Value& v) { return v.function() || v.loop() || v.is_undefined(); }
bool IsEscaped(const Value&) { return false; }
bool IsFilter(const Value& v) { return v.text() && FindFilter(v.text()->bytes()); }
bool IsTest(const Value& v) { return v.text() && FindTest(v.text()->bytes()); }

template <bool (*kOf)(absl::string_view)>
StatusOr<Value> IfText(Interpreter& interpreter, const Value& self, const BoundArgs&) {
  TESSERA_ASSIGN_OR_RETURN(const MarkedText text, interpreter.Str(self));
  TESSERA_RETURN_IF_ERROR(interpreter.Spend(text.size() / 64));
  return Value::Bool(kOf(text.bytes()));
}

StatusOr<bool> Divides(Interpreter& interpreter, const Value& self, const Value& divisor) {
  TESSERA_ASSIGN_OR_RETURN(const Value rest, Apply(interpreter, "%", self, divisor));
  return rest.Equals(Value::Int(0));
}

template <int kRest>
StatusOr<Value> Parity(Interpreter& interpreter, const Value& self, const BoundArgs&) {
  TESSERA_ASSIGN_OR_RETURN(const Value rest, Apply(interpreter, "%", self, Value::Int(2)));
  return Value::Bool(rest.Equals(Value::Int(kRest)));
}

StatusOr<Value> DivisibleBy(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  TESSERA_ASSIGN_OR_RETURN(const bool divides, Divides(interpreter, self, *args[0]));
  return Value::Bool(divides);
}

StatusOr<Value> EqualTo(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  TESSERA_ASSIGN_OR_RETURN(const bool equal, interpreter.Equal(self, *args[0]));
  return Value::Bool(equal);
}

StatusOr<Value> NotEqualTo(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  TESSERA_ASSIGN_OR_RETURN(const bool equal, interpreter.Equal(self, *args[0]));
  return Value::Bool(!equal);
}

constexpr absl::string_view kOrders[] = {"<", "<=", ">", ">="};

template <size_t kOrder>
StatusOr<Value> InOrder(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  TESSERA_ASSIGN_OR_RETURN(const bool holds, interpreter.Ordered(kOrders[kOrder], self, *args[0]));
  return Value::Bool(holds);
}

StatusOr<Value> In(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  TESSERA_ASSIGN_OR_RETURN(const bool contains, interpreter.Contains(*args[0], self));
  return Value::Bool(contains);
}

// Whether both are the same object: of scalars, whether they are alike.
StatusOr<Value> SameAs(Interpreter& interpreter, const Value& self, const BoundArgs& args) {
  const Value& other = *args[0];
  if (self.sequence() && other.sequence()) {
    return Value::Bool(self.sequence()->items == other.sequence()->items);
  }
  if (self.dict() || other.dict()) return Value::Bool(self.dict() == other.dict());
  if (absl::string_view(self.TypeName()) != other.TypeName()) return Value::Bool(false);
  TESSERA_ASSIGN_OR_RETURN(const bool equal, interpreter.Equal(self, other));
  return Value::Bool(equal);
}

constexpr Builtin kTests[] = {
    {"defined", Is<IsDefined>},
    {"undefined", Is<IsUndefined>},
    {"none", Is<IsNone>},
    {"boolean", Is<IsBoolean>},
    {"true", Is<IsTrue>},
    {"false", Is<IsFalse>},
    {"integer", Is<IsInteger>},
    {"float", Is<IsFloat>},
    {"number", Is<IsNumber>},
    {"string", Is<IsString>},
    {"mapping", Is<IsMapping>},
    {"iterable", Is<IsIterable>},
    {"sequence", Is<IsSequence>},
    {"callable", Is<IsCallable>},
    {"escaped", Is<IsEscaped>},
    {"filter", Is<IsFilter>},
    {"test", Is<IsTest>},
    {"lower", IfText<IsLower>},
    {"upper", IfText<IsUpper>},
    {"even", Parity<0>},
    {"odd", Parity<1>},
    {"divisibleby", DivisibleBy, "num"},
    {"sameas", SameAs, "other"},
    {"in", In, "seq"},
    {"eq", EqualTo, "other"},
    {"equalto", EqualTo, "other"},
    {"==", EqualTo, "other"},
    {"ne", NotEqualTo, "other"},
    {"!=", NotEqualTo, "other"},
    {"lt", InOrder<0>, "other"},
    {"lessthan", InOrder<0>, "other"},
    {"<", InOrder<0>, "other"},
    {"le", InOrder<1>, "other"},
    {"<=", InOrder<1>, "other"},
    {"gt", InOrder<2>, "other"},
    {"greaterthan", InOrder<2>, "other"},
    {">", InOrder<2>, "other"},
    {"ge", InOrder<3>, "other"},
    {">=", InOrder<3>, "other"},
};

}  // namespace

const Builtin* FindTest(absl::string_view name) {
  static const auto& table = *[] {
    auto* made = new absl::flat_hash_map<absl::string_view, const Builtin*>;
    for (const Builtin& test : kTests) made->emplace(test.name, &test);
    return made;
  }();
  const auto found = table.find(name);
  return found == table.end() ? nullptr : found->second;
}

}  // namespace tessera::server::jinja
