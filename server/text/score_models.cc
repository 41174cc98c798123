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
// The score that sentencepiece gives a token of ScoredUse::kWhole for each byte behind its first.
constexpr double kBonusOfByte = 0.1;

std::vector<Vocabulary::Entry> EntriesOf(const std::vector<ScoredToken>& tokens) {
  std::vector<Vocabulary::Entry> entries;
  entries.reserve(tokens.size());
  for (const ScoredToken& token : tokens) entries.push_back({token.text, token.id});
  return entries;
}

// Adds the tokens of the bytes of `text`; false when there is none for one of them.
bool AddBytes(const ScoreOptions& options, absl::string_view text, size_t base, TokenSink* sink) {
  if (!options.byte_tokens.has_value()) return false;
  const auto token = [&](char c) { return (*options.byte_tokens)[static_cast<uint8_t>(c)]; };
  for (const char c : text) {
    if (token(c) == kNoSymbol) return false;
  }
  for (size_t i = 0; i < text.size(); ++i) sink->Add(token(text[i]), base + i + 1);
  return true;
}

// Whether every byte has a token.
bool HasAllBytes(const ScoreOptions& options) {
  return options.byte_tokens.has_value() &&
         std::find(options.byte_tokens->begin(), options.byte_tokens->end(), kNoSymbol) ==
             options.byte_tokens->end();
}

Status CheckTokens(const std::vector<ScoredToken>& tokens, const ScoreOptions& options) {
  for (const ScoredToken& token : tokens) {
    if (!std::isnan(token.score)) continue;
    return Error(absl::StatusCode::kInvalidArgument,
                 {"a token's score is not a number", absl::StrCat("scores[", token.id, "]"), "",
                  "the vocabulary file is damaged; fetch it again"});
  }
  if (options.unknown.has_value() || HasAllBytes(options)) return absl::OkStatus();
  return Error(absl::StatusCode::kInvalidArgument,
               {"the vocabulary cannot write every text", "tokens",
                "it has neither 256 byte tokens nor an unknown token",
                "give unknown_token_id or the byte tokens"});
}

double LowestOrdinaryScore(const std::vector<ScoredToken>& tokens) {
  std::optional<double> lowest;
  for (const ScoredToken& token : tokens) {
    if (token.use != ScoredUse::kOrdinary) continue;
    lowest = std::min(lowest.value_or(token.score), token.score);
  }
  return lowest.value_or(0);
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
  std::vector<double> scores;
  scores.reserve(tokens.size());
  for (const ScoredToken& token : tokens) scores.push_back(token.score);
  std::sort(scores.begin(), scores.end(), std::greater<>());
  scores.erase(std::unique(scores.begin(), scores.end()), scores.end());
  for (const ScoredToken& token : tokens) {
    const auto it = std::lower_bound(scores.begin(), scores.end(), token.score, std::greater<>());
    model->ranks_[token.id] = static_cast<uint32_t>(it - scores.begin());
    model->uses_[token.id] = token.use;
    model->has_unused_ = model->has_unused_ || token.use == ScoredUse::kUnused;
    if (token.use == ScoredUse::kWhole && !token.text.empty()) {
      model->whole_symbols_.Insert(token.text, token.id);
    }
  }
  return model;
}

SpmBpeModel::SpmBpeModel(const std::vector<Vocabulary::Entry>& entries, const ScoreOptions& options)
    : options_(options), vocabulary_(entries) {
  const TokenId limit = IdLimit(entries);
  ranks_.resize(limit, kNoMerge);
  uses_.resize(limit, ScoredUse::kOrdinary);
  whole_ = std::make_unique<std::atomic<uint8_t>[]>(limit);
  for (const Vocabulary::Entry& entry : entries) {
    if (HasInnerSpaceMark(entry.text)) splits_at_mark_ = false;
  }
}

