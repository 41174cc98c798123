// Runs a template's tree under limits.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/text/jinja/ast.h"

namespace tessera::server::jinja {

// What one rendering may use. Each node and expression that is run costs a step, and so does each
// piece of work that a builtin repeats.
struct Limits {
  size_t steps = 500'000;
  size_t text_bytes = size_t{64} << 10;   // the output, and any one text on the way to it
  size_t built_bytes = size_t{16} << 20;  // all texts and lists made on the way, together
  int depth = 400;                        // nested nodes, expressions and calls
};

// Names of one block. Owned by the interpreter; `parent` lives at least as long.
struct Scope {
  Scope* parent = nullptr;
  bool captured = false;  // a macro reads it: it stays until the end
  std::vector<std::pair<absl::string_view, Value>> names;

  [[nodiscard]] const Value* Find(absl::string_view name) const;
  void Set(absl::string_view name, Value value);
};

// One rendering. Not thread-safe. The tree and the names must outlive it.
class Interpreter {
 public:
  explicit Interpreter(const Limits& limits);
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  // A variable of the template. `name` is not copied.
  void Define(absl::string_view name, Value value) { root_.Set(name, std::move(value)); }
  // Once. INVALID_ARGUMENT naming the line and the reason; RESOURCE_EXHAUSTED at a limit.
  [[nodiscard]] StatusOr<MarkedText> Run(const Body& body);

  // --- for builtins; errors name no line, which the caller adds ---
  [[nodiscard]] const Limits& limits() const { return limits_; }

  // INVALID_ARGUMENT with the reason.
  [[nodiscard]] static Status Fail(std::string why);
  // What the template says to refuse its input.
  [[nodiscard]] Status Refuse(std::string why);
  // Takes so many steps.
  [[nodiscard]] Status Spend(size_t steps);
  // Asks for the memory of a text or list before it is built.
  [[nodiscard]] Status ReserveText(size_t bytes);
  [[nodiscard]] Status ReserveItems(size_t count);
  // Charged values. INVALID_ARGUMENT when they are nested too deeply.
  [[nodiscard]] StatusOr<Value> MakeText(MarkedText text);
  [[nodiscard]] StatusOr<Value> MakeSequence(SequenceKind kind, List items);
  [[nodiscard]] StatusOr<Value> MakeList(List items) {
    return MakeSequence(SequenceKind::kList, std::move(items));
  }
  [[nodiscard]] StatusOr<Value> MakeDict(Dict dict);
  [[nodiscard]] Value NewNamespace(std::shared_ptr<Namespace> names);
  // str() and the items of a value, charged. INVALID_ARGUMENT when it cannot be iterated.
  [[nodiscard]] StatusOr<MarkedText> Str(const Value& value);
  [[nodiscard]] StatusOr<std::shared_ptr<const List>> Items(const Value& value);
  // INVALID_ARGUMENT when it cannot be a key or a member of a set.
  [[nodiscard]] Status CheckHashable(const Value& value);
  [[nodiscard]] StatusOr<bool> Equal(const Value& a, const Value& b);
  // Python's "<" and the like; INVALID_ARGUMENT when the types have no order.
  [[nodiscard]] StatusOr<bool> Ordered(absl::string_view op, const Value& a, const Value& b);
  [[nodiscard]] StatusOr<bool> Contains(const Value& container, const Value& value);

  [[nodiscard]] StatusOr<Value> Attribute(const Value& object, absl::string_view name);
  [[nodiscard]] StatusOr<Value> Item(const Value& object, const Value& key);
  [[nodiscard]] StatusOr<Value> CallValue(const Value& callee, const Call& call);
  [[nodiscard]] StatusOr<Value> Filter(absl::string_view name, const Value& value,
                                       const Call& call);
  [[nodiscard]] StatusOr<bool> Test(absl::string_view name, const Value& value, const Call& call);

 private:
  enum class Flow { kNext, kBreak, kContinue };

