#include "server/text/jinja/expression_parser.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace tessera::server::jinja {

bool ExpressionParser::IsOperator(absl::string_view op, size_t ahead) const {
  return Peek(ahead).type == TokenType::kOperator && Peek(ahead).text == op;
}
bool ExpressionParser::IsName(absl::string_view name, size_t ahead) const {
  return Peek(ahead).type == TokenType::kName && Peek(ahead).text == name;
}
bool ExpressionParser::SkipOperator(absl::string_view op) {
  if (!IsOperator(op)) return false;
  Next();
  return true;
}
bool ExpressionParser::SkipName(absl::string_view name) {
  if (!IsName(name)) return false;
  Next();
  return true;
}
Status ExpressionParser::Expect(absl::string_view op) {
  if (SkipOperator(op)) return absl::OkStatus();
  return Fail(absl::StrCat("expected '", op, "'"));
}
Status ExpressionParser::Unexpected() const {
  const Token& token = Peek();
  if (token.type == TokenType::kEnd) return Fail("the template ends too early");
  if (token.text.empty()) return Fail("an expression ends too early");
  return Fail(absl::StrCat("unexpected '", token.text.substr(0, 40), "'"));
}

ExprPtr ExpressionParser::Make(ExprKind kind) const {
  auto expr = std::make_unique<Expr>();
  expr->kind = kind;
  expr->line = Peek().line;
  return expr;
}

bool ExpressionParser::MentionsSince(size_t begin, absl::string_view name) const {
  return std::any_of(tokens_.begin() + begin, tokens_.begin() + pos_, [&](const Token& token) {
    return token.type == TokenType::kName && token.text == name;
  });
}

Status ExpressionParser::Adopt(Expr* parent, ExprPtr child) const {
  if (child != nullptr) parent->depth = std::max(parent->depth, child->depth + 1);
  parent->children.push_back(std::move(child));
  if (parent->depth > kMaxTreeDepth) return Fail("an expression is nested too deeply");
  return absl::OkStatus();
}

StatusOr<ExprPtr> ExpressionParser::ParseExpression(Conditions conditions) {
  const Nesting nesting(this);
  if (nesting.too_deep()) return Fail("an expression is nested too deeply");
  TESSERA_ASSIGN_OR_RETURN(ExprPtr expr, ParseOr());
  while (conditions == Conditions::kWith && IsName("if")) {
    ExprPtr condition = Make(ExprKind::kCondition);
    Next();
    TESSERA_ASSIGN_OR_RETURN(ExprPtr test, ParseOr());
    ExprPtr otherwise;
    if (SkipName("else")) {
      TESSERA_ASSIGN_OR_RETURN(otherwise, ParseExpression());
    }
    TESSERA_RETURN_IF_ERROR(Adopt(condition.get(), std::move(expr)));
    TESSERA_RETURN_IF_ERROR(Adopt(condition.get(), std::move(test)));
    TESSERA_RETURN_IF_ERROR(Adopt(condition.get(), std::move(otherwise)));
    expr = std::move(condition);
  }
  return expr;
}

StatusOr<ExprPtr> ExpressionParser::ParseTuple(Conditions conditions) {
  TESSERA_ASSIGN_OR_RETURN(ExprPtr first, ParseExpression(conditions));
  if (!IsOperator(",")) return first;
  ExprPtr tuple = Make(ExprKind::kTuple);
  TESSERA_RETURN_IF_ERROR(Adopt(tuple.get(), std::move(first)));
  while (SkipOperator(",")) {
    const TokenType type = Peek().type;
    if (type == TokenType::kBlockEnd || type == TokenType::kOutputEnd || IsOperator(")")) break;
    TESSERA_ASSIGN_OR_RETURN(ExprPtr next, ParseExpression(conditions));
    TESSERA_RETURN_IF_ERROR(Adopt(tuple.get(), std::move(next)));
  }
  return tuple;
}

StatusOr<Target> ExpressionParser::ParseTarget() {
  const Nesting nesting(this);
  if (nesting.too_deep()) return Fail("a target is nested too deeply");
  Target whole;
  do {
    Target part;
    if (SkipOperator("(")) {
      TESSERA_ASSIGN_OR_RETURN(part, ParseTarget());
      TESSERA_RETURN_IF_ERROR(Expect(")"));
    } else {
      if (Peek().type != TokenType::kName) {
        if (!whole.parts.empty()) break;  // a comma at the end
        return Unexpected();
      }
      part.name = Next().text;
      if (part.name == "true" || part.name == "false" || part.name == "none") {
        return Fail(absl::StrCat("cannot assign to ", part.name));
      }
      if (SkipOperator(".")) {
        if (Peek().type != TokenType::kName) return Unexpected();
        part.field = Next().text;
      }
    }
    whole.parts.push_back(std::move(part));
  } while (SkipOperator(",") && !IsName("in"));
  if (whole.parts.size() == 1 && !IsOperator(",", 0)) {
    Target only = std::move(whole.parts[0]);
    return only;
  }
  return whole;
}

