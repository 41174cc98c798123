// The expressions of a template.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/text/jinja/ast.h"
#include "server/text/jinja/lexer.h"

namespace tessera::server::jinja {

// Reads expressions from a token list; the statement parser builds on it.
class ExpressionParser {
 public:
  explicit ExpressionParser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

 protected:
  enum class Conditions { kWith, kWithout };

  [[nodiscard]] const Token& Peek(size_t ahead = 0) const {
    return tokens_[std::min(pos_ + ahead, tokens_.size() - 1)];
  }
  const Token& Next() { return tokens_[pos_ + 1 < tokens_.size() ? pos_++ : pos_]; }
  [[nodiscard]] bool IsOperator(absl::string_view op, size_t ahead = 0) const;
  [[nodiscard]] bool IsName(absl::string_view name, size_t ahead = 0) const;
  bool SkipOperator(absl::string_view op);
  bool SkipName(absl::string_view name);
  Status Expect(absl::string_view op);
  [[nodiscard]] Status Fail(absl::string_view why) const {
    return TemplateError(Peek().line, Peek().column, why);
  }
  [[nodiscard]] Status Unexpected() const;

  StatusOr<ExprPtr> ParseExpression(Conditions conditions = Conditions::kWith);
  // One expression, or several with commas as a tuple.
  StatusOr<ExprPtr> ParseTuple(Conditions conditions = Conditions::kWith);
  StatusOr<Target> ParseTarget();
  StatusOr<ExprPtr> ParsePostfixed();
  Status ParseArguments(Arguments* arguments, Expr* owner);
  // Takes `child` in; fails when the tree becomes too deep.
  Status Adopt(Expr* parent, ExprPtr child) const;
  [[nodiscard]] size_t position() const { return pos_; }
  // Whether a token from `begin` to here is that name.
  [[nodiscard]] bool MentionsSince(size_t begin, absl::string_view name) const;

  // Counts nesting while a rule runs.
  class Nesting {
   public:
    explicit Nesting(ExpressionParser* parser) : parser_(parser) { ++parser_->nesting_; }
    ~Nesting() { --parser_->nesting_; }
    [[nodiscard]] bool too_deep() const { return parser_->nesting_ > kMaxTreeDepth; }

   private:
    ExpressionParser* parser_;
  };

 private:
  using Rule = StatusOr<ExprPtr> (ExpressionParser::*)();

  [[nodiscard]] ExprPtr Make(ExprKind kind) const;
  StatusOr<ExprPtr> BinaryChain(std::initializer_list<absl::string_view> ops, Rule operand);
  StatusOr<ExprPtr> ParseOr();
  StatusOr<ExprPtr> ParseAnd();
  StatusOr<ExprPtr> ParseNot();
  StatusOr<ExprPtr> ParseCompare();
  StatusOr<ExprPtr> ParseSum();
  StatusOr<ExprPtr> ParseConcat();
  StatusOr<ExprPtr> ParseProduct();
  StatusOr<ExprPtr> ParsePower();
  StatusOr<ExprPtr> ParseUnary();
  enum class Filters { kRead, kLeft };
  StatusOr<ExprPtr> ParseSigned(Filters filters);
  StatusOr<ExprPtr> ParsePrimary();
  StatusOr<ExprPtr> ParseName();
  StatusOr<ExprPtr> ParseNumber();
  StatusOr<ExprPtr> ParseItems(ExprKind kind, absl::string_view close);
  StatusOr<ExprPtr> ParseDict();
  StatusOr<ExprPtr> ParsePostfix(ExprPtr expr);
  StatusOr<ExprPtr> ParseSubscript(ExprPtr expr);
  StatusOr<ExprPtr> ParseFilters(ExprPtr expr);
  StatusOr<ExprPtr> ParseTest(ExprPtr expr);

  std::vector<Token> tokens_;
  size_t pos_ = 0;
  int nesting_ = 0;
};

}  // namespace tessera::server::jinja