Status SpmBpeModel::Encode(absl::string_view piece, TokenSink* sink) const {
  const size_t first = sink->count();
  if (!splits_at_mark_) {
    EncodeWord(piece, 0, first, sink);
    return absl::OkStatus();
  }
  ForEachMarkedWord(piece, kSpaceMark, [&](size_t begin, size_t end) {
    EncodeWord(piece.substr(begin, end - begin), begin, first, sink);
  });
  return absl::OkStatus();
}

std::vector<Symbol> SpmBpeModel::SymbolsOf(absl::string_view word) const {
  std::vector<Symbol> symbols;
  symbols.reserve(word.size());
  for (size_t pos = 0; pos < word.size();) {
    const ByteTrie::Found whole = whole_symbols_.Longest(word.substr(pos));
    Symbol symbol{static_cast<uint32_t>(pos), static_cast<uint32_t>(whole.length), whole.value};
    if (whole.length == 0) {
      symbol.length = DecodeUtf8(word, pos).length;
      symbol.id = vocabulary_.Find(word.substr(pos, symbol.length)).value_or(kNoSymbol);
    }
    symbols.push_back(symbol);
    pos += symbol.length;
  }
  return symbols;
}

PairMerge SpmBpeModel::Lookup(absl::string_view word, const Symbol& left,
                              const Symbol& right) const {
  const size_t length = size_t{left.length} + right.length;
  if (length > vocabulary_.longest_bytes()) return {};
  const auto whole = [this](const Symbol& symbol) {
    return symbol.id != kNoSymbol && uses_[symbol.id] == ScoredUse::kWhole;
  };
  if (whole(left) || whole(right)) return {};
  const std::optional<TokenId> id = vocabulary_.Find(word.substr(left.begin, length));
  if (!id.has_value()) return {};
  return {ranks_[*id], *id};
}

void SpmBpeModel::EncodeWord(absl::string_view word, size_t base, size_t first,
                             TokenSink* sink) const {
  const std::optional<TokenId> token = vocabulary_.Find(word);
  if (token.has_value() && whole_[*token].load(std::memory_order_relaxed) == kWhole) {
    sink->Add(*token, base + word.size());
    return;
  }
  std::vector<Symbol> symbols = SymbolsOf(word);
  // The bytes of the left half of each unused token, as it was last found.
  absl::flat_hash_map<TokenId, uint32_t> halves;
  const auto lookup = [&](const Symbol& left, const Symbol& right) {
    const PairMerge merge = Lookup(word, left, right);
    if (has_unused_ && merge.id != kNoSymbol && uses_[merge.id] == ScoredUse::kUnused) {
      halves[merge.id] = left.length;
    }
    return merge;
  };
  MergeSymbols(lookup, &symbols);
  if (has_unused_) symbols = TakeApart(word, symbols, halves);
  if (token.has_value()) {
    const bool whole = symbols.size() == 1 && symbols[0].id == *token;
    whole_[*token].store(whole ? kWhole : kSplit, std::memory_order_relaxed);
  }
  for (const Symbol& symbol : symbols) Emit(word, symbol, base, first, sink);
}

std::vector<Symbol> SpmBpeModel::TakeApart(
    absl::string_view word, const std::vector<Symbol>& symbols,
    const absl::flat_hash_map<TokenId, uint32_t>& halves) const {
  std::vector<Symbol> parts;
  std::vector<Symbol> open(symbols.rbegin(), symbols.rend());
  while (!open.empty()) {
    const Symbol symbol = open.back();
    open.pop_back();
    const bool unused = symbol.id != kNoSymbol && uses_[symbol.id] == ScoredUse::kUnused;
    const auto half = unused ? halves.find(symbol.id) : halves.end();
    if (half == halves.end()) {
      parts.push_back(symbol);
      continue;
    }
    const auto part = [&](uint32_t begin, uint32_t length) {
      return Symbol{begin, length,
                    vocabulary_.Find(word.substr(begin, length)).value_or(kNoSymbol)};
    };
    open.push_back(part(symbol.begin + half->second, symbol.length - half->second));
    open.push_back(part(symbol.begin, half->second));
  }
  return parts;
}

