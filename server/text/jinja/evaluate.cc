// Interpreter: expressions.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/text/jinja/builtins.h"
#include "server/text/jinja/interpreter.h"
#include "server/text/jinja/operators.h"

namespace tessera::server::jinja {
namespace {

Value GlobalFunction(const Builtin& builtin) {
  return Value::MakeFunction(
      {std::string(builtin.name), [&builtin](Interpreter& interpreter, const Call& call) {
         return Invoke(interpreter, builtin, Value(), call);
       }});
}

bool IsJoin(const Expr& expr) {
  return expr.kind == ExprKind::kBinary && (expr.name == "+" || expr.name == "~");
}

bool IsPlainText(const Value& value) { return value.text() != nullptr && !value.text()->is_html(); }

}  // namespace

StatusOr<Value> Interpreter::Eval(const Expr& expr) {
  const Nested nested(this);
  TESSERA_RETURN_IF_ERROR(nested.Check());
  StatusOr<Value> value = EvalKind(expr);
  if (!value.ok() && error_line_ == 0) error_line_ = expr.line;
  return value;
}

StatusOr<Value> Interpreter::EvalKind(const Expr& expr) {
  TESSERA_RETURN_IF_ERROR(Spend(1));
  switch (expr.kind) {
    case ExprKind::kLiteral:
      return expr.value;
    case ExprKind::kName:
      return EvalName(expr);
    case ExprKind::kList:
      return EvalItems(expr, SequenceKind::kList);
    case ExprKind::kTuple:
      return EvalItems(expr, SequenceKind::kTuple);
    case ExprKind::kDict:
      return EvalDict(expr);
    case ExprKind::kAttribute: {
      TESSERA_ASSIGN_OR_RETURN(const Value object, Eval(*expr.children[0]));
      return Attribute(object, expr.name);
    }
    case ExprKind::kIndex: {
      TESSERA_ASSIGN_OR_RETURN(const Value object, Eval(*expr.children[0]));
      TESSERA_ASSIGN_OR_RETURN(const Value key, Eval(*expr.children[1]));
      return Item(object, key);
    }
    case ExprKind::kSlice:
      return EvalSlice(expr);
    case ExprKind::kCall:
      return EvalCall(expr);
    case ExprKind::kFilter:
      return EvalFilter(expr);
    case ExprKind::kTest: {
      TESSERA_ASSIGN_OR_RETURN(const Value value, Eval(*expr.children[0]));
      TESSERA_ASSIGN_OR_RETURN(const Call call, EvalArguments(expr.arguments));
      TESSERA_ASSIGN_OR_RETURN(const bool result, Test(expr.name, value, call));
      return Value::Bool(result);
    }
    case ExprKind::kUnary:
      return EvalUnary(expr);
    case ExprKind::kBinary:
      return EvalBinary(expr);
    case ExprKind::kCompare:
      return EvalCompare(expr);
    case ExprKind::kCondition:
      return EvalCondition(expr);
  }
  return Value();
}

StatusOr<const Value*> Interpreter::Lookup(absl::string_view name) {
  size_t names = 0;
  const Value* value = nullptr;
  for (const Scope* scope = scope_; scope != nullptr && value == nullptr; scope = scope->parent) {
    names += scope->names.size();
    value = scope->Find(name);
  }
  TESSERA_RETURN_IF_ERROR(Spend(names / 32));
  return value;
}

StatusOr<Value> Interpreter::EvalName(const Expr& expr) {
  TESSERA_ASSIGN_OR_RETURN(const Value* value, Lookup(expr.name));
  if (value != nullptr) return *value;
  if (const Builtin* global = FindGlobal(expr.name)) return GlobalFunction(*global);
  return Value::MakeUndefined(absl::StrCat("'", expr.name, "' is undefined"));
}

StatusOr<Value> Interpreter::EvalItems(const Expr& expr, SequenceKind kind) {
  List items;
  items.reserve(expr.children.size());
  for (const ExprPtr& child : expr.children) {
    TESSERA_ASSIGN_OR_RETURN(Value item, Eval(*child));
    items.push_back(std::move(item));
  }
  return MakeSequence(kind, std::move(items));
}

StatusOr<Value> Interpreter::EvalDict(const Expr& expr) {
  Dict dict;
  for (size_t i = 0; i + 1 < expr.children.size(); i += 2) {
    TESSERA_ASSIGN_OR_RETURN(Value key, Eval(*expr.children[i]));
    TESSERA_ASSIGN_OR_RETURN(Value value, Eval(*expr.children[i + 1]));
    if (key.text() == nullptr && !key.number() && !key.is_none()) {
      return Fail(absl::StrCat("a ", key.TypeName(), " cannot be a dict's key"));
    }
    TESSERA_RETURN_IF_ERROR(Spend(dict.items.size() / 8));
    dict.Set(std::move(key), std::move(value));
  }
  return MakeDict(std::move(dict));
}

StatusOr<Value> Interpreter::EvalSlice(const Expr& expr) {
  TESSERA_ASSIGN_OR_RETURN(const Value object, Eval(*expr.children[0]));
  Value bounds[3];
  const Value* given[3] = {};
  for (size_t i = 0; i < 3; ++i) {
    const Expr* bound = expr.children[i + 1].get();
    if (bound == nullptr) continue;
    TESSERA_ASSIGN_OR_RETURN(bounds[i], Eval(*bound));
    if (!bounds[i].is_none()) given[i] = &bounds[i];
  }
  return Slice(*this, object, given[0], given[1], given[2]);
}

StatusOr<Call> Interpreter::EvalArguments(const Arguments& arguments) {
  Call call;
  call.args.reserve(arguments.positional.size());
  for (const ExprPtr& argument : arguments.positional) {
    TESSERA_ASSIGN_OR_RETURN(Value value, Eval(*argument));
    call.args.push_back(std::move(value));
  }
  for (const auto& [name, argument] : arguments.named) {
    if (call.Find(SIZE_MAX, name) != nullptr) {
      return Fail(absl::StrCat("argument '", name, "' is given twice"));
    }
    TESSERA_RETURN_IF_ERROR(Spend(call.named.size() / 8));
    TESSERA_ASSIGN_OR_RETURN(Value value, Eval(*argument));
    call.named.emplace_back(name, std::move(value));
  }
  return call;
}

StatusOr<Value> Interpreter::EvalCall(const Expr& expr) {
  const Expr& callee = *expr.children[0];
  if (callee.kind == ExprKind::kAttribute) {
    TESSERA_ASSIGN_OR_RETURN(const Value object, Eval(*callee.children[0]));
    TESSERA_ASSIGN_OR_RETURN(const Call call, EvalArguments(expr.arguments));
    if (const Builtin* method = FindMethod(object, callee.name)) {
      return Invoke(*this, *method, object, call);
    }
    TESSERA_ASSIGN_OR_RETURN(const Value value, Attribute(object, callee.name));
    return CallValue(value, call);
  }
  if (callee.kind == ExprKind::kName) {
    TESSERA_ASSIGN_OR_RETURN(const Value* own, Lookup(callee.name));
    const Builtin* global = own == nullptr ? FindGlobal(callee.name) : nullptr;
    if (global != nullptr) {
      TESSERA_ASSIGN_OR_RETURN(const Call call, EvalArguments(expr.arguments));
      return Invoke(*this, *global, Value(), call);
    }
  }
  TESSERA_ASSIGN_OR_RETURN(const Value value, Eval(callee));
  TESSERA_ASSIGN_OR_RETURN(const Call call, EvalArguments(expr.arguments));
  return CallValue(value, call);
}

StatusOr<Value> Interpreter::EvalFilter(const Expr& expr) {
  Value value;
  if (expr.children.empty()) {
    value = *block_text_;
  } else {
    TESSERA_ASSIGN_OR_RETURN(value, Eval(*expr.children[0]));
  }
  TESSERA_ASSIGN_OR_RETURN(const Call call, EvalArguments(expr.arguments));
  return Filter(expr.name, value, call);
}

StatusOr<Value> Interpreter::EvalUnary(const Expr& expr) {
  TESSERA_ASSIGN_OR_RETURN(const Value value, Eval(*expr.children[0]));
  if (expr.name == "not") return Value::Bool(!value.Truth());
  if (const double* number = value.As<double>()) {
    return Value::Float(expr.name == "-" ? -*number : *number);
  }
  return Apply(*this, expr.name, Value::Int(0), value);
}

StatusOr<Value> Interpreter::EvalBinary(const Expr& expr) {
  if (IsJoin(expr)) return EvalJoined(expr);
  TESSERA_ASSIGN_OR_RETURN(Value left, Eval(*expr.children[0]));
  if (expr.name == "and" || expr.name == "or") {
    if (left.Truth() == (expr.name == "or")) return left;
    return Eval(*expr.children[1]);
  }
  TESSERA_ASSIGN_OR_RETURN(const Value right, Eval(*expr.children[1]));
  return Apply(*this, expr.name, left, right);
}

// a + b + c of plain texts is written into one text, so that long chains cost what they write.
StatusOr<Value> Interpreter::EvalJoined(const Expr& expr) {
  std::vector<const Expr*> chain;
  const Expr* first = &expr;
  for (; IsJoin(*first); first = first->children[0].get()) chain.push_back(first);
  TESSERA_ASSIGN_OR_RETURN(Value value, Eval(*first));
  MarkedText joined;
  bool joining = false;  // what `joined` holds has taken the place of `value`
  for (auto link = chain.rbegin(); link != chain.rend(); ++link) {
    TESSERA_RETURN_IF_ERROR(Spend(1));
    TESSERA_ASSIGN_OR_RETURN(const Value right, Eval(*(*link)->children[1]));
    if ((joining || IsPlainText(value)) && IsPlainText(right)) {
      if (!joining) joined = *value.text();
      TESSERA_RETURN_IF_ERROR(
          ReserveText(joining ? right.text()->size() : joined.size() + right.text()->size()));
      if (joined.size() + right.text()->size() > limits_.text_bytes) {
        return ReserveText(limits_.text_bytes + 1);
      }
      joining = true;
      joined.Append(*right.text());
      continue;
    }
    if (joining) value = Value::Text(std::move(joined));
    joining = false;
    StatusOr<Value> next = Apply(*this, (*link)->name, value, right);
    if (!next.ok()) {
      if (error_line_ == 0) error_line_ = (*link)->line;
      return next.status();
    }
    value = *std::move(next);
  }
  return joining ? Value::Text(std::move(joined)) : std::move(value);
}

StatusOr<Value> Interpreter::EvalCompare(const Expr& expr) {
  TESSERA_ASSIGN_OR_RETURN(Value left, Eval(*expr.children[0]));
  for (size_t i = 0; i < expr.ops.size(); ++i) {
    TESSERA_ASSIGN_OR_RETURN(Value right, Eval(*expr.children[i + 1]));
    TESSERA_ASSIGN_OR_RETURN(const bool result, CompareOnce(expr.ops[i], left, right));
    if (!result) return Value::Bool(false);
    left = std::move(right);
  }
  return Value::Bool(true);
}

StatusOr<bool> Interpreter::CompareOnce(absl::string_view op, const Value& a, const Value& b) {
  if (op == "==" || op == "!=") {
    TESSERA_ASSIGN_OR_RETURN(const bool equal, Equal(a, b));
    return equal == (op == "==");
  }
  if (op == "in" || op == "not in") {
    TESSERA_ASSIGN_OR_RETURN(const bool contains, Contains(b, a));
    return contains == (op == "in");
  }
  return Ordered(op, a, b);
}

StatusOr<Value> Interpreter::EvalCondition(const Expr& expr) {
  TESSERA_ASSIGN_OR_RETURN(const Value test, Eval(*expr.children[1]));
  if (test.Truth()) return Eval(*expr.children[0]);
  if (expr.children[2] != nullptr) return Eval(*expr.children[2]);
  return Value::MakeUndefined("the inline if-expression was false and has no else");
}

}  // namespace tessera::server::jinja
