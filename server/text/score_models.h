// Models without a list of merges: SentencePiece's BPE and Unigram, WordPiece, WordLevel.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "server/text/byte_trie.h"
#include "server/text/merge.h"
#include "server/text/model.h"

namespace tessera::server {

// kWhole: found before anything merges, and never merged; Unigram prefers it by a score of its
// own. kUnused: what merging makes of it is taken apart again; Unigram never chooses it.
enum class ScoredUse : uint8_t { kOrdinary, kWhole, kUnused };

struct ScoredToken {
  absl::string_view text;
  TokenId id = 0;
  double score = 0;
  ScoredUse use = ScoredUse::kOrdinary;
};

// How Unigram adds up scores: sentencepiece has 32 bits, `tokenizers` 64, and ties depend on it.
enum class ScoreSum { kFloat, kDouble };

struct ScoreOptions {
  std::optional<TokenId> unknown;
  // The token of each byte, kNoSymbol where there is none.
  std::optional<std::array<uint32_t, 256>> byte_tokens;
  ScoreSum sum = ScoreSum::kFloat;
  UnknownRuns unknown_runs = UnknownRuns::kOneEach;  // of SpmBpeModel
};

// SentencePiece BPE: of neighbours whose joined text is a token, the one of highest score merges
// first. What is no token in the end becomes byte tokens, or unknown.
class SpmBpeModel : public Model {
 public:
  // INVALID_ARGUMENT when a score is not a number, or there are neither byte tokens nor an unknown
  // token.
  static StatusOr<std::unique_ptr<SpmBpeModel>> Create(const std::vector<ScoredToken>& tokens,
                                                       const ScoreOptions& options);
  Status Encode(absl::string_view piece, TokenSink* sink) const override;
  [[nodiscard]] std::optional<TokenId> Find(absl::string_view text) const override {
    return vocabulary_.Find(text);
  }

 private:
  SpmBpeModel(const std::vector<Vocabulary::Entry>& entries, const ScoreOptions& options);
  // `first`: how many tokens the sink had before the piece.
  void EncodeWord(absl::string_view word, size_t base, size_t first, TokenSink* sink) const;
  [[nodiscard]] std::vector<Symbol> SymbolsOf(absl::string_view word) const;
  PairMerge Lookup(absl::string_view word, const Symbol& left, const Symbol& right) const;
  // `symbols` with unused tokens in their halves, whose lengths `halves` has.
  [[nodiscard]] std::vector<Symbol> TakeApart(
      absl::string_view word, const std::vector<Symbol>& symbols,
      const absl::flat_hash_map<TokenId, uint32_t>& halves) const;
  // Writes the symbol's token, its bytes or the unknown token.
  void Emit(absl::string_view word, const Symbol& symbol, size_t base, size_t first,
            TokenSink* sink) const;

  ScoreOptions options_;
  Vocabulary vocabulary_;
  std::vector<uint32_t> ranks_;  // by token id; equal scores have equal ranks
  ByteTrie whole_symbols_;       // texts of ScoredUse::kWhole
  std::vector<ScoredUse> uses_;  // by token id
  bool has_unused_ = false;
  std::unique_ptr<std::atomic<uint8_t>[]> whole_;
  bool splits_at_mark_ = true;
};

// Unigram: the segmentation of highest total score. Characters that no token covers are unknown;
// neighbouring ones are one unknown token, or their bytes when all of them are tokens.
class UnigramModel : public Model {
 public:
  // INVALID_ARGUMENT when a score is not finite, or there are neither byte tokens nor an unknown
  // token.
  static StatusOr<std::unique_ptr<UnigramModel>> Create(const std::vector<ScoredToken>& tokens,
                                                        const ScoreOptions& options);
  Status Encode(absl::string_view piece, TokenSink* sink) const override;
  [[nodiscard]] std::optional<TokenId> Find(absl::string_view text) const override;

 private:
  explicit UnigramModel(const ScoreOptions& options) : options_(options) {}
  // Adds the word's tokens; `score` is that of all words before it, and becomes that of this one
  // too, since sums are rounded.
  template <typename Score>
  void EncodeWord(absl::string_view word, size_t base, Score* score, TokenSink* sink) const;
  template <typename Score>
  void EncodeAs(absl::string_view piece, TokenSink* sink) const;
  void EmitUnknown(absl::string_view run, size_t base, TokenSink* sink) const;

  ScoreOptions options_;
  ByteTrie trie_;
  std::vector<double> scores_;
  double unknown_score_ = 0;
  bool splits_at_mark_ = true;
};

struct WordPieceOptions {
  TokenId unknown = 0;
  std::string word_prefix;          // written before a word's first token ("" or "▁")
  std::string continuation_prefix;  // written before the others ("##" or "")
  size_t max_word_characters = 100;
};

// WordPiece: the longest token first, from left to right; a word with a part that is none is
// unknown as a whole.
class WordPieceModel : public Model {
 public:
  WordPieceModel(const std::vector<Vocabulary::Entry>& entries, WordPieceOptions options);
  Status Encode(absl::string_view piece, TokenSink* sink) const override;
  [[nodiscard]] std::optional<TokenId> Find(absl::string_view text) const override;

 private:
  WordPieceOptions options_;
  ByteTrie trie_;
  uint32_t first_node_ = ByteTrie::kRoot;  // behind the prefix of a word's first token
  uint32_t later_node_ = ByteTrie::kRoot;  // behind that of the others
};

// WordLevel: a piece is a token or unknown.
class WordLevelModel : public Model {
 public:
  WordLevelModel(const std::vector<Vocabulary::Entry>& entries, std::optional<TokenId> unknown)
      : vocabulary_(entries), unknown_(unknown) {}
  // INVALID_ARGUMENT when the piece is no token and there is no unknown token.
  Status Encode(absl::string_view piece, TokenSink* sink) const override;
  [[nodiscard]] std::optional<TokenId> Find(absl::string_view text) const override {
    return vocabulary_.Find(text);
  }

 private:
  Vocabulary vocabulary_;
  std::optional<TokenId> unknown_;
};

}  // namespace tessera::server
