// Python's two ways of formatting: "%s" % x and "{}".format(x).
#pragma once

#include "server/text/jinja/interpreter.h"

namespace tessera::server::jinja {

// `values` is a tuple, a dict for "%(name)s", or one value.
[[nodiscard]] StatusOr<Value> FormatPercent(Interpreter& interpreter, const MarkedText& format,
                                            const Value& values);
[[nodiscard]] StatusOr<Value> FormatBraces(Interpreter& interpreter, const MarkedText& format,
                                           const Call& call);

}  // namespace tessera::server::jinja
