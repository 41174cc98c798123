// Byte-pair encoding by a list of merges: byte-level (GPT-2) or by characters with byte fallback.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "server/text/merge.h"
#include "server/text/model.h"

namespace tessera::server {

enum class BpeUnit { kByte, kCharacter };
// A merge of texts that are no tokens: an error, or an intermediate step (GGUF).
enum class UnknownMerge { kRefuse, kKeep };
// Of two merges of the same pair, the one that counts.
enum class SameMerge { kFirstCounts, kLastCounts };
enum class WholeWords { kByMerges, kFirst };
// Whether a byte-level vocabulary may lack bytes; without an unknown token they are dropped.
enum class MissingBytes { kRefuse, kAllow };

struct BpeOptions {
  BpeUnit unit = BpeUnit::kByte;
  UnknownMerge unknown_merge = UnknownMerge::kRefuse;
  SameMerge same_merge = SameMerge::kFirstCounts;
  // kFirst: a piece that is a token is that token (tokenizer.json's ignore_merges).
  WholeWords whole_words = WholeWords::kByMerges;
  UnknownRuns unknown_runs = UnknownRuns::kOneEach;
  MissingBytes missing_bytes = MissingBytes::kRefuse;
  std::optional<TokenId> unknown;
  // For kCharacter: the token of each byte, kNoSymbol where there is none. A character that is no
  // token becomes its bytes when all of them are tokens.
  std::optional<std::array<uint32_t, 256>> byte_tokens;
  // Written before each unit but a word's first, and behind its last, when it is looked up.
  std::string continuing_prefix;
  std::string word_suffix;
};

using MergeTexts = std::pair<absl::string_view, absl::string_view>;

class BpeModel : public Model {
 public:
  // `entries` are the mergeable tokens (raw bytes when unit is kByte), `merges` in rank order, in
  // the same writing. INVALID_ARGUMENT when a merge names no token, or a byte has no token where
  // it must have one.
  static StatusOr<std::unique_ptr<BpeModel>> Create(const std::vector<Vocabulary::Entry>& entries,
                                                    const std::vector<MergeTexts>& merges,
                                                    const BpeOptions& options);

  Status Encode(absl::string_view piece, TokenSink* sink) const override;
  [[nodiscard]] std::optional<TokenId> Find(absl::string_view text) const override {
    return vocabulary_.Find(text);
  }

 private:
  // What merging makes of a token's own text; learned as pieces come, one byte a token.
  enum WholeState : uint8_t { kUntried, kWhole, kSplit };

  BpeModel(const std::vector<Vocabulary::Entry>& entries, const BpeOptions& options);
  Status AddMerges(const std::vector<MergeTexts>& merges);
  StatusOr<uint32_t> SymbolOf(absl::string_view text, size_t merge_index);
  Status CheckUnits() const;
  // The token of the unit word[begin, begin + length) with what is written around it.
  [[nodiscard]] uint32_t UnitToken(absl::string_view word, size_t begin, size_t length) const;
  void EncodeWord(absl::string_view word, size_t base, TokenSink* sink) const;
  [[nodiscard]] bool HasByteTokens(absl::string_view unit) const;
  void Split(absl::string_view word, std::vector<Symbol>* symbols) const;
  void Emit(absl::string_view word, size_t base, const std::vector<Symbol>& symbols,
            TokenSink* sink) const;

  BpeOptions options_;
  Vocabulary vocabulary_;
  TokenId first_extra_ = 0;         // symbols from here on are texts that are no tokens
  std::vector<std::string> extra_;  // their texts
  absl::flat_hash_map<std::string, uint32_t> extra_ids_;
  std::array<uint32_t, 256> byte_symbols_{};
  absl::flat_hash_map<uint64_t, PairMerge> merges_;
  std::unique_ptr<std::atomic<uint8_t>[]> whole_;
  bool splits_at_mark_ = false;  // no token has the space mark behind another character
};

}  // namespace tessera::server
