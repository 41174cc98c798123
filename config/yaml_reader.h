// YAML 1.2 text to a tree, by yaml-cpp's events, so that nothing is built that will be refused.
#pragma once

#include <optional>
#include <vector>

#include "config/tree.h"

namespace tessera {

// `text` has passed `CheckText`. An empty document is an empty map. Refused, with a problem at the
// place: several documents, anchors, aliases, tags, repeated keys, keys that are not text, more
// than `kMaxDepth` levels.
[[nodiscard]] std::optional<Node> ReadYaml(absl::string_view text, absl::string_view file,
                                           std::vector<Problem>* problems);

}  // namespace tessera