  // Counts nesting while a node, expression or call runs.
  class Nested {
   public:
    explicit Nested(Interpreter* interpreter) : interpreter_(interpreter) {
      ++interpreter_->depth_;
    }
    ~Nested() { --interpreter_->depth_; }
    // RESOURCE_EXHAUSTED when it is too deep.
    [[nodiscard]] Status Check() const;

   private:
    Interpreter* interpreter_;
  };

  // Collects what is written while it lives.
  class Capture {
   public:
    explicit Capture(Interpreter* interpreter)
        : interpreter_(interpreter), before_(std::exchange(interpreter->out_, &text_)) {}
    ~Capture() { interpreter_->out_ = before_; }
    MarkedText& text() { return text_; }

   private:
    Interpreter* interpreter_;
    MarkedText text_;
    MarkedText* before_;
  };

  // interpreter.cc: statements.
  Status Exec(const Body& body);
  Status ExecNode(const Node& node);
  Status ExecIf(const Node& node);
  Status ExecFor(const Node& node);
  Status ExecLoop(const Node& node, const Value& iterable, Scope* outer, size_t depth);
  Status ExecIterations(const Node& node, const std::shared_ptr<Loop>& loop, Scope* outer);
  StatusOr<std::shared_ptr<const List>> Selected(const Node& node, const Value& iterable,
                                                 Scope* outer);
  Status ExecBlockSet(const Node& node);
  Status ExecScope(const Node& node);
  Status ExecCallBlock(const Node& node);
  Status Assign(const Target& target, Value value);
  Status Write(const MarkedText& text);
  Status WriteValue(const Value& value);
  Status ExecInner(const Body& body);
  StatusOr<Value> CaptureInner(const Body& body);
  StatusOr<Value> CallLoop(const Loop& loop, const Call& call);
  Value MakeMacro(const Node& node);
  StatusOr<Value> CallMacro(const Node& node, Scope* outer, const Call& call);
  Status BindMacro(const Node& node, const Call& call);
  void Leave(std::unique_ptr<Scope> scope);

  // evaluate.cc: expressions.
  StatusOr<Value> Eval(const Expr& expr);
  StatusOr<Value> EvalKind(const Expr& expr);
  StatusOr<Value> EvalName(const Expr& expr);
  StatusOr<Value> EvalItems(const Expr& expr, SequenceKind kind);
  StatusOr<Value> EvalDict(const Expr& expr);
  StatusOr<Value> EvalSlice(const Expr& expr);
  StatusOr<Value> EvalCall(const Expr& expr);
  StatusOr<Value> EvalUnary(const Expr& expr);
  StatusOr<Value> EvalBinary(const Expr& expr);
  StatusOr<Value> EvalJoined(const Expr& expr);
  StatusOr<Value> EvalCompare(const Expr& expr);
  StatusOr<bool> CompareOnce(absl::string_view op, const Value& a, const Value& b);
  StatusOr<Value> EvalCondition(const Expr& expr);
  StatusOr<Value> EvalFilter(const Expr& expr);
  StatusOr<Call> EvalArguments(const Arguments& arguments);
  // Null when nothing has that name. Takes steps where there are many names.
  StatusOr<const Value*> Lookup(absl::string_view name);

  const Limits limits_;
  size_t steps_left_;
  size_t built_left_;
  int depth_ = 0;
  int error_line_ = 0;
  bool refused_ = false;
  Flow flow_ = Flow::kNext;
  Scope root_;
  Scope* scope_ = &root_;
  MarkedText output_;
  MarkedText* out_ = &output_;
  const Value* block_text_ = nullptr;  // what the filters of a block take
  std::vector<std::unique_ptr<Scope>> kept_scopes_;
  std::vector<std::shared_ptr<Namespace>> namespaces_;
  std::vector<std::shared_ptr<Loop>> kept_loops_;
};

}  // namespace tessera::server::jinja
