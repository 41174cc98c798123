// What several filters look up in the items of a list.
#pragma once

#include <memory>

#include "server/text/jinja/interpreter.h"

namespace tessera::server::jinja {

// The part of `item` that `path` names: an index, or names and indices with dots between. What is
// not defined becomes `fallback` unless that is null.
[[nodiscard]] StatusOr<Value> AttributeOf(Interpreter& interpreter, const Value& item,
                                          const Value& path, const Value* fallback);
[[nodiscard]] StatusOr<std::shared_ptr<const List>> AttributeOfEach(Interpreter& interpreter,
                                                                    const List& items,
                                                                    const Value& path,
                                                                    const Value* fallback);

// Pairs of keys and values.
[[nodiscard]] StatusOr<Value> DictItems(Interpreter& interpreter, const Dict& dict,
                                        SequenceKind kind);

}  // namespace tessera::server::jinja
