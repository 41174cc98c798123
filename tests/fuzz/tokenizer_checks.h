// What must hold of any tokenizer that could be made, whatever its file said.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string>

#include "absl/strings/string_view.h"
#include "server/text/detokenizer.h"
#include "server/text/tokenizer.h"
#include "server/text/utf8.h"

namespace tessera::fuzz {

inline void Require(bool condition) {
  if (!condition) std::abort();
}

// Texts go to ids of the vocabulary and back to valid UTF-8; ranges lie in the text.
inline void CheckText(const server::Tokenizer& tokenizer, absl::string_view text) {
  using server::AddSpecial;
  using server::ParseSpecial;
  const auto ids = tokenizer.Encode(text, {AddSpecial::kNone, ParseSpecial::kOn});
  const auto ranged = tokenizer.EncodeWithRanges(text, {AddSpecial::kNone, ParseSpecial::kOn});
  Require(ids.ok() == ranged.ok());
  if (!ids.ok()) return;
  Require(ranged->ids == *ids);
  Require(ranged->ranges.size() == ids->size());
  for (const auto& range : ranged->ranges) {
    Require(range.begin <= range.end && range.end <= text.size());
  }
  for (const TokenId id : *ids) Require(id < tokenizer.vocab_size());
  const std::string whole = server::Decode(tokenizer.token_bytes(), *ids, {});
  std::string streamed, repaired;
  server::Detokenizer detokenizer(tokenizer.token_bytes(), {});
  for (const TokenId id : *ids) detokenizer.Append(id, &streamed);
  detokenizer.Flush(&streamed);
  Require(streamed == whole);
  server::Utf8Repair repair;
  repair.Append(whole, &repaired);
  repair.Flush(&repaired);
  Require(repaired == whole);
  // Data is read as a text whose control tokens are not parsed.
  const auto plain = tokenizer.Encode(text, {AddSpecial::kNone, ParseSpecial::kOff});
  const auto data = tokenizer.EncodeSegments(
      std::vector<server::TextSegment>{{std::string(text), server::TextOrigin::kData}});
  Require(plain.ok() == data.ok());
  if (plain.ok()) Require(*plain == *data);
}

inline void CheckTokenizer(const server::Tokenizer& tokenizer, absl::string_view text) {
  CheckText(tokenizer, "");
  CheckText(tokenizer, "Hello  wor\xC3\xA4ld 12345 <s> \xF0\x9F\x98\x80\n\t'll");
  CheckText(tokenizer, text.substr(0, 256));
  (void)tokenizer.Encode(text.substr(0, 64), {});
  Require(!tokenizer.bos() || *tokenizer.bos() < tokenizer.vocab_size());
  Require(!tokenizer.eos() || *tokenizer.eos() < tokenizer.vocab_size());
}

}  // namespace tessera::fuzz
