// Pieces of the canonical text of manifests: one text for one value, on every machine.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "blockzoo/attributes.h"

namespace tessera::blockzoo {

// A JSON string; bytes that are not UTF-8 become U+FFFD.
[[nodiscard]] std::string JsonText(absl::string_view text);
// 17 significant digits, always with a point or an exponent, so that it reads back as a double.
// Infinities and NaN, which no parser of ours lets in, give "null".
[[nodiscard]] std::string JsonNumber(double value);
[[nodiscard]] std::string JsonObject(const Attributes& attributes);

}  // namespace tessera::blockzoo
