#include "server/text/bpe_model.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/text/utf8.h"

namespace tessera::server {
namespace {

// A thread keeps scratch for words, not for whole books.
constexpr size_t kKeptSymbols = size_t{1} << 16;

uint64_t PairKey(uint32_t left, uint32_t right) { return uint64_t{left} << 32 | right; }

}  // namespace

StatusOr<std::unique_ptr<BpeModel>> BpeModel::Create(const std::vector<Vocabulary::Entry>& entries,
                                                     const std::vector<MergeTexts>& merges,
                                                     const BpeOptions& options) {
  if (merges.size() > kMaxVocabularyTokens) {
    return Error(absl::StatusCode::kInvalidArgument,
                 {"tokenizer has too many merges", "merges", absl::StrCat(merges.size()),
                  absl::StrCat("at most ", kMaxVocabularyTokens)});
  }
  std::unique_ptr<BpeModel> model(new BpeModel(entries, options));
  TESSERA_RETURN_IF_ERROR(model->CheckUnits());
  TESSERA_RETURN_IF_ERROR(model->AddMerges(merges));
  return model;
}

BpeModel::BpeModel(const std::vector<Vocabulary::Entry>& entries, const BpeOptions& options)
    : options_(options), vocabulary_(entries) {
  // Unknown runs end at a mark, a word is looked up as a whole, and affixes mark a word's ends: all
  // of that must not depend on where words are cut.
  splits_at_mark_ = options.unit == BpeUnit::kCharacter && options.continuing_prefix.empty() &&
                    options.word_suffix.empty() && options.whole_words == WholeWords::kByMerges &&
                    vocabulary_.Find(kSpaceMark).has_value();
  if (options.unknown.has_value()) first_extra_ = *options.unknown + 1;
  if (options.byte_tokens.has_value()) {
    for (const uint32_t id : *options.byte_tokens) {
      if (id != kNoSymbol) first_extra_ = std::max(first_extra_, id + 1);
    }
  }
  for (const Vocabulary::Entry& entry : entries) {
    first_extra_ = std::max(first_extra_, entry.id + 1);
    if (splits_at_mark_ && HasInnerSpaceMark(entry.text)) splits_at_mark_ = false;
  }
  whole_ = std::make_unique<std::atomic<uint8_t>[]>(first_extra_);
  for (int b = 0; b < 256; ++b) {
    const char raw = static_cast<char>(b);
    byte_symbols_[b] = vocabulary_.Find(absl::string_view(&raw, 1)).value_or(kNoSymbol);
  }
}

Status BpeModel::CheckUnits() const {
  if (options_.unit == BpeUnit::kCharacter || options_.missing_bytes == MissingBytes::kAllow) {
    return absl::OkStatus();
  }
  for (int b = 0; b < 256; ++b) {
    if (byte_symbols_[b] != kNoSymbol || options_.unknown.has_value()) continue;
    // Real vocabularies lack rare bytes: control characters, and what no UTF-8 text has. Such a
    // byte is left out of the result, as other implementations do.
    if (b < 0x20 || b == 0x7F || b == 0xC0 || b == 0xC1 || b >= 0xF1) continue;
    return Error(absl::StatusCode::kInvalidArgument,
                 {"byte-level vocabulary is incomplete", "tokens",
                  absl::StrCat("no token for byte ", b, " and no unknown token"),
                  "the vocabulary needs a token for each byte"});
  }
  return absl::OkStatus();
}

StatusOr<uint32_t> BpeModel::SymbolOf(absl::string_view text, size_t merge_index) {
  if (const std::optional<TokenId> id = vocabulary_.Find(text)) return *id;
  if (options_.unknown_merge == UnknownMerge::kRefuse) {
    return Error(
        absl::StatusCode::kInvalidArgument,
        {"a merge names a text that is no token", absl::StrCat("merges[", merge_index, "]"),
         "the vocabulary lacks it", "use the vocabulary that the merges belong to"});
  }
  const auto [it, added] = extra_ids_.try_emplace(
      std::string(text), static_cast<uint32_t>(first_extra_ + extra_.size()));
  if (added) extra_.push_back(std::string(text));
  return it->second;
}

Status BpeModel::AddMerges(const std::vector<MergeTexts>& merges) {
  merges_.reserve(merges.size());
  std::string joined;
  for (size_t i = 0; i < merges.size(); ++i) {
    const auto& [left, right] = merges[i];
    const bool continues = absl::StartsWith(right, options_.continuing_prefix);
    joined = absl::StrCat(left, right.substr(continues ? options_.continuing_prefix.size() : 0));
    TESSERA_ASSIGN_OR_RETURN(const uint32_t left_id, SymbolOf(left, i));
    TESSERA_ASSIGN_OR_RETURN(const uint32_t right_id, SymbolOf(right, i));
    TESSERA_ASSIGN_OR_RETURN(const uint32_t id, SymbolOf(joined, i));
    if (splits_at_mark_ && HasInnerSpaceMark(joined)) splits_at_mark_ = false;
    const auto [it, added] = merges_.try_emplace(PairKey(left_id, right_id));
    if (added || options_.same_merge == SameMerge::kLastCounts) {
      it->second = {static_cast<uint32_t>(i), id};
    }
  }
  return absl::OkStatus();
}

Status BpeModel::Encode(absl::string_view piece, TokenSink* sink) const {
  if (options_.unit == BpeUnit::kByte || !splits_at_mark_) {
    EncodeWord(piece, 0, sink);
    return absl::OkStatus();
  }
  ForEachMarkedWord(piece, kSpaceMark, [&](size_t begin, size_t end) {
    EncodeWord(piece.substr(begin, end - begin), begin, sink);
  });
  return absl::OkStatus();
}

void BpeModel::EncodeWord(absl::string_view word, size_t base, TokenSink* sink) const {
  const std::optional<TokenId> token = vocabulary_.Find(word);
  if (token.has_value()) {
    const uint8_t state = whole_[*token].load(std::memory_order_relaxed);
    if (state == kWhole || options_.whole_words == WholeWords::kFirst) {
      sink->Add(*token, base + word.size());
      return;
    }
  }
  thread_local std::vector<Symbol> symbols;
  Split(word, &symbols);
  MergeSymbols(
      [this](const Symbol& left, const Symbol& right) {
        const auto it = merges_.find(PairKey(left.id, right.id));
        return it == merges_.end() ? PairMerge{} : it->second;
      },
      &symbols);
  if (token.has_value()) {
    const bool whole = symbols.size() == 1 && symbols[0].id == *token;
    whole_[*token].store(whole ? kWhole : kSplit, std::memory_order_relaxed);
  }
  Emit(word, base, symbols, sink);
  if (symbols.capacity() > kKeptSymbols) std::vector<Symbol>().swap(symbols);
}

uint32_t BpeModel::UnitToken(absl::string_view word, size_t begin, size_t length) const {
  const absl::string_view unit = word.substr(begin, length);
  const bool prefixed = begin > 0 && !options_.continuing_prefix.empty();
  const bool suffixed = begin + length == word.size() && !options_.word_suffix.empty();
  if (prefixed || suffixed) {
    return vocabulary_
        .Find(absl::StrCat(prefixed ? options_.continuing_prefix : "", unit,
                           suffixed ? options_.word_suffix : ""))
        .value_or(kNoSymbol);
  }
  if (options_.unit == BpeUnit::kByte) return byte_symbols_[static_cast<uint8_t>(unit[0])];
  return vocabulary_.Find(unit).value_or(kNoSymbol);
}

void BpeModel::Split(absl::string_view word, std::vector<Symbol>* symbols) const {
  symbols->clear();
  Symbol unknown;  // not written yet, since it may grow
  const auto write_unknown = [&] {
    if (unknown.length > 0) symbols->push_back(unknown);
    unknown.length = 0;
  };
  const bool fused = options_.unknown_runs == UnknownRuns::kFused;
  for (uint32_t pos = 0, length = 0; pos < word.size(); pos += length) {
    length = options_.unit == BpeUnit::kByte ? 1 : DecodeUtf8(word, pos).length;
    const uint32_t id = UnitToken(word, pos, length);
    if (id != kNoSymbol) {
      write_unknown();
      symbols->push_back({pos, length, id});
    } else if (HasByteTokens(word.substr(pos, length))) {
      for (uint32_t i = 0; i < length; ++i) {
        const uint8_t byte = static_cast<uint8_t>(word[pos + i]);
        symbols->push_back({pos + i, 1, (*options_.byte_tokens)[byte]});
      }
    } else if (options_.unknown.has_value()) {
      if (fused && unknown.length > 0) {
        unknown.length += length;
      } else {
        write_unknown();
        unknown = {pos, length, *options_.unknown};
      }
    }
  }
  write_unknown();
}

bool BpeModel::HasByteTokens(absl::string_view unit) const {
  if (!options_.byte_tokens.has_value()) return false;
  return std::all_of(unit.begin(), unit.end(), [this](char c) {
    return (*options_.byte_tokens)[static_cast<uint8_t>(c)] != kNoSymbol;
  });
}

void BpeModel::Emit(absl::string_view word, size_t base, const std::vector<Symbol>& symbols,
                    TokenSink* sink) const {
  for (const Symbol& symbol : symbols) {
    const size_t begin = base + symbol.begin;
    if (symbol.id < first_extra_) {
      sink->Add(symbol.id, begin + symbol.length);
      continue;
    }
    // A text that merging made and that is no token: its bytes.
    for (uint32_t i = 0; i < symbol.length; ++i) {
      const uint32_t id = byte_symbols_[static_cast<uint8_t>(word[symbol.begin + i])];
      if (id != kNoSymbol) sink->Add(id, begin + i + 1);
    }
  }
}

}  // namespace tessera::server
