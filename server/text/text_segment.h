// A stretch of a rendered prompt and where its bytes come from.
#pragma once

#include <string>

namespace tessera::server {

// kTemplate: written by the chain's chat template, which the operator trusts. kData: came with the
// request (messages, tools, arguments), so it must not become control tokens.
enum class TextOrigin { kTemplate, kData };

struct TextSegment {
  std::string text;
  TextOrigin origin = TextOrigin::kData;

  bool operator==(const TextSegment&) const = default;
};

}  // namespace tessera::server
