// Tokens to text, token by token, never showing half a character.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "config/foundation/ids.h"
#include "server/text/token_bytes.h"
#include "server/text/utf8.h"

namespace tessera::server {

// Whether control tokens write their names.
enum class ShowSpecial { kNo, kYes };
// What becomes of the space that a SentencePiece vocabulary puts before the first word: kKeep is
// right behind a prompt, kStrip where the tokens are a text of their own.
enum class LeadingSpace { kKeep, kStrip };

struct DecodeOptions {
  ShowSpecial show_special = ShowSpecial::kNo;
  // kStrip acts only for vocabularies that add such a space.
  LeadingSpace leading_space = LeadingSpace::kKeep;
};

// One stream of tokens. What is appended to `out` is always valid UTF-8; at most 3 bytes are held
// back, and broken bytes become U+FFFD as Python's errors="replace" writes them. The concatenation
// of all that is appended equals Decode() of all tokens. Not thread-safe.
class Detokenizer {
 public:
  // `bytes` must outlive the object.
  Detokenizer(const TokenBytes& bytes, const DecodeOptions& options);

  // Appends what `id` completes; an id outside the vocabulary writes nothing.
  void Append(TokenId id, std::string* out);
  // Ends the stream.
  void Flush(std::string* out) { repair_.Flush(out); }
  [[nodiscard]] size_t held_back_bytes() const { return repair_.held_back_bytes(); }

 private:
  const TokenBytes& bytes_;
  DecodeOptions options_;
  bool strip_next_ = false;
  Utf8Repair repair_;
};

// The raw bytes of `ids`, and the whole text.
[[nodiscard]] std::string DecodeBytes(const TokenBytes& bytes, std::span<const TokenId> ids,
                                      const DecodeOptions& options);
[[nodiscard]] std::string Decode(const TokenBytes& bytes, std::span<const TokenId> ids,
                                 const DecodeOptions& options);

}  // namespace tessera::server
