// Normalization as SentencePiece's own library does it: character map, spaces and user-defined
// symbols in one pass, since each looks at what the others leave.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/text/character_map.h"
#include "server/text/normalizer.h"

namespace tessera::server {

struct SentencePieceRules {
  std::optional<CharacterMap> map;
  // Texts (not empty) that are kept as they are wherever they stand; the longest counts.
  std::vector<std::string> symbols;
  bool remove_extra_whitespaces = true;  // runs of spaces are one, those at both ends go
  bool add_dummy_prefix = true;          // a space before what is not empty
};

// Spaces become U+2581.
std::unique_ptr<NormalizerStep> MakeSentencePieceStep(SentencePieceRules rules);

}  // namespace tessera::server