void SpmBpeModel::Emit(absl::string_view word, const Symbol& symbol, size_t base, size_t first,
                       TokenSink* sink) const {
  const size_t begin = base + symbol.begin;
  if (symbol.id != kNoSymbol) {
    sink->Add(symbol.id, begin + symbol.length);
  } else if (AddBytes(options_, word.substr(symbol.begin, symbol.length), begin, sink)) {
    return;
  } else if (options_.unknown_runs == UnknownRuns::kFused && sink->count() > first &&
             sink->last() == *options_.unknown) {
    sink->ExtendLast(begin + symbol.length);
  } else {
    sink->Add(*options_.unknown, begin + symbol.length);
  }
}

StatusOr<std::unique_ptr<UnigramModel>> UnigramModel::Create(const std::vector<ScoredToken>& tokens,
                                                             const ScoreOptions& options) {
  TESSERA_RETURN_IF_ERROR(CheckTokens(tokens, options));
  std::unique_ptr<UnigramModel> model(new UnigramModel(options));
  for (const ScoredToken& token : tokens) {
    if (!std::isfinite(token.score)) {
      return Error(absl::StatusCode::kInvalidArgument,
                   {"a Unigram score is infinite", absl::StrCat("scores[", token.id, "]"), "",
                    "the vocabulary file is damaged; fetch it again"});
    }
    if (token.id >= model->scores_.size()) model->scores_.resize(token.id + 1);
    model->scores_[token.id] = token.score;
    if (token.text.empty() || token.use == ScoredUse::kUnused) continue;
    if (token.use == ScoredUse::kWhole) {
      model->scores_[token.id] = kBonusOfByte * static_cast<double>(token.text.size() - 1);
    }
    model->trie_.Insert(token.text, token.id);
    if (HasInnerSpaceMark(token.text)) model->splits_at_mark_ = false;
  }
  // A run of unknown characters must not go on behind a mark.
  if (!model->Find(kSpaceMark).has_value()) model->splits_at_mark_ = false;
  model->unknown_score_ = LowestOrdinaryScore(tokens) - kUnknownPenalty;
  return model;
}

std::optional<TokenId> UnigramModel::Find(absl::string_view text) const {
  const uint32_t node = trie_.Walk(text);
  if (node == ByteTrie::kNone || trie_.value(node) == ByteTrie::kNone) return std::nullopt;
  return trie_.value(node);
}

Status UnigramModel::Encode(absl::string_view piece, TokenSink* sink) const {
  if (options_.sum == ScoreSum::kFloat) {
    EncodeAs<float>(piece, sink);
  } else {
    EncodeAs<double>(piece, sink);
  }
  return absl::OkStatus();
}

template <typename Score>
void UnigramModel::EncodeAs(absl::string_view piece, TokenSink* sink) const {
  Score score = 0;
  if (!splits_at_mark_) return EncodeWord<Score>(piece, 0, &score, sink);
  ForEachMarkedWord(piece, kSpaceMark, [&](size_t begin, size_t end) {
    EncodeWord<Score>(piece.substr(begin, end - begin), begin, &score, sink);
  });
}

