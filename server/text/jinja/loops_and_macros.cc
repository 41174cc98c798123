// Interpreter: what runs a body more than once.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/text/jinja/interpreter.h"

namespace tessera::server::jinja {

Status Interpreter::ExecFor(const Node& node) {
  TESSERA_ASSIGN_OR_RETURN(const Value iterable, Eval(*node.expr));
  return ExecLoop(node, iterable, scope_, 1);
}

// The items that a loop's inline "if" leaves.
StatusOr<std::shared_ptr<const List>> Interpreter::Selected(const Node& node, const Value& iterable,
                                                            Scope* outer) {
  TESSERA_ASSIGN_OR_RETURN(std::shared_ptr<const List> items, Items(iterable));
  if (node.condition == nullptr) return items;
  List selected;
  Scope* before = scope_;
  auto inner = std::make_unique<Scope>();
  inner->parent = outer;
  Status status;
  for (const Value& item : *items) {
    scope_ = inner.get();
    status = Assign(node.target, item);
    StatusOr<Value> keep = status.ok() ? Eval(*node.condition) : StatusOr<Value>(status);
    scope_ = before;
    status = keep.ok() ? ReserveItems(1) : keep.status();
    if (!status.ok()) break;
    if (keep->Truth()) selected.push_back(item);
  }
  Leave(std::move(inner));
  if (!status.ok()) return status;
  return std::make_shared<const List>(std::move(selected));
}

Status Interpreter::ExecLoop(const Node& node, const Value& iterable, Scope* outer, size_t depth) {
  auto loop = std::make_shared<Loop>();
  TESSERA_ASSIGN_OR_RETURN(loop->items, Selected(node, iterable, outer));
  loop->depth = depth;
  if (node.recursive) {
    loop->recursive = &node;
    loop->outer = outer;
    for (Scope* scope = outer; scope != nullptr; scope = scope->parent) scope->captured = true;
  }
  Scope* before = std::exchange(scope_, outer);
  const Status status =
      loop->items->empty() ? ExecInner(node.otherwise) : ExecIterations(node, loop, outer);
  scope_ = before;
  if (loop.use_count() > 1) kept_loops_.push_back(std::move(loop));
  return status;
}

Status Interpreter::ExecIterations(const Node& node, const std::shared_ptr<Loop>& loop,
                                   Scope* outer) {
  const std::shared_ptr<const List> items = loop->items;
  auto inner = std::make_unique<Scope>();
  Status status;
  for (size_t i = 0; i < items->size() && status.ok(); ++i) {
    if (inner->captured) {
      Leave(std::move(inner));
      inner = std::make_unique<Scope>();
    }
    inner->names.clear();
    inner->parent = outer;
    scope_ = inner.get();
    loop->index = i;
    status = Spend(1);
    if (status.ok()) status = Assign(node.target, (*items)[i]);
    inner->Set("loop", Value::MakeLoop(loop));
    if (status.ok()) status = Exec(node.body);
    if (std::exchange(flow_, Flow::kNext) == Flow::kBreak) break;
  }
  scope_ = outer;
  Leave(std::move(inner));
  return status;
}

StatusOr<Value> Interpreter::CallLoop(const Loop& loop, const Call& call) {
  if (loop.recursive == nullptr) {
    return Fail("loop(…) needs a loop that is marked recursive");
  }
  if (call.args.size() != 1 || !call.named.empty()) return Fail("loop(…) takes one argument");
  const Nested nested(this);
  TESSERA_RETURN_IF_ERROR(nested.Check());
  Capture capture(this);
  TESSERA_RETURN_IF_ERROR(ExecLoop(*loop.recursive, call.args[0], loop.outer, loop.depth + 1));
  return Value::Text(std::move(capture.text()));
}

Value Interpreter::MakeMacro(const Node& node) {
  Scope* outer = scope_;
  for (Scope* scope = outer; scope != nullptr; scope = scope->parent) scope->captured = true;
  return Value::MakeFunction({node.kind == NodeKind::kCallBlock ? "caller" : node.text,
                              [&node, outer](Interpreter& interpreter, const Call& call) {
                                return interpreter.CallMacro(node, outer, call);
                              }});
}

StatusOr<Value> Interpreter::CallMacro(const Node& node, Scope* outer, const Call& call) {
  const Nested nested(this);
  TESSERA_RETURN_IF_ERROR(nested.Check());
  auto inner = std::make_unique<Scope>();
  inner->parent = outer;
  Scope* before = std::exchange(scope_, inner.get());
  const Flow flow = std::exchange(flow_, Flow::kNext);
  Capture capture(this);
  Status status = BindMacro(node, call);
  if (status.ok()) status = Exec(node.body);
  flow_ = flow;
  scope_ = before;
  Leave(std::move(inner));
  if (!status.ok()) return status;
  return Value::Text(std::move(capture.text()));
}

// Sets the parameters in the macro's scope, which is the current one.
Status Interpreter::BindMacro(const Node& node, const Call& call) {
  absl::string_view name = "caller";
  if (node.kind == NodeKind::kMacro) name = node.text;
  const size_t count = node.parameters.size();
  if (call.args.size() > count && !node.takes_varargs) {
    return Fail(absl::StrCat("macro '", name, "' takes not more than ", count, " argument(s)"));
  }
  Dict others;
  for (const auto& named : call.named) {
    const std::string& key = named.first;
    const Value& value = named.second;
    const auto at = std::find_if(node.parameters.begin(), node.parameters.end(),
                                 [&](const Parameter& p) { return p.name == key; });
    if (at == node.parameters.end()) {
      if (key == "caller" && node.takes_caller) {
        scope_->Set("caller", value);
      } else if (node.takes_kwargs) {
        others.Set(Value::Text(key), value);
      } else {
        return Fail(absl::StrCat("macro '", name, "' takes no argument '", key, "'"));
      }
    } else if (static_cast<size_t>(at - node.parameters.begin()) < call.args.size()) {
      return Fail(absl::StrCat("macro '", name, "' got two values for '", key, "'"));
    }
  }
  if (node.takes_caller && scope_->Find("caller") == nullptr) {
    scope_->Set("caller", Value::MakeUndefined("No caller defined"));
  }
  for (size_t i = 0; i < count; ++i) {
    const Parameter& parameter = node.parameters[i];
    const Value* given = call.Find(i, parameter.name);
    if (given != nullptr) {
      scope_->Set(parameter.name, *given);
    } else if (parameter.fallback != nullptr) {
      TESSERA_ASSIGN_OR_RETURN(Value value, Eval(*parameter.fallback));
      scope_->Set(parameter.name, std::move(value));
    } else {
      scope_->Set(parameter.name, Value::MakeUndefined(absl::StrCat("parameter '", parameter.name,
                                                                    "' was not provided")));
    }
  }
  if (node.takes_varargs) {
    List rest;
    if (call.args.size() > count) rest.assign(call.args.begin() + count, call.args.end());
    TESSERA_ASSIGN_OR_RETURN(Value value, MakeSequence(SequenceKind::kTuple, std::move(rest)));
    scope_->Set("varargs", std::move(value));
  }
  if (node.takes_kwargs) {
    TESSERA_ASSIGN_OR_RETURN(Value value, MakeDict(std::move(others)));
    scope_->Set("kwargs", std::move(value));
  }
  return absl::OkStatus();
}

Status Interpreter::ExecCallBlock(const Node& node) {
  const Expr& expr = *node.expr;
  TESSERA_ASSIGN_OR_RETURN(const Value callee, Eval(*expr.children[0]));
  TESSERA_ASSIGN_OR_RETURN(Call call, EvalArguments(expr.arguments));
  call.named.emplace_back("caller", MakeMacro(node));
  TESSERA_ASSIGN_OR_RETURN(const Value text, CallValue(callee, call));
  return WriteValue(text);
}

}  // namespace tessera::server::jinja
