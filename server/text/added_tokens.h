// Tokens that are found in a text before anything else: control tokens and user-defined ones.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "config/foundation/ids.h"
#include "server/text/aligned_text.h"
#include "server/text/byte_trie.h"

namespace tessera::server {

struct AddedToken {
  std::string text;
  TokenId id = 0;
  bool special = false;      // found only where special tokens may be parsed
  bool single_word = false;  // not found inside a word
  bool lstrip = false;       // swallows white space before it
  bool rstrip = false;       // swallows white space behind it
};

// A part of a text: one added token, or text between them.
struct Fragment {
  ByteRange range;
  std::optional<TokenId> token;
};

// Finds the leftmost longest tokens, as the `tokenizers` library does: one that may not stand where
// it is found is text, and the search goes on behind it. Only a special token that lies partly in
// data hides nothing of what begins inside it. Immutable, thread-safe.
class AddedTokens {
 public:
  AddedTokens() = default;
  // Of tokens with equal text the first counts; empty texts are ignored.
  explicit AddedTokens(std::vector<AddedToken> tokens);

  // Cuts `text` (valid UTF-8) into fragments in order; white space that a token swallowed may be in
  // those behind it again. A special token is found only when it lies inside one of the ranges
  // `special_ranges` (sorted, apart).
  [[nodiscard]] std::vector<Fragment> Split(absl::string_view text,
                                            const std::vector<ByteRange>& special_ranges) const;
  [[nodiscard]] std::optional<TokenId> Find(absl::string_view text) const;
  [[nodiscard]] const std::vector<AddedToken>& tokens() const { return tokens_; }
  [[nodiscard]] bool has_special() const { return has_special_; }

 private:
  std::vector<AddedToken> tokens_;
  ByteTrie trie_;
  bool has_special_ = false;
};

}  // namespace tessera::server