template <typename Score>
void UnigramModel::EncodeWord(absl::string_view word, size_t base, Score* total,
                              TokenSink* sink) const {
  struct Best {
    Score score = 0;
    uint32_t begin = kNoSymbol;
    uint32_t id = kNoSymbol;
  };
  std::vector<Best> best(word.size() + 1);
  best[0].score = *total;
  const auto offer = [&](size_t begin, size_t end, Score score, uint32_t id) {
    Best& target = best[end];
    if (target.begin == kNoSymbol || score > target.score) {
      target = {score, static_cast<uint32_t>(begin), id};
    }
  };
  for (size_t pos = 0; pos < word.size();) {
    const size_t first_end = pos + DecodeUtf8(word, pos).length;
    bool covered = false;
    uint32_t node = ByteTrie::kRoot;
    for (size_t end = pos; end < word.size();) {
      node = trie_.Step(node, word[end++]);
      if (node == ByteTrie::kNone) break;
      const uint32_t id = trie_.value(node);
      if (id == ByteTrie::kNone) continue;
      covered = covered || end == first_end;
      offer(pos, end, static_cast<Score>(scores_[id]) + best[pos].score, id);
    }
    if (!covered) {
      offer(pos, first_end, static_cast<Score>(unknown_score_) + best[pos].score, kNoSymbol);
    }
    pos = first_end;
  }
  *total = best[word.size()].score;
  std::vector<std::pair<uint32_t, uint32_t>> path;  // (end, id), last first
  for (uint32_t end = static_cast<uint32_t>(word.size()); end > 0; end = best[end].begin) {
    path.emplace_back(end, best[end].id);
  }
  const auto unknown = [&](uint32_t id) { return id == kNoSymbol || id == options_.unknown; };
  size_t begin = 0;
  for (size_t i = path.size(); i-- > 0;) {
    if (!unknown(path[i].second)) {
      sink->Add(path[i].second, base + path[i].first);
    } else {
      while (i > 0 && unknown(path[i - 1].second)) --i;
      EmitUnknown(word.substr(begin, path[i].first - begin), base + begin, sink);
    }
    begin = path[i].first;
  }
}

void UnigramModel::EmitUnknown(absl::string_view run, size_t base, TokenSink* sink) const {
  if (const std::optional<TokenId> id = Find(run)) {
    sink->Add(*id, base + run.size());
  } else if (!AddBytes(options_, run, base, sink) && options_.unknown.has_value()) {
    sink->Add(*options_.unknown, base + run.size());
  }
}

WordPieceModel::WordPieceModel(const std::vector<Vocabulary::Entry>& entries,
                               WordPieceOptions options)
    : options_(std::move(options)) {
  for (const Vocabulary::Entry& entry : entries) {
    if (!entry.text.empty()) trie_.Insert(entry.text, entry.id);
  }
  first_node_ = trie_.Walk(options_.word_prefix);
  later_node_ = trie_.Walk(options_.continuation_prefix);
}

std::optional<TokenId> WordPieceModel::Find(absl::string_view text) const {
  const uint32_t node = trie_.Walk(text);
  if (node == ByteTrie::kNone || trie_.value(node) == ByteTrie::kNone) return std::nullopt;
  return trie_.value(node);
}

Status WordPieceModel::Encode(absl::string_view piece, TokenSink* sink) const {
  size_t characters = 0;
  for (const char c : piece) characters += (static_cast<uint8_t>(c) & 0xC0) != 0x80 ? 1 : 0;
  const size_t before = sink->count();
  size_t pos = characters > options_.max_word_characters ? piece.size() + 1 : 0;
  while (pos < piece.size()) {
    uint32_t node = pos == 0 ? first_node_ : later_node_;
    uint32_t id = ByteTrie::kNone;
    size_t id_end = pos;
    for (size_t end = pos; node != ByteTrie::kNone && end < piece.size();) {
      node = trie_.Step(node, piece[end++]);
      if (node == ByteTrie::kNone || trie_.value(node) == ByteTrie::kNone) continue;
      id = trie_.value(node);
      id_end = end;
    }
    if (id == ByteTrie::kNone) break;
    sink->Add(id, id_end);
    pos = id_end;
  }
  if (pos == piece.size()) return absl::OkStatus();
  sink->Truncate(before);
  sink->Add(options_.unknown, piece.size());
  return absl::OkStatus();
}

Status WordLevelModel::Encode(absl::string_view piece, TokenSink* sink) const {
  std::optional<TokenId> id = vocabulary_.Find(piece);
  if (!id.has_value()) id = unknown_;
  if (!id.has_value()) {
    return Error(absl::StatusCode::kInvalidArgument,
                 {"text has a word that the vocabulary lacks", "", "it has no unknown token either",
                  "use words of the vocabulary only"});
  }
  sink->Add(*id, piece.size());
  return absl::OkStatus();
}

}  // namespace tessera::server
