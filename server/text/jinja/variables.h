// Which variables a template reads.
#pragma once

#include <set>
#include <string>

#include "server/text/jinja/ast.h"

namespace tessera::server::jinja {

// The names that some way through the template reads before anything sets them, without those of
// global functions.
[[nodiscard]] std::set<std::string> VariablesRead(const Body& body);

}  // namespace tessera::server::jinja