StatusOr<ExprPtr> ExpressionParser::BinaryChain(std::initializer_list<absl::string_view> ops,
                                                Rule operand) {
  TESSERA_ASSIGN_OR_RETURN(ExprPtr left, (this->*operand)());
  for (;;) {
    const auto op = std::find_if(ops.begin(), ops.end(), [&](absl::string_view candidate) {
      return IsOperator(candidate) || IsName(candidate);
    });
    if (op == ops.end()) return left;
    ExprPtr binary = Make(ExprKind::kBinary);
    binary->name = std::string(*op);
    Next();
    TESSERA_ASSIGN_OR_RETURN(ExprPtr right, (this->*operand)());
    TESSERA_RETURN_IF_ERROR(Adopt(binary.get(), std::move(left)));
    TESSERA_RETURN_IF_ERROR(Adopt(binary.get(), std::move(right)));
    left = std::move(binary);
  }
}

StatusOr<ExprPtr> ExpressionParser::ParseOr() {
  return BinaryChain({"or"}, &ExpressionParser::ParseAnd);
}
StatusOr<ExprPtr> ExpressionParser::ParseAnd() {
  return BinaryChain({"and"}, &ExpressionParser::ParseNot);
}
StatusOr<ExprPtr> ExpressionParser::ParseSum() {
  return BinaryChain({"+", "-"}, &ExpressionParser::ParseConcat);
}
StatusOr<ExprPtr> ExpressionParser::ParseConcat() {
  return BinaryChain({"~"}, &ExpressionParser::ParseProduct);
}
StatusOr<ExprPtr> ExpressionParser::ParseProduct() {
  return BinaryChain({"*", "/", "//", "%"}, &ExpressionParser::ParsePower);
}
StatusOr<ExprPtr> ExpressionParser::ParsePower() {
  return BinaryChain({"**"}, &ExpressionParser::ParseUnary);
}

StatusOr<ExprPtr> ExpressionParser::ParseNot() {
  const Nesting nesting(this);
  if (nesting.too_deep()) return Fail("an expression is nested too deeply");
  if (!IsName("not")) return ParseCompare();
  ExprPtr expr = Make(ExprKind::kUnary);
  expr->name = Next().text;
  TESSERA_ASSIGN_OR_RETURN(ExprPtr operand, ParseNot());
  TESSERA_RETURN_IF_ERROR(Adopt(expr.get(), std::move(operand)));
  return expr;
}

StatusOr<ExprPtr> ExpressionParser::ParseCompare() {
  TESSERA_ASSIGN_OR_RETURN(ExprPtr left, ParseSum());
  ExprPtr compare;
  for (;;) {
    std::string op;
    if (Peek().type == TokenType::kOperator) {
      for (const absl::string_view candidate : {"==", "!=", "<", "<=", ">", ">="}) {
        if (Peek().text == candidate) op = std::string(candidate);
      }
    } else if (IsName("in")) {
      op = "in";
    } else if (IsName("not") && IsName("in", 1)) {
      op = "not in";
      Next();
    }
    if (op.empty()) break;
    if (compare == nullptr) {
      compare = Make(ExprKind::kCompare);
      TESSERA_RETURN_IF_ERROR(Adopt(compare.get(), std::move(left)));
    }
    Next();
    TESSERA_ASSIGN_OR_RETURN(ExprPtr right, ParseSum());
    TESSERA_RETURN_IF_ERROR(Adopt(compare.get(), std::move(right)));
    compare->ops.push_back(std::move(op));
  }
  return compare != nullptr ? std::move(compare) : std::move(left);
}

StatusOr<ExprPtr> ExpressionParser::ParseUnary() { return ParseSigned(Filters::kRead); }

StatusOr<ExprPtr> ExpressionParser::ParseSigned(Filters filters) {
  const Nesting nesting(this);
  if (nesting.too_deep()) return Fail("an expression is nested too deeply");
  ExprPtr expr;
  if (IsOperator("-") || IsOperator("+")) {
    expr = Make(ExprKind::kUnary);
    expr->name = Next().text;
    TESSERA_ASSIGN_OR_RETURN(ExprPtr operand, ParseSigned(Filters::kLeft));
    TESSERA_RETURN_IF_ERROR(Adopt(expr.get(), std::move(operand)));
  } else {
    TESSERA_ASSIGN_OR_RETURN(expr, ParsePostfixed());
  }
  if (filters == Filters::kLeft) return expr;
  return ParseFilters(std::move(expr));
}

