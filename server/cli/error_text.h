// A server's error message as the parts that it was made of.
#pragma once

#include "absl/strings/string_view.h"
#include "config/foundation/status.h"

namespace tessera::server::cli {

// Takes "what; where: W; why: Y; fix: F", each part but the first of which may be missing, apart
// (config/foundation/status.h); any other text is `what`.
[[nodiscard]] ErrorParts PartsOfText(absl::string_view text);

}  // namespace tessera::server::cli
