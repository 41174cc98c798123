// Tokens to a tree.
#pragma once

#include "absl/strings/string_view.h"
#include "server/text/jinja/ast.h"

namespace tessera::server::jinja {

// INVALID_ARGUMENT with line and reason when `source` is not the known subset of Jinja, or nested
// deeper than kMaxTreeDepth.
[[nodiscard]] StatusOr<Body> Parse(absl::string_view source);

}  // namespace tessera::server::jinja
