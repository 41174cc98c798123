// Text operations that filters and methods share, within an interpreter's limits.
#pragma once

#include <vector>

#include "server/text/jinja/interpreter.h"
#include "server/text/jinja/text_ops.h"

namespace tessera::server::jinja {

[[nodiscard]] StatusOr<Value> ReplaceText(Interpreter& interpreter, const MarkedText& text,
                                          const MarkedText& from, const MarkedText& to,
                                          int64_t count);
[[nodiscard]] StatusOr<Value> PadText(Interpreter& interpreter, const MarkedText& text,
                                      int64_t width, const MarkedText& fill, Side text_side);
[[nodiscard]] StatusOr<std::vector<MarkedText>> SplitTextLines(Interpreter& interpreter,
                                                               const MarkedText& text,
                                                               LineEnds ends);
// With entities for what means something in HTML.
[[nodiscard]] StatusOr<MarkedText> EscapeHtml(Interpreter& interpreter, const MarkedText& text);
// The texts of `items` with `separator` between them.
[[nodiscard]] StatusOr<Value> JoinItems(Interpreter& interpreter, const List& items,
                                        const MarkedText& separator);
[[nodiscard]] StatusOr<Value> TextList(Interpreter& interpreter, std::vector<MarkedText> parts);

}  // namespace tessera::server::jinja
