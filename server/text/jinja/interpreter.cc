#include "server/text/jinja/interpreter.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/text/jinja/builtins.h"
#include "server/text/jinja/lexer.h"

namespace tessera::server::jinja {
namespace {

Status Exhausted(std::string why) {
  return Error(absl::StatusCode::kResourceExhausted,
               {"chat template failed", "", std::move(why), ""});
}

}  // namespace

const Value* Scope::Find(absl::string_view name) const {
  for (const auto& [n, value] : names) {
    if (n == name) return &value;
  }
  return nullptr;
}

void Scope::Set(absl::string_view name, Value value) {
  for (auto& [n, old] : names) {
    if (n == name) {
      old = std::move(value);
      return;
    }
  }
  names.emplace_back(name, std::move(value));
}

Interpreter::Interpreter(const Limits& limits)
    : limits_(limits), steps_left_(limits.steps), built_left_(limits.built_bytes) {}

// Namespaces, loops and scopes can hold each other in cycles and long chains: each is emptied while
// the others still stand.
Interpreter::~Interpreter() {
  for (const auto& names : namespaces_) {
    const std::vector<std::pair<std::string, Value>> freed = std::move(names->fields);
    names->fields.clear();
  }
  for (const auto& loop : kept_loops_) {
    loop->items = nullptr;
    loop->last_changed = nullptr;
  }
  for (const auto& scope : kept_scopes_) scope->names.clear();
  root_.names.clear();
}

Status Interpreter::Nested::Check() const {
  if (interpreter_->depth_ <= interpreter_->limits_.depth) return absl::OkStatus();
  return Exhausted(absl::StrCat("calls and blocks are nested deeper than ",
                                interpreter_->limits_.depth, " levels"));
}

StatusOr<MarkedText> Interpreter::Run(const Body& body) {
  const Status status = Exec(body);
  if (status.ok()) return std::move(output_);
  const ErrorParts parts = PartsOf(status);
  const std::string where = error_line_ > 0 ? absl::StrCat("line ", error_line_) : "";
  return Error(status.code(), {refused_ ? "refused by the chat template" : "chat template failed",
                               where, parts.why.empty() ? parts.what : parts.why, ""});
}

Status Interpreter::Fail(std::string why) {
  return Error(absl::StatusCode::kInvalidArgument,
               {"chat template failed", "", std::move(why), ""});
}

Status Interpreter::Refuse(std::string why) {
  refused_ = true;
  return Fail(std::move(why));
}

Status Interpreter::Spend(size_t steps) {
  if (steps > steps_left_) {
    steps_left_ = 0;
    return Exhausted(absl::StrCat("it needs more than ", limits_.steps, " steps"));
  }
  steps_left_ -= steps;
  return absl::OkStatus();
}

Status Interpreter::ReserveText(size_t bytes) {
  if (bytes > limits_.text_bytes) {
    return Exhausted(absl::StrCat("a text or the output is longer than ", limits_.text_bytes,
                                  " bytes, which is 4 x the input and 64 KiB"));
  }
  if (bytes > built_left_) {
    built_left_ = 0;
    return Exhausted(absl::StrCat("the texts and lists on the way need more than ",
                                  limits_.built_bytes, " bytes"));
  }
  built_left_ -= bytes;
  return Spend(bytes / 512);
}

Status Interpreter::ReserveItems(size_t count) {
  TESSERA_RETURN_IF_ERROR(Spend(count / 4));
  const size_t bytes = count * sizeof(Value);
  if (bytes > built_left_) {
    built_left_ = 0;
    return Exhausted(absl::StrCat("the texts and lists on the way need more than ",
                                  limits_.built_bytes, " bytes"));
  }
  built_left_ -= bytes;
  return absl::OkStatus();
}

StatusOr<Value> Interpreter::MakeText(MarkedText text) {
  TESSERA_RETURN_IF_ERROR(ReserveText(text.size()));
  return Value::Text(std::move(text));
}

StatusOr<Value> Interpreter::MakeSequence(SequenceKind kind, List items) {
  TESSERA_RETURN_IF_ERROR(ReserveItems(items.size()));
  Value value = Value::MakeSequence(kind, std::move(items));
  if (value.extent().depth > kMaxValueDepth) return Fail("a list is nested too deeply");
  return value;
}

StatusOr<Value> Interpreter::MakeDict(Dict dict) {
  TESSERA_RETURN_IF_ERROR(ReserveItems(2 * dict.items.size()));
  Value value = Value::MakeDict(std::move(dict));
  if (value.extent().depth > kMaxValueDepth) return Fail("a dict is nested too deeply");
  return value;
}

Value Interpreter::NewNamespace(std::shared_ptr<Namespace> names) {
  namespaces_.push_back(names);
  return Value::MakeNamespace(std::move(names));
}

Status Interpreter::Write(const MarkedText& text) {
  TESSERA_RETURN_IF_ERROR(ReserveText(text.size()));
  if (text.size() > limits_.text_bytes - out_->size()) {
    return ReserveText(limits_.text_bytes + 1);
  }
  out_->Append(text);
  return absl::OkStatus();
}

Status Interpreter::WriteValue(const Value& value) {
  if (const MarkedText* text = value.text()) return Write(*text);
  TESSERA_ASSIGN_OR_RETURN(const MarkedText text, Str(value));
  return Write(text);
}

Status Interpreter::Exec(const Body& body) {
  const Nested nested(this);
  TESSERA_RETURN_IF_ERROR(nested.Check());
  for (const auto& node : body) {
    const Status status = ExecNode(*node);
    if (!status.ok()) {
      if (error_line_ == 0) error_line_ = node->line;
      return status;
    }
    if (flow_ != Flow::kNext) break;
  }
  return absl::OkStatus();
}

Status Interpreter::ExecNode(const Node& node) {
  TESSERA_RETURN_IF_ERROR(Spend(1));
  switch (node.kind) {
    case NodeKind::kText:
      return Write(*node.value.text());
    case NodeKind::kOutput: {
      TESSERA_ASSIGN_OR_RETURN(const Value value, Eval(*node.expr));
      return WriteValue(value);
    }
    case NodeKind::kIf:
      return ExecIf(node);
    case NodeKind::kFor:
      return ExecFor(node);
    case NodeKind::kSet: {
      TESSERA_ASSIGN_OR_RETURN(Value value, Eval(*node.expr));
      return Assign(node.target, std::move(value));
    }
    case NodeKind::kBlockSet:
      return ExecBlockSet(node);
    case NodeKind::kMacro:
      scope_->Set(node.text, MakeMacro(node));
      return absl::OkStatus();
    case NodeKind::kCallBlock:
      return ExecCallBlock(node);
    case NodeKind::kFilterBlock: {
      TESSERA_ASSIGN_OR_RETURN(const Value text, CaptureInner(node.body));
      const Value* before = std::exchange(block_text_, &text);
      const StatusOr<Value> filtered = Eval(*node.expr);
      block_text_ = before;
      if (!filtered.ok()) return filtered.status();
      return WriteValue(*filtered);
    }
    case NodeKind::kScope:
      return ExecScope(node);
    case NodeKind::kBreak:
      flow_ = Flow::kBreak;
      return absl::OkStatus();
    case NodeKind::kContinue:
      flow_ = Flow::kContinue;
      return absl::OkStatus();
  }
  return absl::OkStatus();
}

Status Interpreter::ExecIf(const Node& node) {
  for (const auto& [test, body] : node.branches) {
    TESSERA_ASSIGN_OR_RETURN(const Value value, Eval(*test));
    if (value.Truth()) return Exec(body);
  }
  return Exec(node.otherwise);
}

void Interpreter::Leave(std::unique_ptr<Scope> scope) {
  if (scope->captured) kept_scopes_.push_back(std::move(scope));
}

Status Interpreter::ExecInner(const Body& body) {
  auto inner = std::make_unique<Scope>();
  inner->parent = scope_;
  scope_ = inner.get();
  const Status status = Exec(body);
  scope_ = inner->parent;
  Leave(std::move(inner));
  return status;
}

StatusOr<Value> Interpreter::CaptureInner(const Body& body) {
  Capture capture(this);
  TESSERA_RETURN_IF_ERROR(ExecInner(body));
  return Value::Text(std::move(capture.text()));
}

Status Interpreter::ExecBlockSet(const Node& node) {
  TESSERA_ASSIGN_OR_RETURN(Value text, CaptureInner(node.body));
  if (node.expr != nullptr) {
    const Value* before = std::exchange(block_text_, &text);
    StatusOr<Value> filtered = Eval(*node.expr);
    block_text_ = before;
    if (!filtered.ok()) return filtered.status();
    text = *std::move(filtered);
  }
  return Assign(node.target, std::move(text));
}

Status Interpreter::ExecScope(const Node& node) {
  auto inner = std::make_unique<Scope>();
  inner->parent = scope_;
  for (const auto& [target, expr] : node.bindings) {
    TESSERA_ASSIGN_OR_RETURN(Value value, Eval(*expr));
    inner->Set(target.name, std::move(value));
  }
  scope_ = inner.get();
  const Status status = Exec(node.body);
  scope_ = inner->parent;
  Leave(std::move(inner));
  return status;
}

Status Interpreter::Assign(const Target& target, Value value) {
  if (!target.parts.empty()) {
    TESSERA_ASSIGN_OR_RETURN(const std::shared_ptr<const List> items, Items(value));
    if (items->size() != target.parts.size()) {
      return Fail(
          absl::StrCat(target.parts.size(), " names cannot take ", items->size(), " values"));
    }
    for (size_t i = 0; i < items->size(); ++i) {
      TESSERA_RETURN_IF_ERROR(Assign(target.parts[i], (*items)[i]));
    }
    return absl::OkStatus();
  }
  if (target.field.empty()) {
    TESSERA_RETURN_IF_ERROR(Spend(scope_->names.size() / 32));
    scope_->Set(target.name, std::move(value));
    return absl::OkStatus();
  }
  TESSERA_ASSIGN_OR_RETURN(const Value* object, Lookup(target.name));
  if (object == nullptr || object->names() == nullptr) {
    return Fail(absl::StrCat("cannot assign ", target.name, ".", target.field,
                             ": only a namespace has fields to assign"));
  }
  TESSERA_RETURN_IF_ERROR(Spend(object->names()->fields.size() / 16));
  object->names()->Set(target.field, std::move(value));
  return absl::OkStatus();
}

}  // namespace tessera::server::jinja
