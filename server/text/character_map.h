// SentencePiece's precompiled character map: which bytes of a text become which others.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "config/foundation/status.h"
#include "server/text/normalizer.h"

namespace tessera::server {

// A double-array trie (darts-clone) of texts, and what replaces each. Immutable, thread-safe.
class CharacterMap {
 public:
  struct Match {
    size_t length = 0;  // bytes of the text
    absl::string_view replacement;
  };

  // `bytes`: the size of the trie in bytes (32 bits), the trie, and the replacements, each ended by
  // a zero byte. INVALID_ARGUMENT when sizes do not fit together.
  static StatusOr<CharacterMap> Parse(absl::string_view bytes);

  // The longest, or the shortest, text of the map that `text` begins with.
  [[nodiscard]] std::optional<Match> Longest(absl::string_view text) const;
  [[nodiscard]] std::optional<Match> Shortest(absl::string_view text) const;

 private:
  enum class Stop { kAtFirst, kAtLast };
  [[nodiscard]] std::optional<Match> Search(absl::string_view text, Stop stop) const;
  [[nodiscard]] absl::string_view ReplacementAt(uint32_t offset) const;

  std::vector<uint32_t> units_;
  std::string replacements_;
};

// Looks up whole grapheme clusters of less than 6 bytes, then their characters, as `tokenizers`.
std::unique_ptr<NormalizerStep> MakeCharacterMapStep(CharacterMap map);

}  // namespace tessera::server
