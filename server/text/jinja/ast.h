// The tree of a template. Depth is bounded by the parser, so that walking it needs a bounded stack.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/text/jinja/value.h"

namespace tessera::server::jinja {

inline constexpr int kMaxTreeDepth = 120;

enum class ExprKind {
  kLiteral,    // value
  kName,       // name
  kList,       // children
  kTuple,      // children
  kDict,       // children: key, value, key, value…
  kAttribute,  // children[0].name
  kIndex,      // children[0][children[1]]
  kSlice,      // children[0][a:b:c]; absent bounds are null
  kCall,       // children[0](arguments)
  kFilter,     // children[0] | name(arguments); of a filter block without children: its text
  kTest,       // children[0] is name(arguments)
  kUnary,      // op "-", "+", "not"
  kBinary,     // op "+", "-", "*", "/", "//", "%", "**", "~", "and", "or"
  kCompare,    // children[0] ops[0] children[1] ops[1] children[2]…
  kCondition,  // children: then, test, else (may be null)
};

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

struct Arguments {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<std::string, ExprPtr>> named;
};

struct Expr {
  ExprKind kind = ExprKind::kLiteral;
  int line = 0;
  int depth = 1;
  std::string name;
  std::vector<std::string> ops;
  Value value;
  std::vector<ExprPtr> children;
  Arguments arguments;
};

// What a value is bound to: a name, a tuple of targets, or a namespace's field.
struct Target {
  std::string name;
  std::string field;
  std::vector<Target> parts;
};

enum class NodeKind {
  kText,
  kOutput,
  kIf,
  kFor,
  kSet,
  kBlockSet,
  kMacro,
  kCallBlock,
  kFilterBlock,
  kScope,  // "with", and "generation", which a prompt's text does not depend on
  kBreak,
  kContinue
};

struct Node;
using Body = std::vector<std::unique_ptr<Node>>;

struct Parameter {
  std::string name;
  ExprPtr fallback;
};

struct Node {
  NodeKind kind = NodeKind::kText;
  int line = 0;
  std::string text;   // the name of a kMacro
  Value value;        // kText
  ExprPtr expr;       // kOutput, kSet; what kFor iterates; the call of kCallBlock; the filters of
                      // kFilterBlock and kBlockSet (may be null)
  ExprPtr condition;  // kFor's inline if
  bool recursive = false;  // kFor
  // kMacro, kCallBlock: which of the special names its text mentions.
  bool takes_caller = false;
  bool takes_varargs = false;
  bool takes_kwargs = false;
  Target target;                                     // kFor, kSet, kBlockSet
  std::vector<Parameter> parameters;                 // kMacro, kCallBlock
  std::vector<std::pair<ExprPtr, Body>> branches;    // kIf
  std::vector<std::pair<Target, ExprPtr>> bindings;  // kScope of "with"
  Body body;
  Body otherwise;  // else
};

}  // namespace tessera::server::jinja
