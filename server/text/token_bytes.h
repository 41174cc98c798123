// What each token writes: its raw bytes in the middle of a text, and what kind of token it is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

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

// Flat table token -> bytes; leading-space marks and byte-fallback names are resolved. A control
// token's bytes are its name. Immutable once built; thread-safe.
class TokenBytes {
 public:
  // The next id, counting from 0.
  void Add(absl::string_view bytes, TokenKind kind);
  void Reserve(size_t tokens, size_t bytes);
  // Whether the first token of a text loses one leading space when it is decoded alone.
  void set_strips_first_space(bool strips) { strips_first_space_ = strips; }

  [[nodiscard]] size_t size() const { return kinds_.size(); }
  // `id` must be below size().
  [[nodiscard]] absl::string_view bytes(TokenId id) const;
  [[nodiscard]] TokenKind kind(TokenId id) const { return kinds_[id]; }
  [[nodiscard]] bool strips_first_space() const { return strips_first_space_; }
  // The table itself, for the engine: token i is data[offsets[i], offsets[i + 1]).
  [[nodiscard]] const std::vector<uint32_t>& offsets() const { return offsets_; }
  [[nodiscard]] const std::string& data() const { return data_; }

 private:
  std::vector<uint32_t> offsets_{0};
  std::string data_;
  std::vector<TokenKind> kinds_;
  bool strips_first_space_ = false;
};

}  // namespace tessera::server
