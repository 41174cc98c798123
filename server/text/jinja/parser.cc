#include "server/text/jinja/parser.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/text/jinja/expression_parser.h"
#include "server/text/jinja/lexer.h"

namespace tessera::server::jinja {
namespace {

using NodePtr = std::unique_ptr<Node>;

class Parser : public ExpressionParser {
 public:
  explicit Parser(std::vector<Token> tokens) : ExpressionParser(std::move(tokens)) {}

  StatusOr<Body> Run() {
    TESSERA_ASSIGN_OR_RETURN(Body body, ParseBody({}));
    if (Peek().type != TokenType::kEnd) return Unexpected();
    return body;
  }

 private:
  // Nodes up to a block tag whose name is in `ends` (left unread, behind its "{%"), or to the end
  // of the template when `ends` is empty.
  StatusOr<Body> ParseBody(std::initializer_list<absl::string_view> ends) {
    const Nesting nesting(this);
    if (nesting.too_deep()) return Fail("blocks are nested too deeply");
    Body body;
    for (;;) {
      const Token& token = Peek();
      if (token.type == TokenType::kEnd) {
        if (ends.size() == 0) return body;
        return Fail(absl::StrCat("the template ends where ", *(ends.end() - 1), " was expected"));
      }
      if (token.type == TokenType::kText) {
        NodePtr node = Make(NodeKind::kText);
        node->value = Value::Text(Next().text);
        body.push_back(std::move(node));
      } else if (token.type == TokenType::kOutputBegin) {
        NodePtr node = Make(NodeKind::kOutput);
        Next();
        TESSERA_ASSIGN_OR_RETURN(node->expr, ParseTuple());
        if (Peek().type != TokenType::kOutputEnd) return Unexpected();
        Next();
        body.push_back(std::move(node));
      } else {
        Next();
        for (const absl::string_view end : ends) {
          if (IsName(end)) return body;
        }
        TESSERA_ASSIGN_OR_RETURN(NodePtr node, ParseStatement());
        body.push_back(std::move(node));
      }
    }
  }

  [[nodiscard]] NodePtr Make(NodeKind kind) const {
    auto node = std::make_unique<Node>();
    node->kind = kind;
    node->line = Peek().line;
    return node;
  }

  Status EndBlock() {
    if (Peek().type != TokenType::kBlockEnd) return Unexpected();
    Next();
    return absl::OkStatus();
  }

  // The closing tag `name`, which ParseBody has found.
  Status CloseWith(absl::string_view name) {
    if (!SkipName(name)) return Fail(absl::StrCat("expected ", name));
    if (name == "endmacro" || name == "endcall") {
      if (Peek().type == TokenType::kName) Next();  // the macro's name may be repeated
    }
    return EndBlock();
  }

  StatusOr<NodePtr> ParseStatement() {
    if (Peek().type != TokenType::kName) return Unexpected();
    const std::string name = Peek().text;
    NodePtr node = Make(NodeKind::kIf);
    const Status unknown =
        Fail(absl::StrCat("the tag '", name.substr(0, 40), "' is not supported"));
    Next();
    if (name == "if") return ParseIf(std::move(node));
    if (name == "for") return ParseFor(std::move(node));
    if (name == "set") return ParseSet(std::move(node));
    if (name == "macro") return ParseMacro(std::move(node));
    if (name == "call") return ParseCall(std::move(node));
    if (name == "filter") return ParseFilterBlock(std::move(node));
    if (name == "with") return ParseWith(std::move(node));
    if (name == "break" || name == "continue") {
      if (loops_ == 0) return Fail(absl::StrCat(name, " outside of a loop"));
      node->kind = name == "break" ? NodeKind::kBreak : NodeKind::kContinue;
      TESSERA_RETURN_IF_ERROR(EndBlock());
      return node;
    }
    if (name == "generation") {
      node->kind = NodeKind::kScope;
      TESSERA_RETURN_IF_ERROR(EndBlock());
      TESSERA_ASSIGN_OR_RETURN(node->body, ParseClosedBody("endgeneration"));
      return node;
    }
    return unknown;
  }

