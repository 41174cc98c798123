// Numbers of JSON as the `tokenizers` library reads them.
#pragma once

#include "absl/strings/string_view.h"

namespace tessera::server {

// The value of a JSON number as serde_json computes it: the digits that fit into 64 bits, times or
// over a power of ten. It may be one unit in the last place off the nearest double, on which ties
// between scores depend. `text` must be a number of JSON's grammar.
[[nodiscard]] double SerdeNumber(absl::string_view text);

}  // namespace tessera::server
