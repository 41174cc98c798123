// JSON text (RFC 8259) to a tree. A reader of our own because the usual libraries keep no places.
#pragma once

#include <optional>
#include <vector>

#include "config/tree.h"

namespace tessera {

// `text` has passed `CheckText`. Numbers keep the text that they were written in. Refused, with a
// problem at the place: anything that is not JSON, repeated keys, more than `kMaxDepth` levels,
// text after the value.
[[nodiscard]] std::optional<Node> ReadJson(absl::string_view text, absl::string_view file,
                                           std::vector<Problem>* problems);

}  // namespace tessera
