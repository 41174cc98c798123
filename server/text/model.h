// A tokenizer's model: from a piece of text to token ids.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "config/foundation/ids.h"
#include "config/foundation/status.h"

namespace tessera::server {

// The limits on a vocabulary file; more is refused by name before memory is taken for it.
inline constexpr size_t kMaxVocabularyTokens = size_t{1} << 22;
inline constexpr size_t kMaxTokenTextBytes = size_t{1} << 16;
inline constexpr size_t kMaxVocabularyBytes = size_t{1} << 28;

// Whether neighbouring unknown characters are one unknown token.
enum class UnknownRuns { kOneEach, kFused };

// Where a model writes: ids, and for each the offset in the piece where it ends (when asked for).
class TokenSink {
 public:
  enum class Ends { kIgnored, kKept };
  TokenSink(std::vector<TokenId>* ids, Ends ends) : ids_(ids), ends_wanted_(ends) {}

  void Add(TokenId id, size_t end) {
    ids_->push_back(id);
    if (ends_wanted_ == Ends::kKept) ends_.push_back(static_cast<uint32_t>(end));
  }
  // Drops tokens until `count` are left of all that the sink has seen.
  void Truncate(size_t count) {
    ids_->resize(count);
    if (ends_wanted_ == Ends::kKept) ends_.resize(count);
  }
  [[nodiscard]] size_t count() const { return ids_->size(); }
  [[nodiscard]] TokenId last() const { return ids_->back(); }
  void ExtendLast(size_t end) {
    if (ends_wanted_ == Ends::kKept) ends_.back() = static_cast<uint32_t>(end);
  }
  [[nodiscard]] std::vector<uint32_t>& ends() { return ends_; }

 private:
  std::vector<TokenId>* ids_;
  Ends ends_wanted_;
  std::vector<uint32_t> ends_;
};

// Token texts by content. Texts are copied once into one allocation.
class Vocabulary {
 public:
  struct Entry {
    absl::string_view text;
    TokenId id = 0;
  };
  // Of equal texts the last entry counts.
  explicit Vocabulary(const std::vector<Entry>& entries);
  Vocabulary(const Vocabulary&) = delete;
  Vocabulary& operator=(const Vocabulary&) = delete;

  [[nodiscard]] std::optional<TokenId> Find(absl::string_view text) const {
    const auto it = ids_.find(text);
    if (it == ids_.end()) return std::nullopt;
    return it->second;
  }
  [[nodiscard]] size_t longest_bytes() const { return longest_bytes_; }

 private:
  std::string storage_;
  absl::flat_hash_map<absl::string_view, TokenId> ids_;
  size_t longest_bytes_ = 0;
};

// Immutable, thread-safe.
class Model {
 public:
  virtual ~Model() = default;
  // Appends the tokens of `piece`: valid UTF-8, or any bytes for a byte-level model.
  virtual Status Encode(absl::string_view piece, TokenSink* sink) const = 0;
  // The token whose text (raw bytes for a byte-level model) is `text`.
  [[nodiscard]] virtual std::optional<TokenId> Find(absl::string_view text) const = 0;
};

}  // namespace tessera::server