StatusOr<ExprPtr> ExpressionParser::ParsePostfixed() {
  TESSERA_ASSIGN_OR_RETURN(ExprPtr expr, ParsePrimary());
  return ParsePostfix(std::move(expr));
}

StatusOr<ExprPtr> ExpressionParser::ParsePrimary() {
  switch (Peek().type) {
    case TokenType::kName:
      return ParseName();
    case TokenType::kString: {
      ExprPtr expr = Make(ExprKind::kLiteral);
      std::string text;
      while (Peek().type == TokenType::kString) text += Next().text;
      expr->value = Value::Text(std::move(text));
      return expr;
    }
    case TokenType::kInteger:
    case TokenType::kFloat:
      return ParseNumber();
    default:
      break;
  }
  if (SkipOperator("(")) {
    if (SkipOperator(")")) return Make(ExprKind::kTuple);
    TESSERA_ASSIGN_OR_RETURN(ExprPtr expr, ParseTuple());
    TESSERA_RETURN_IF_ERROR(Expect(")"));
    return expr;
  }
  if (SkipOperator("[")) return ParseItems(ExprKind::kList, "]");
  if (SkipOperator("{")) return ParseDict();
  return Unexpected();
}

StatusOr<ExprPtr> ExpressionParser::ParseName() {
  ExprPtr expr = Make(ExprKind::kName);
  const std::string name = Next().text;
  if (name == "true" || name == "True" || name == "false" || name == "False") {
    expr->kind = ExprKind::kLiteral;
    expr->value = Value::Bool(name[0] == 't' || name[0] == 'T');
  } else if (name == "none" || name == "None") {
    expr->kind = ExprKind::kLiteral;
    expr->value = Value::MakeNone();
  } else {
    expr->name = name;
  }
  return expr;
}

StatusOr<ExprPtr> ExpressionParser::ParseNumber() {
  ExprPtr expr = Make(ExprKind::kLiteral);
  const Token& token = Next();
  if (token.type == TokenType::kFloat) {
    double value = 0;
    if (!absl::SimpleAtod(token.text, &value)) return Fail("a number is out of range");
    expr->value = Value::Float(value);
  } else {
    int64_t value = 0;
    if (!absl::SimpleAtoi(token.text, &value)) return Fail("an integer is out of range");
    expr->value = Value::Int(value);
  }
  return expr;
}

StatusOr<ExprPtr> ExpressionParser::ParseItems(ExprKind kind, absl::string_view close) {
  ExprPtr list = Make(kind);
  while (!IsOperator(close)) {
    TESSERA_ASSIGN_OR_RETURN(ExprPtr item, ParseExpression());
    TESSERA_RETURN_IF_ERROR(Adopt(list.get(), std::move(item)));
    if (!SkipOperator(",")) break;
  }
  TESSERA_RETURN_IF_ERROR(Expect(close));
  return list;
}

StatusOr<ExprPtr> ExpressionParser::ParseDict() {
  ExprPtr dict = Make(ExprKind::kDict);
  while (!IsOperator("}")) {
    TESSERA_ASSIGN_OR_RETURN(ExprPtr key, ParseExpression());
    TESSERA_RETURN_IF_ERROR(Expect(":"));
    TESSERA_ASSIGN_OR_RETURN(ExprPtr value, ParseExpression());
    TESSERA_RETURN_IF_ERROR(Adopt(dict.get(), std::move(key)));
    TESSERA_RETURN_IF_ERROR(Adopt(dict.get(), std::move(value)));
    if (!SkipOperator(",")) break;
  }
  TESSERA_RETURN_IF_ERROR(Expect("}"));
  return dict;
}

StatusOr<ExprPtr> ExpressionParser::ParsePostfix(ExprPtr expr) {
  for (;;) {
    if (IsOperator(".")) {
      Next();
      ExprPtr access = Make(ExprKind::kAttribute);
      if (Peek().type == TokenType::kInteger) {
        access->kind = ExprKind::kIndex;
        TESSERA_RETURN_IF_ERROR(Adopt(access.get(), std::move(expr)));
        TESSERA_ASSIGN_OR_RETURN(ExprPtr index, ParseNumber());
        TESSERA_RETURN_IF_ERROR(Adopt(access.get(), std::move(index)));
      } else if (Peek().type == TokenType::kName) {
        access->name = Next().text;
        TESSERA_RETURN_IF_ERROR(Adopt(access.get(), std::move(expr)));
      } else {
        return Unexpected();
      }
      expr = std::move(access);
    } else if (IsOperator("[")) {
      TESSERA_ASSIGN_OR_RETURN(expr, ParseSubscript(std::move(expr)));
    } else if (IsOperator("(")) {
      ExprPtr call = Make(ExprKind::kCall);
      TESSERA_RETURN_IF_ERROR(Adopt(call.get(), std::move(expr)));
      TESSERA_RETURN_IF_ERROR(ParseArguments(&call->arguments, call.get()));
      expr = std::move(call);
    } else {
      return expr;
    }
  }
}

