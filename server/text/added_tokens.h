// Tokens that are found in a text before it is normalized: control tokens and user-defined ones.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "config/foundation/ids.h"
#include "server/text/aligned_text.h"

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

// Finds the leftmost longest tokens through a trie. Immutable, thread-safe.
class AddedTokens {
 public:
  AddedTokens() = default;
  // Of tokens with equal text the last counts; empty texts are ignored.
  explicit AddedTokens(std::vector<AddedToken> tokens);

  // Cuts `text` (valid UTF-8) into fragments in order. A special token is found only when it lies
  // inside one of the ranges `special_ranges` (sorted, apart).
  [[nodiscard]] std::vector<Fragment> Split(absl::string_view text,
                                            const std::vector<ByteRange>& special_ranges) const;
  [[nodiscard]] std::optional<TokenId> Find(absl::string_view text) const;
  [[nodiscard]] const std::vector<AddedToken>& tokens() const { return tokens_; }

 private:
  static constexpr uint32_t kNone = UINT32_MAX;

  // The longest token that begins at `pos` and may stand there; kNone when there is none.
  uint32_t Match(absl::string_view text, size_t pos, ByteRange special_range) const;

  std::vector<AddedToken> tokens_;
  std::vector<uint32_t> token_at_;  // by trie node
  absl::flat_hash_map<uint64_t, uint32_t> edges_;
  std::array<bool, 256> first_bytes_{};
};

}  // namespace tessera::server