  // A body in which a surrounding loop cannot be left, and its closing tag.
  StatusOr<Body> ParseClosedBody(absl::string_view end) {
    const int loops = std::exchange(loops_, 0);
    StatusOr<Body> body = ParseBody({end});
    loops_ = loops;
    if (!body.ok()) return body;
    TESSERA_RETURN_IF_ERROR(CloseWith(end));
    return body;
  }

  StatusOr<NodePtr> ParseIf(NodePtr node) {
    TESSERA_ASSIGN_OR_RETURN(ExprPtr test, ParseTuple(Conditions::kWithout));
    TESSERA_RETURN_IF_ERROR(EndBlock());
    for (;;) {
      TESSERA_ASSIGN_OR_RETURN(Body body, ParseBody({"elif", "else", "endif"}));
      node->branches.emplace_back(std::move(test), std::move(body));
      if (SkipName("elif")) {
        TESSERA_ASSIGN_OR_RETURN(test, ParseTuple(Conditions::kWithout));
        TESSERA_RETURN_IF_ERROR(EndBlock());
        continue;
      }
      if (SkipName("else")) {
        TESSERA_RETURN_IF_ERROR(EndBlock());
        TESSERA_ASSIGN_OR_RETURN(node->otherwise, ParseBody({"endif"}));
      }
      TESSERA_RETURN_IF_ERROR(CloseWith("endif"));
      return node;
    }
  }

  StatusOr<NodePtr> ParseFor(NodePtr node) {
    node->kind = NodeKind::kFor;
    TESSERA_ASSIGN_OR_RETURN(node->target, ParseTarget());
    if (!SkipName("in")) return Fail("expected 'in'");
    TESSERA_ASSIGN_OR_RETURN(node->expr, ParseTuple(Conditions::kWithout));
    if (SkipName("if")) {
      TESSERA_ASSIGN_OR_RETURN(node->condition, ParseExpression());
    }
    node->recursive = SkipName("recursive");
    TESSERA_RETURN_IF_ERROR(EndBlock());
    ++loops_;
    TESSERA_ASSIGN_OR_RETURN(node->body, ParseBody({"else", "endfor"}));
    --loops_;
    if (SkipName("else")) {
      TESSERA_RETURN_IF_ERROR(EndBlock());
      TESSERA_ASSIGN_OR_RETURN(node->otherwise, ParseBody({"endfor"}));
    }
    TESSERA_RETURN_IF_ERROR(CloseWith("endfor"));
    return node;
  }

  StatusOr<NodePtr> ParseSet(NodePtr node) {
    TESSERA_ASSIGN_OR_RETURN(node->target, ParseTarget());
    if (SkipOperator("=")) {
      node->kind = NodeKind::kSet;
      TESSERA_ASSIGN_OR_RETURN(node->expr, ParseTuple());
      TESSERA_RETURN_IF_ERROR(EndBlock());
      return node;
    }
    node->kind = NodeKind::kBlockSet;
    if (SkipOperator("|")) {
      TESSERA_ASSIGN_OR_RETURN(node->expr, ParseFilterChain());
    }
    TESSERA_RETURN_IF_ERROR(EndBlock());
    TESSERA_ASSIGN_OR_RETURN(node->body, ParseClosedBody("endset"));
    return node;
  }

  Status ParseParameters(std::vector<Parameter>* parameters) {
    TESSERA_RETURN_IF_ERROR(Expect("("));
    while (!IsOperator(")")) {
      Parameter parameter;
      if (Peek().type != TokenType::kName) return Unexpected();
      parameter.name = Next().text;
      if (SkipOperator("=")) {
        TESSERA_ASSIGN_OR_RETURN(parameter.fallback, ParseExpression());
      } else if (!parameters->empty() && parameters->back().fallback != nullptr) {
        return Fail("a parameter without a default follows one with a default");
      }
      parameters->push_back(std::move(parameter));
      if (!SkipOperator(",")) break;
    }
    return Expect(")");
  }

