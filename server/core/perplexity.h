// Perplexity of a text, measured as llama.cpp's llama-perplexity does, so that figures compare: the
// text is cut into pieces of one context, each is computed alone, and the tokens of its second half
// count.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "config/foundation/ids.h"
#include "config/foundation/status.h"

namespace tessera::server {

// The log-probability of each of `ids` from index `from` (at least 1) on, given those before it.
using TokenScorer =
    std::function<StatusOr<std::vector<float>>(std::span<const TokenId> ids, uint32_t from)>;

struct PerplexityOptions {
  uint32_t context = 512;        // tokens of a piece, at least 4
  uint64_t max_tokens = 0;       // of the text; 0: all
  std::optional<TokenId> begin;  // takes the place of each piece's first token
  std::function<void(uint64_t done, uint64_t total)> progress;  // in tokens; may be empty
};

struct Perplexity {
  double value = 0;      // exp of the mean negative log-probability
  double deviation = 0;  // standard error of `value`
  uint64_t tokens = 0;   // of the text that were computed
  uint64_t scored = 0;   // of them, those that count
};

// INVALID_ARGUMENT for a context outside its range, or a text shorter than two of them; else what
// `score` returns.
[[nodiscard]] StatusOr<Perplexity> MeasurePerplexity(std::span<const TokenId> text,
                                                     const PerplexityOptions& options,
                                                     const TokenScorer& score);

}  // namespace tessera::server
