// Element types as words of the command line: "f8-channel" is F8_CHANNEL, "q4_k" is Q4_K.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "config/foundation/status.h"
#include "kernels/dtype.h"

namespace tessera::server::cli {

// Whether a command takes a type.
using TakesDType = bool (*)(kernels::DType dtype);

// The words of the weight types that `takes` takes.
[[nodiscard]] std::vector<std::string> DTypeWords(TakesDType takes);
// INVALID_ARGUMENT with `option` and the known words for another word.
[[nodiscard]] StatusOr<kernels::DType> DTypeOfWord(absl::string_view option, absl::string_view word,
                                                   TakesDType takes);

}  // namespace tessera::server::cli
