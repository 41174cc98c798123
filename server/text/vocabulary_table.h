// The common middle form of GGUF and SentencePiece vocabularies, and what is read from it.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "config/foundation/ids.h"
#include "config/foundation/status.h"
#include "server/text/added_tokens.h"
#include "server/text/score_models.h"
#include "server/text/token_bytes.h"

namespace tessera::server {

struct TableToken {
  std::string text;
  float score = 0;
  TokenKind kind = TokenKind::kNormal;
};

// The byte that a byte-fallback name "<0xAB>" stands for.
[[nodiscard]] std::optional<uint8_t> ByteOfName(absl::string_view text);
// The token of each byte; nullopt unless all 256 exist.
[[nodiscard]] std::optional<std::array<uint32_t, 256>> ByteTokens(
    const std::vector<TableToken>& tokens);
// Control and unknown tokens as special ones, user-defined tokens as ordinary ones.
[[nodiscard]] AddedTokens AddedFrom(const std::vector<TableToken>& tokens);
// Tokens that merging may make: normal, user-defined and unused ones, all for ordinary use.
[[nodiscard]] std::vector<ScoredToken> MergeableTokens(const std::vector<TableToken>& tokens);
// SentencePiece's writing: U+2581 is a space, byte names are bytes.
[[nodiscard]] TokenBytes BytesOfMarkedTokens(const std::vector<TableToken>& tokens);
// `id` as a token id; INVALID_ARGUMENT naming `field` when it is outside [0, count).
[[nodiscard]] StatusOr<TokenId> CheckId(int64_t id, size_t count, absl::string_view field);
// INVALID_ARGUMENT when the table is empty or larger than the limits of model.h.
[[nodiscard]] Status CheckTable(const std::vector<TableToken>& tokens);

}  // namespace tessera::server
