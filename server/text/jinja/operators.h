// Arithmetic on values, as Python's.
#pragma once

#include "absl/strings/string_view.h"
#include "server/text/jinja/interpreter.h"

namespace tessera::server::jinja {

// `op` is "+", "-", "*", "/", "//", "%", "**" or "~". INVALID_ARGUMENT when the types do not fit, a
// divisor is zero or an integer leaves 64 bits.
[[nodiscard]] StatusOr<Value> Apply(Interpreter& interpreter, absl::string_view op, const Value& a,
                                    const Value& b);

// object[begin:end:step]; undefined bounds are absent ones.
[[nodiscard]] StatusOr<Value> Slice(Interpreter& interpreter, const Value& object,
                                    const Value* begin, const Value* end, const Value* step);

}  // namespace tessera::server::jinja