  StatusOr<Body> ParseMacroBody(absl::string_view end, Node* node) {
    const size_t begin = position();
    StatusOr<Body> body = ParseClosedBody(end);
    node->takes_caller = MentionsSince(begin, "caller");
    node->takes_varargs = MentionsSince(begin, "varargs");
    node->takes_kwargs = MentionsSince(begin, "kwargs");
    return body;
  }

  // "f(x) | g" of a block whose text they take.
  StatusOr<ExprPtr> ParseFilterChain() {
    ExprPtr chain;
    do {
      if (Peek().type != TokenType::kName) return Unexpected();
      auto filter = std::make_unique<Expr>();
      filter->kind = ExprKind::kFilter;
      filter->line = Peek().line;
      filter->name = Next().text;
      if (chain != nullptr) TESSERA_RETURN_IF_ERROR(Adopt(filter.get(), std::move(chain)));
      if (IsOperator("(")) {
        TESSERA_RETURN_IF_ERROR(ParseArguments(&filter->arguments, filter.get()));
      }
      chain = std::move(filter);
    } while (SkipOperator("|"));
    return chain;
  }

  StatusOr<NodePtr> ParseMacro(NodePtr node) {
    node->kind = NodeKind::kMacro;
    if (Peek().type != TokenType::kName) return Unexpected();
    node->text = Next().text;
    TESSERA_RETURN_IF_ERROR(ParseParameters(&node->parameters));
    TESSERA_RETURN_IF_ERROR(EndBlock());
    TESSERA_ASSIGN_OR_RETURN(node->body, ParseMacroBody("endmacro", node.get()));
    return node;
  }

  StatusOr<NodePtr> ParseCall(NodePtr node) {
    node->kind = NodeKind::kCallBlock;
    if (IsOperator("(")) TESSERA_RETURN_IF_ERROR(ParseParameters(&node->parameters));
    TESSERA_ASSIGN_OR_RETURN(node->expr, ParsePostfixed());
    if (node->expr->kind != ExprKind::kCall) return Fail("call needs a call");
    TESSERA_RETURN_IF_ERROR(EndBlock());
    TESSERA_ASSIGN_OR_RETURN(node->body, ParseMacroBody("endcall", node.get()));
    return node;
  }

  // {% filter f %}…{% endfilter %} is the body's text with a filter on it.
  StatusOr<NodePtr> ParseFilterBlock(NodePtr node) {
    node->kind = NodeKind::kFilterBlock;
    TESSERA_ASSIGN_OR_RETURN(node->expr, ParseFilterChain());
    TESSERA_RETURN_IF_ERROR(EndBlock());
    TESSERA_ASSIGN_OR_RETURN(node->body, ParseClosedBody("endfilter"));
    return node;
  }

  StatusOr<NodePtr> ParseWith(NodePtr node) {
    node->kind = NodeKind::kScope;
    while (Peek().type == TokenType::kName) {
      Target target;
      target.name = Next().text;
      TESSERA_RETURN_IF_ERROR(Expect("="));
      TESSERA_ASSIGN_OR_RETURN(ExprPtr value, ParseExpression());
      node->bindings.emplace_back(std::move(target), std::move(value));
      if (!SkipOperator(",")) break;
    }
    TESSERA_RETURN_IF_ERROR(EndBlock());
    TESSERA_ASSIGN_OR_RETURN(node->body, ParseBody({"endwith"}));
    TESSERA_RETURN_IF_ERROR(CloseWith("endwith"));
    return node;
  }

  int loops_ = 0;
};

}  // namespace

StatusOr<Body> Parse(absl::string_view source) {
  TESSERA_ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(source));
  return Parser(std::move(tokens)).Run();
}

}  // namespace tessera::server::jinja
