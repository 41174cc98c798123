// Template text to tokens, with trim_blocks and lstrip_blocks as chat templates are rendered with.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "config/foundation/status.h"

namespace tessera::server::jinja {

enum class TokenType {
  kText,         // literal template text
  kBlockBegin,   // {%
  kBlockEnd,     // %}
  kOutputBegin,  // {{
  kOutputEnd,    // }}
  kName,
  kString,   // text is the value
  kInteger,  // text is the digits, decimal
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenType type = TokenType::kEnd;
  int line = 0;
  int column = 0;  // in bytes, from 1
  std::string text;
};

// INVALID_ARGUMENT: what stands at `line` and `column` is no template.
[[nodiscard]] Status TemplateError(int line, int column, absl::string_view why);

// INVALID_ARGUMENT naming the place when a tag is not closed or a character is unknown. The last
// token is kEnd.
[[nodiscard]] StatusOr<std::vector<Token>> Tokenize(absl::string_view source);

}  // namespace tessera::server::jinja