StatusOr<ExprPtr> ExpressionParser::ParseSubscript(ExprPtr expr) {
  ExprPtr index = Make(ExprKind::kIndex);
  Next();
  TESSERA_RETURN_IF_ERROR(Adopt(index.get(), std::move(expr)));
  ExprPtr bounds[3];
  size_t colons = 0;
  while (!IsOperator("]")) {
    if (SkipOperator(":")) {
      if (++colons > 2) return Unexpected();
    } else if (bounds[colons] == nullptr) {
      TESSERA_ASSIGN_OR_RETURN(bounds[colons], ParseExpression());
    } else {
      return Unexpected();
    }
  }
  Next();
  if (colons == 0) {
    if (bounds[0] == nullptr) return Fail("a subscript is empty");
    TESSERA_RETURN_IF_ERROR(Adopt(index.get(), std::move(bounds[0])));
    return index;
  }
  index->kind = ExprKind::kSlice;
  for (ExprPtr& bound : bounds) {
    TESSERA_RETURN_IF_ERROR(Adopt(index.get(), std::move(bound)));
  }
  return index;
}

Status ExpressionParser::ParseArguments(Arguments* arguments, Expr* owner) {
  TESSERA_RETURN_IF_ERROR(Expect("("));
  while (!IsOperator(")")) {
    if (IsOperator("*") || IsOperator("**")) return Fail("* arguments are not supported");
    std::string name;
    if (Peek().type == TokenType::kName && IsOperator("=", 1)) {
      name = Next().text;
      Next();
    }
    TESSERA_ASSIGN_OR_RETURN(ExprPtr value, ParseExpression());
    owner->depth = std::max(owner->depth, value->depth + 1);
    if (owner->depth > kMaxTreeDepth) return Fail("an expression is nested too deeply");
    if (!name.empty()) {
      arguments->named.emplace_back(std::move(name), std::move(value));
    } else if (!arguments->named.empty()) {
      return Fail("an argument without a name follows named ones");
    } else {
      arguments->positional.push_back(std::move(value));
    }
    if (!SkipOperator(",")) break;
  }
  return Expect(")");
}

StatusOr<ExprPtr> ExpressionParser::ParseFilters(ExprPtr expr) {
  for (;;) {
    if (SkipOperator("|")) {
      ExprPtr filter = Make(ExprKind::kFilter);
      if (Peek().type != TokenType::kName) return Unexpected();
      filter->name = Next().text;
      TESSERA_RETURN_IF_ERROR(Adopt(filter.get(), std::move(expr)));
      if (IsOperator("(")) {
        TESSERA_RETURN_IF_ERROR(ParseArguments(&filter->arguments, filter.get()));
      }
      expr = std::move(filter);
    } else if (IsName("is")) {
      TESSERA_ASSIGN_OR_RETURN(expr, ParseTest(std::move(expr)));
    } else if (IsOperator("(")) {
      // The result of a filter or test is called.
      TESSERA_ASSIGN_OR_RETURN(expr, ParsePostfix(std::move(expr)));
    } else {
      return expr;
    }
  }
}

StatusOr<ExprPtr> ExpressionParser::ParseTest(ExprPtr expr) {
  ExprPtr test = Make(ExprKind::kTest);
  Next();
  const bool negated = SkipName("not");
  if (Peek().type != TokenType::kName) return Unexpected();
  test->name = Next().text;
  TESSERA_RETURN_IF_ERROR(Adopt(test.get(), std::move(expr)));
  const TokenType type = Peek().type;
  if (IsName("is")) return Fail("tests cannot be chained");
  if (IsOperator("(")) {
    TESSERA_RETURN_IF_ERROR(ParseArguments(&test->arguments, test.get()));
  } else if (type == TokenType::kString || type == TokenType::kInteger ||
             type == TokenType::kFloat || IsOperator("[") || IsOperator("{") ||
             (type == TokenType::kName && !IsName("else") && !IsName("or") && !IsName("and"))) {
    TESSERA_ASSIGN_OR_RETURN(ExprPtr argument, ParsePostfixed());
    test->depth = std::max(test->depth, argument->depth + 1);
    test->arguments.positional.push_back(std::move(argument));
  }
  if (!negated) return test;
  ExprPtr inverted = Make(ExprKind::kUnary);
  inverted->name = "not";
  TESSERA_RETURN_IF_ERROR(Adopt(inverted.get(), std::move(test)));
  return inverted;
}

}  // namespace tessera::server::jinja
