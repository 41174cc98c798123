// What each token writes: its raw bytes in the middle of a text, and what kind of token it is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "config/foundation/ids.h"

namespace tessera::server {

// The kinds of SentencePiece and GGUF, with their numbers.
enum class TokenKind : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,      // special: never made from a user's text, not shown in an answer
  kUserDefined = 4,  // added, and found in any text
  kUnused = 5,
  kByte = 6,
};

// What becomes of the spaces that the first token of a text writes.
// kWithoutLeadingSpaces: one of each token for as long as nothing is written.
enum class FirstToken : uint8_t {
  kAsOthers,
  kWithoutOneSpace,
  kWithoutSpaces,
  kWithoutLeadingSpaces
};

// Flat table token -> bytes; leading-space marks and byte-fallback names are resolved. A control
// token's bytes are its name, as the decoder writes it. Immutable once built; thread-safe.
class TokenBytes {
 public:
  // The next id, counting from 0.
  void Add(absl::string_view bytes, TokenKind kind);
  void Reserve(size_t tokens, size_t bytes);
  void set_first_token(FirstToken rule) { first_token_ = rule; }
  // What `id` writes at the start of a text, where the rule does not tell.
  void SetFirst(TokenId id, std::string bytes) { first_.insert_or_assign(id, std::move(bytes)); }

  [[nodiscard]] size_t size() const { return kinds_.size(); }
  // `id` must be below size().
  [[nodiscard]] absl::string_view bytes(TokenId id) const;
  [[nodiscard]] TokenKind kind(TokenId id) const { return kinds_[id]; }
  // What `id` writes as the first token of a text that is decoded alone.
  [[nodiscard]] std::string First(TokenId id) const;
  // Whether the next token is a text's first, too, where `id` was and wrote `first`.
  [[nodiscard]] bool LeavesStart(TokenId id, absl::string_view first) const {
    return first.empty() &&
           (bytes(id).empty() || first_token_ == FirstToken::kWithoutLeadingSpaces);
  }
  // The table itself, for the engine: token i is data[offsets[i], offsets[i + 1]).
  [[nodiscard]] const std::vector<uint32_t>& offsets() const { return offsets_; }
  [[nodiscard]] const std::string& data() const { return data_; }

 private:
  std::vector<uint32_t> offsets_{0};
  std::string data_;
  std::vector<TokenKind> kinds_;
  FirstToken first_token_ = FirstToken::kAsOthers;
  absl::flat_hash_map<TokenId, std::string> first_;
};

}  // namespace tessera::server
