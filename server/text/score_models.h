// Models whose tokens have scores: SentencePiece's BPE and Unigram, and WordPiece beside them.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/text/merge.h"
#include "server/text/model.h"

namespace tessera::server {

struct ScoredToken {
  absl::string_view text;
  TokenId id = 0;
  float score = 0;
};

struct ScoreOptions {
  std::optional<TokenId> unknown;
  // The token of each byte, when the vocabulary has all 256.
  std::optional<std::array<TokenId, 256>> byte_tokens;
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
  void EncodeWord(absl::string_view word, size_t base, TokenSink* sink) const;
  Merge Lookup(absl::string_view word, const Symbol& left, const Symbol& right) const;

  ScoreOptions options_;
  Vocabulary vocabulary_;
  std::vector<uint32_t> ranks_;  // by token id; equal scores have equal ranks
  std::unique_ptr<std::atomic<uint8_t>[]> whole_;
  bool splits_at_mark_ = true;
};

// Unigram: the segmentation of highest total score.
class UnigramModel : public Model {
 public:
  static StatusOr<std::unique_ptr<UnigramModel>> Create(const std::vector<ScoredToken>& tokens,
                                                        const ScoreOptions& options);
  Status Encode(absl::string_view piece, TokenSink* sink) const override;
  [[nodiscard]] std::optional<TokenId> Find(absl::string_view text) const override {
    return vocabulary_.Find(text);
  }

 private:
  UnigramModel(const std::vector<Vocabulary::Entry>& entries, const ScoreOptions& options);
  void EncodeWord(absl::string_view word, size_t base, TokenSink* sink) const;
  void EmitUnknown(absl::string_view word, size_t base, size_t begin, size_t end,
                   TokenSink* sink) const;

  ScoreOptions options_;
  Vocabulary vocabulary_;
  std::vector<float> scores_;
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
  [[nodiscard]] std::optional<TokenId> Find(absl::string_view text) const override {
    return vocabulary_.Find(text);
  }

 private:
  WordPieceOptions options_;
  Vocabulary vocabulary_;
};

}  // namespace tessera::server
