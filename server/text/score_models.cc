#include "server/text/score_models.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/text/utf8.h"

namespace tessera::server {
namespace {

constexpr uint8_t kWhole = 1;
constexpr uint8_t kSplit = 2;
constexpr double kUnknownPenalty = 10.0;

std::vector<Vocabulary::Entry> EntriesOf(const std::vector<ScoredToken>& tokens) {
  std::vector<Vocabulary::Entry> entries;
  entries.reserve(tokens.size());
  for (const ScoredToken& token : tokens) entries.push_back({token.text, token.id});
  return entries;
}

Status CheckTokens(const std::vector<ScoredToken>& tokens, const ScoreOptions& options) {
  for (const ScoredToken& token : tokens) {
    if (!std::isnan(token.score)) continue;
    return Error(absl::StatusCode::kInvalidArgument,
                 {"a token's score is not a number", absl::StrCat("scores[", token.id, "]"), "",
                  "the vocabulary file is damaged; fetch it again"});
  }
  if (options.unknown.has_value() || options.byte_tokens.has_value()) return absl::OkStatus();
  return Error(absl::StatusCode::kInvalidArgument,
               {"the vocabulary cannot write every text", "tokens",
                "it has neither 256 byte tokens nor an unknown token",
                "give unknown_token_id or the byte tokens"});
}

TokenId IdLimit(const std::vector<Vocabulary::Entry>& entries) {
  TokenId limit = 0;
  for (const Vocabulary::Entry& entry : entries) limit = std::max(limit, entry.id + 1);
  return limit;
}

}  // namespace

StatusOr<std::unique_ptr<SpmBpeModel>> SpmBpeModel::Create(const std::vector<ScoredToken>& tokens,
                                                           const ScoreOptions& options) {
  TESSERA_RETURN_IF_ERROR(CheckTokens(tokens, options));
  std::unique_ptr<SpmBpeModel> model(new SpmBpeModel(EntriesOf(tokens), options));
  std::vector<float> scores;
  scores.reserve(tokens.size());
  for (const ScoredToken& token : tokens) scores.push_back(token.score);
  std::sort(scores.begin(), scores.end(), std::greater<>());
  scores.erase(std::unique(scores.begin(), scores.end()), scores.end());
  for (const ScoredToken& token : tokens) {
    const auto it = std::lower_bound(scores.begin(), scores.end(), token.score, std::greater<>());
    model->ranks_[token.id] = static_cast<uint32_t>(it - scores.begin());
  }
  return model;
}

SpmBpeModel::SpmBpeModel(const std::vector<Vocabulary::Entry>& entries, const ScoreOptions& options)
    : options_(options), vocabulary_(entries) {
  const TokenId limit = IdLimit(entries);
  ranks_.resize(limit, kNoMerge);
  whole_ = std::make_unique<std::atomic<uint8_t>[]>(limit);
  for (const Vocabulary::Entry& entry : entries) {
    if (HasInnerSpaceMark(entry.text)) splits_at_mark_ = false;
  }
}

Status SpmBpeModel::Encode(absl::string_view piece, TokenSink* sink) const {
  if (!splits_at_mark_) {
    EncodeWord(piece, 0, sink);
    return absl::OkStatus();
  }
  ForEachMarkedWord(piece, kSpaceMark, [&](size_t begin, size_t end) {
    EncodeWord(piece.substr(begin, end - begin), begin, sink);
  });
  return absl::OkStatus();
}

Merge SpmBpeModel::Lookup(absl::string_view word, const Symbol& left, const Symbol& right) const {
  const size_t length = size_t{left.length} + right.length;
  if (length > vocabulary_.longest_bytes()) return {};
  const std::optional<TokenId> id = vocabulary_.Find(word.substr(left.begin, length));
  if (!id.has_value()) return {};
  return {ranks_[*id], *id};
}

void SpmBpeModel::EncodeWord(absl::string_view word, size_t base, TokenSink* sink) const {
  const std::optional<TokenId> token = vocabulary_.Find(word);
  if (token.has_value() && whole_[*token].load(std::memory_order_relaxed) == kWhole) {
    sink->Add(*token, base + word.size());
    return;
  }
  std::vector<Symbol> symbols;
  symbols.reserve(word.size());
  for (size_t pos = 0; pos < word.size();) {
    const uint32_t length = DecodeUtf8(word, pos).length;
    symbols.push_back({static_cast<uint32_t>(pos), length,
                       vocabulary_.Find(word.substr(pos, length)).value_or(kNoSymbol)});
    pos += length;
  }
  MergeSymbols([&](const Symbol& left, const Symbol& right) { return Lookup(word, left, right); },
               &symbols);
  if (token.has_value()) {
    const bool whole = symbols.size() == 1 && symbols[0].id == *token;
    whole_[*token].store(whole ? kWhole : kSplit, std::memory_order_relaxed);
  }
  for (const Symbol& symbol : symbols) {
    const size_t begin = base + symbol.begin;
    if (symbol.id != kNoSymbol) {
      sink->Add(symbol.id, begin + symbol.length);
    } else if (options_.byte_tokens.has_value()) {
      for (uint32_t i = 0; i < symbol.length; ++i) {
        const uint8_t byte = static_cast<uint8_t>(word[symbol.begin + i]);
        sink->Add((*options_.byte_tokens)[byte], begin + i + 1);
      }
    } else {
      sink->Add(*options_.unknown, begin + symbol.length);
    }
  }
}

StatusOr<std::unique_ptr<UnigramModel>> UnigramModel::Create(const std::vector<ScoredToken>& tokens,
                                                             const ScoreOptions& options) {
  TESSERA_RETURN_IF_ERROR(CheckTokens(tokens, options));
  std::unique_ptr<UnigramModel> model(new UnigramModel(EntriesOf(tokens), options));
  double lowest = 0;
  for (const ScoredToken& token : tokens) {
    if (!std::isfinite(token.score)) {
      return Error(absl::StatusCode::kInvalidArgument,
                   {"a Unigram score is infinite", absl::StrCat("scores[", token.id, "]"), "",
                    "the vocabulary file is damaged; fetch it again"});
    }
    model->scores_[token.id] = token.score;
    lowest = std::min(lowest, double{token.score});
  }
  model->unknown_score_ = lowest - kUnknownPenalty;
  return model;
}

UnigramModel::UnigramModel(const std::vector<Vocabulary::Entry>& entries,
                           const ScoreOptions& options)
    : options_(options), vocabulary_(entries) {
  scores_.resize(IdLimit(entries), 0.0f);
  for (const Vocabulary::Entry& entry : entries) {
    if (HasInnerSpaceMark(entry.text)) splits_at_mark_ = false;
  }
}

Status UnigramModel::Encode(absl::string_view piece, TokenSink* sink) const {
  if (!splits_at_mark_) {
    EncodeWord(piece, 0, sink);
    return absl::OkStatus();
  }
  ForEachMarkedWord(piece, kSpaceMark, [&](size_t begin, size_t end) {
    EncodeWord(piece.substr(begin, end - begin), begin, sink);
  });
  return absl::OkStatus();
}

void UnigramModel::EncodeWord(absl::string_view word, size_t base, TokenSink* sink) const {
  struct Best {
    double score = -std::numeric_limits<double>::infinity();
    uint32_t begin = 0;
    uint32_t id = kNoSymbol;
  };
  std::vector<Best> best(word.size() + 1);
  best[0].score = 0;
  for (size_t pos = 0; pos < word.size();) {
    const uint32_t begin = static_cast<uint32_t>(pos);
    const size_t first = DecodeUtf8(word, pos).length;
    bool covered = false;
    size_t end = pos;
    while (end < word.size()) {
      end += DecodeUtf8(word, end).length;
      if (end - pos > vocabulary_.longest_bytes()) break;
      const std::optional<TokenId> id = vocabulary_.Find(word.substr(pos, end - pos));
      if (!id.has_value()) continue;
      covered = covered || end == pos + first;
      const double score = best[pos].score + scores_[*id];
      if (score > best[end].score) best[end] = {score, begin, *id};
    }
    if (!covered) {
      const double score = best[pos].score + unknown_score_;
      if (score > best[pos + first].score) best[pos + first] = {score, begin, kNoSymbol};
    }
    pos += first;
  }
  std::vector<std::pair<uint32_t, uint32_t>> path;  // (end, id), last first
  for (uint32_t end = static_cast<uint32_t>(word.size()); end > 0; end = best[end].begin) {
    path.emplace_back(end, best[end].id);
  }
  size_t begin = 0;
  for (size_t i = path.size(); i-- > 0;) {
    if (path[i].second != kNoSymbol) {
      sink->Add(path[i].second, base + path[i].first);
    } else {
      // Neighbouring unknown characters are one unknown token.
      while (i > 0 && path[i - 1].second == kNoSymbol) --i;
      EmitUnknown(word, base, begin, path[i].first, sink);
    }
    begin = path[i].first;
  }
}

void UnigramModel::EmitUnknown(absl::string_view word, size_t base, size_t begin, size_t end,
                               TokenSink* sink) const {
  if (!options_.byte_tokens.has_value()) {
    sink->Add(*options_.unknown, base + end);
    return;
  }
  for (size_t i = begin; i < end; ++i) {
    sink->Add((*options_.byte_tokens)[static_cast<uint8_t>(word[i])], base + i + 1);
  }
}

WordPieceModel::WordPieceModel(const std::vector<Vocabulary::Entry>& entries,
                               WordPieceOptions options)
    : options_(std::move(options)), vocabulary_(entries) {}

Status WordPieceModel::Encode(absl::string_view piece, TokenSink* sink) const {
  size_t characters = 0;
  for (const char c : piece) characters += (static_cast<uint8_t>(c) & 0xC0) != 0x80 ? 1 : 0;
  const size_t before = sink->count();
  const auto unknown = [&] {
    sink->Truncate(before);
    sink->Add(options_.unknown, piece.size());
    return absl::OkStatus();
  };
  if (characters > options_.max_word_characters) return unknown();
  std::string candidate;
  size_t pos = 0;
  while (pos < piece.size()) {
    const std::string& prefix = pos == 0 ? options_.word_prefix : options_.continuation_prefix;
    size_t end = std::min(piece.size(), pos + vocabulary_.longest_bytes());
    std::optional<TokenId> id;
    for (; end > pos; --end) {
      candidate = absl::StrCat(prefix, piece.substr(pos, end - pos));
      id = vocabulary_.Find(candidate);
      if (id.has_value()) break;
    }
    if (!id.has_value()) return unknown();
    sink->Add(*id, end);
    pos = end;
  }
  return absl::OkStatus();
}

}  // namespace tessera::server
