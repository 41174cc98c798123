// The decoder of tokenizer.json, as far as it can be told token by token.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "config/foundation/status.h"
#include "server/text/regex.h"
#include "server/text/token_bytes.h"

namespace tessera::server {

// What the decoder makes of each token's text. Bytes that a byte-fallback vocabulary writes one by
// one are repaired character by character, not run by run. Immutable.
class TokenDecoder {
 public:
  enum class Place { kFirst, kLater };

  // `json` may be null: tokens are then words with a space between. INVALID_ARGUMENT naming what
  // is unknown, or needs the whole text.
  static StatusOr<TokenDecoder> Read(const nlohmann::json& json);

  // The bytes that a token of this text writes. INVALID_ARGUMENT when they are too many.
  [[nodiscard]] StatusOr<std::string> Write(absl::string_view token, Place place) const;
  // Whether texts like "<0xAB>" are bytes.
  [[nodiscard]] bool falls_back_to_bytes() const { return byte_fallback_; }
  // What is true of most tokens at the start of a text; Write tells of each.
  [[nodiscard]] FirstToken first_token() const { return first_token_; }
  // Whether first_token is about the text, whichever token begins it, so that Write does not know.
  [[nodiscard]] bool strips_text() const { return strips_text_; }

 private:
  enum class Kind { kJoin, kByteLevel, kMetaspace, kReplace, kStrip, kWordPiece, kCleanup };
  struct Step {
    Kind kind = Kind::kJoin;
    std::optional<Regex> pattern;  // kReplace
    std::string text;              // the mark, the content, or the prefix
    size_t start = 0;              // kStrip: how many characters at most
    size_t stop = 0;
    bool spaces_first = false;  // kMetaspace: whether the first token keeps its spaces
  };

  Status Add(const nlohmann::json& json, bool fused);
  Status AddStrip(const nlohmann::json& json, bool fused);
  static StatusOr<std::string> Apply(const Step& step, std::string text, Place place);

  std::vector<Step> steps_;
  bool byte_fallback_ = false;
  bool strips_text_ = false;
  FirstToken first_token_ = FirstToken::kAsOthers;
};

}  // namespace tessera::server
