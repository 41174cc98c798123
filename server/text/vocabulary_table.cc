#include "server/text/vocabulary_table.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "server/text/merge.h"

namespace tessera::server {

std::optional<uint8_t> ByteOfName(absl::string_view text) {
  if (text.size() != 6 || text.substr(0, 3) != "<0x" || text[5] != '>') return std::nullopt;
  uint32_t byte = 0;
  for (const char c : text.substr(3, 2)) {
    byte <<= 4;
    if (c >= '0' && c <= '9') {
      byte |= static_cast<uint32_t>(c - '0');
    } else if (c >= 'A' && c <= 'F') {
      byte |= static_cast<uint32_t>(c - 'A' + 10);
    } else {
      return std::nullopt;
    }
  }
  return static_cast<uint8_t>(byte);
}

std::optional<std::array<uint32_t, 256>> ByteTokens(const std::vector<TableToken>& tokens) {
  std::array<uint32_t, 256> ids{};
  std::array<bool, 256> seen{};
  size_t count = 0;
  for (TokenId id = 0; id < tokens.size(); ++id) {
    if (tokens[id].kind != TokenKind::kByte) continue;
    const std::optional<uint8_t> byte = ByteOfName(tokens[id].text);
    if (!byte.has_value() || seen[*byte]) continue;
    seen[*byte] = true;
    ids[*byte] = id;
    ++count;
  }
  if (count < ids.size()) return std::nullopt;
  return ids;
}

AddedTokens AddedFrom(const std::vector<TableToken>& tokens) {
  std::vector<AddedToken> added;
  for (TokenId id = 0; id < tokens.size(); ++id) {
    const TokenKind kind = tokens[id].kind;
    const bool special = kind == TokenKind::kControl || kind == TokenKind::kUnknown;
    if (special || kind == TokenKind::kUserDefined) {
      added.push_back({.text = tokens[id].text, .id = id, .special = special});
    }
  }
  return AddedTokens(std::move(added));
}

std::vector<ScoredToken> MergeableTokens(const std::vector<TableToken>& tokens) {
  std::vector<ScoredToken> scored;
  scored.reserve(tokens.size());
  for (TokenId id = 0; id < tokens.size(); ++id) {
    const TableToken& token = tokens[id];
    if (token.kind == TokenKind::kNormal || token.kind == TokenKind::kUserDefined ||
        token.kind == TokenKind::kUnused) {
      scored.push_back({token.text, id, token.score});
    }
  }
  return scored;
}

TokenBytes BytesOfMarkedTokens(const std::vector<TableToken>& tokens) {
  TokenBytes bytes;
  for (const TableToken& token : tokens) {
    const std::optional<uint8_t> byte =
        token.kind == TokenKind::kByte ? ByteOfName(token.text) : std::nullopt;
    if (byte.has_value()) {
      const char raw = static_cast<char>(*byte);
      bytes.Add(absl::string_view(&raw, 1), token.kind);
    } else {
      bytes.Add(absl::StrReplaceAll(token.text, {{kSpaceMark, " "}}), token.kind);
    }
  }
  return bytes;
}

StatusOr<TokenId> CheckId(int64_t id, size_t count, absl::string_view field) {
  if (id >= 0 && static_cast<uint64_t>(id) < count) return static_cast<TokenId>(id);
  return Error(absl::StatusCode::kInvalidArgument,
               {"token id is outside the vocabulary", std::string(field),
                absl::StrCat(id, " of ", count, " tokens"), "the file is damaged; fetch it again"});
}

Status CheckTable(const std::vector<TableToken>& tokens) {
  size_t bytes = 0;
  for (const TableToken& token : tokens) bytes += token.text.size();
  if (!tokens.empty() && tokens.size() <= kMaxVocabularyTokens && bytes <= kMaxVocabularyBytes) {
    return absl::OkStatus();
  }
  return Error(absl::StatusCode::kInvalidArgument,
               {"vocabulary has no usable size", "tokens",
                absl::StrCat(tokens.size(), " tokens, ", bytes, " bytes"),
                absl::StrCat("1 to ", kMaxVocabularyTokens, " tokens")});
}

}  // namespace tessera::server
