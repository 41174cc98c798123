#include "server/text/bpe_model.h"

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
  splits_at_mark_ = options.unit == BpeUnit::kCharacter;
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
  if (options_.unit == BpeUnit::kCharacter) return absl::OkStatus();
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
    joined = absl::StrCat(left, right);
    TESSERA_ASSIGN_OR_RETURN(const uint32_t left_id, SymbolOf(left, i));
    TESSERA_ASSIGN_OR_RETURN(const uint32_t right_id, SymbolOf(right, i));
    TESSERA_ASSIGN_OR_RETURN(const uint32_t id, SymbolOf(joined, i));
    if (splits_at_mark_ && HasInnerSpaceMark(joined)) splits_at_mark_ = false;
    merges_.try_emplace(PairKey(left_id, right_id), Merge{static_cast<uint32_t>(i), id});
  }
  return absl::OkStatus();
}

Status BpeModel::Encode(absl::string_view piece, TokenSink* sink) const {
  if (options_.unit == BpeUnit::kByte || !splits_at_mark_) return EncodeWord(piece, 0, sink);
  Status status;
  ForEachMarkedWord(piece, kSpaceMark, [&](size_t begin, size_t end) {
    if (status.ok()) status = EncodeWord(piece.substr(begin, end - begin), begin, sink);
  });
  return status;
}

Status BpeModel::EncodeWord(absl::string_view word, size_t base, TokenSink* sink) const {
  const std::optional<TokenId> token = vocabulary_.Find(word);
  if (token.has_value()) {
    const uint8_t state = whole_[*token].load(std::memory_order_relaxed);
    if (state == kWhole || options_.whole_words == WholeWords::kFirst) {
      sink->Add(*token, base + word.size());
      return absl::OkStatus();
    }
  }
  thread_local std::vector<Symbol> symbols;
  Split(word, &symbols);
  MergeSymbols(
      [this](const Symbol& left, const Symbol& right) {
        const auto it = merges_.find(PairKey(left.id, right.id));
        return it == merges_.end() ? Merge{} : it->second;
      },
      &symbols);
  if (token.has_value()) {
    const bool whole = symbols.size() == 1 && symbols[0].id == *token;
    whole_[*token].store(whole ? kWhole : kSplit, std::memory_order_relaxed);
  }
  const Status status = Emit(word, base, symbols, sink);
  if (symbols.capacity() > kKeptSymbols) std::vector<Symbol>().swap(symbols);
  return status;
}

void BpeModel::Split(absl::string_view word, std::vector<Symbol>* symbols) const {
  symbols->clear();
  if (options_.unit == BpeUnit::kByte) {
    for (uint32_t i = 0; i < word.size(); ++i) {
      symbols->push_back({i, 1, byte_symbols_[static_cast<uint8_t>(word[i])]});
    }
    return;
  }
  for (size_t pos = 0; pos < word.size();) {
    const uint32_t length = DecodeUtf8(word, pos).length;
    const uint32_t begin = static_cast<uint32_t>(pos);
    const std::optional<TokenId> id = vocabulary_.Find(word.substr(pos, length));
    symbols->push_back({begin, length, id.value_or(kNoSymbol)});
    pos += length;
  }
}

Status BpeModel::Emit(absl::string_view word, size_t base, const std::vector<Symbol>& symbols,
                      TokenSink* sink) const {
  bool after_unknown = false;
  const auto unknown = [&](size_t end) {
    if (after_unknown && options_.unknown_runs == UnknownRuns::kFused) {
      sink->ExtendLast(end);
    } else if (options_.unknown.has_value()) {
      sink->Add(*options_.unknown, end);
      after_unknown = true;
    }
  };
  for (const Symbol& symbol : symbols) {
    const size_t begin = base + symbol.begin;
    if (symbol.id < first_extra_) {
      sink->Add(symbol.id, begin + symbol.length);
      after_unknown = false;
      continue;
    }
    // No token of its own: bytes where the vocabulary has them, else unknown.
    for (uint32_t i = 0; i < symbol.length; ++i) {
      const uint8_t byte = static_cast<uint8_t>(word[symbol.begin + i]);
      if (options_.unit == BpeUnit::kByte && byte_symbols_[byte] != kNoSymbol) {
        sink->Add(byte_symbols_[byte], begin + i + 1);
        after_unknown = false;
      } else if (options_.byte_tokens.has_value()) {
        sink->Add((*options_.byte_tokens)[byte], begin + i + 1);
        after_unknown = false;
      } else {
        unknown(begin + symbol.length);
        break;
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace tessera::server
