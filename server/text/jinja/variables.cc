#include "server/text/jinja/variables.h"

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "server/text/jinja/builtins.h"

namespace tessera::server::jinja {
namespace {

class VariableReader {
 public:
  void Visit(const Body& body) {
    for (const auto& node : body) VisitNode(*node);
  }
  std::set<std::string>& read() { return read_; }

 private:
  // Forgets what was set while it lives.
  class Block {
   public:
    explicit Block(VariableReader* reader) : reader_(reader), begin_(reader->order_.size()) {}
    ~Block() {
      while (reader_->order_.size() > begin_) {
        reader_->set_.erase(reader_->order_.back());
        reader_->order_.pop_back();
      }
    }
    // The names that were set since.
    [[nodiscard]] std::vector<absl::string_view> names() const {
      return {reader_->order_.begin() + static_cast<ptrdiff_t>(begin_), reader_->order_.end()};
    }

   private:
    VariableReader* reader_;
    size_t begin_;
  };

  void VisitNode(const Node& node) {
    switch (node.kind) {
      case NodeKind::kOutput:
        return VisitExpr(node.expr.get());
      case NodeKind::kIf:
        return VisitIf(node);
      case NodeKind::kFor:
        return VisitFor(node);
      case NodeKind::kSet:
        VisitExpr(node.expr.get());
        return Bind(node.target);
      case NodeKind::kBlockSet:
        VisitInner(node.body);
        VisitExpr(node.expr.get());
        return Bind(node.target);
      case NodeKind::kMacro:
        Set(node.text);
        return VisitMacro(node);
      case NodeKind::kCallBlock:
        VisitExpr(node.expr.get());
        return VisitMacro(node);
      case NodeKind::kFilterBlock:
        VisitExpr(node.expr.get());
        return VisitInner(node.body);
      case NodeKind::kScope: {
        for (const auto& [target, expr] : node.bindings) VisitExpr(expr.get());
        const Block block(this);
        for (const auto& [target, expr] : node.bindings) Bind(target);
        return Visit(node.body);
      }
      default:
        return;
    }
  }

  void VisitInner(const Body& body) {
    const Block block(this);
    Visit(body);
  }

  // After it, only what every branch sets is set for sure.
  void VisitIf(const Node& node) {
    absl::flat_hash_map<absl::string_view, size_t> branches;
    const auto visit = [&](const Body& body) {
      const Block block(this);
      Visit(body);
      for (const absl::string_view name : block.names()) ++branches[name];
    };
    for (const auto& [test, body] : node.branches) {
      VisitExpr(test.get());
      visit(body);
    }
    visit(node.otherwise);
    for (const auto& [name, count] : branches) {
      if (count == node.branches.size() + 1) Set(name);
    }
  }

  void VisitFor(const Node& node) {
    VisitExpr(node.expr.get());
    VisitInner(node.otherwise);
    const Block block(this);
    Bind(node.target);
    VisitExpr(node.condition.get());
    Set("loop");
    Visit(node.body);
  }

  void VisitMacro(const Node& node) {
    const Block block(this);
    for (const Parameter& parameter : node.parameters) Set(parameter.name);
    for (const absl::string_view name : {"caller", "varargs", "kwargs"}) Set(name);
    for (const Parameter& parameter : node.parameters) VisitExpr(parameter.fallback.get());
    Visit(node.body);
  }

  void Bind(const Target& target) {
    for (const Target& part : target.parts) Bind(part);
    if (!target.parts.empty()) return;
    if (target.field.empty()) {
      Set(target.name);
    } else {
      Read(target.name);
    }
  }

  void Set(absl::string_view name) {
    if (set_.insert(name).second) order_.push_back(name);
  }

  void Read(absl::string_view name) {
    if (!set_.contains(name) && FindGlobal(name) == nullptr) read_.emplace(name);
  }

  // The parser bounds the depth.
  void VisitExpr(const Expr* expr) {
    if (expr == nullptr) return;
    if (expr->kind == ExprKind::kName) Read(expr->name);
    for (const ExprPtr& child : expr->children) VisitExpr(child.get());
    for (const ExprPtr& argument : expr->arguments.positional) VisitExpr(argument.get());
    for (const auto& [name, argument] : expr->arguments.named) VisitExpr(argument.get());
  }

  absl::flat_hash_set<absl::string_view> set_;
  std::vector<absl::string_view> order_;  // of what is in set_
  std::set<std::string> read_;
};

}  // namespace

std::set<std::string> VariablesRead(const Body& body) {
  VariableReader reader;
  reader.Visit(body);
  return std::move(reader.read());
}

}  // namespace tessera::server::jinja
