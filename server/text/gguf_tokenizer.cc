// Tokenizers from the vocabularies of GGUF files.
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/text/bpe_model.h"
#include "server/text/score_models.h"
#include "server/text/tokenizer.h"
#include "server/text/utf8.h"
#include "server/text/vocabulary_table.h"

namespace tessera::server {
namespace {

// SentencePiece's own ids, which a file may leave out.
constexpr int64_t kSpmBos = 1;
constexpr int64_t kSpmEos = 2;
constexpr int64_t kSpmUnknown = 0;

struct SpecialIds {
  std::optional<TokenId> bos, eos, unknown, cls, separator;
};

Status FieldError(absl::string_view field, absl::string_view why) {
  return Error(absl::StatusCode::kInvalidArgument,
               {"GGUF vocabulary is not usable", absl::StrCat("tokenizer.ggml.", field),
                std::string(why), "convert or fetch the model again"});
}

StatusOr<SpecialIds> ReadIds(const GgufVocabulary& v) {
  SpecialIds ids;
  const bool spm = v.model == "llama";
  const auto read = [&](std::optional<int64_t> id, int64_t fallback, const char* field,
                        std::optional<TokenId>* out) -> Status {
    if (!id.has_value() && spm && fallback >= 0 &&
        static_cast<uint64_t>(fallback) < v.tokens.size()) {
      id = fallback;
    }
    if (!id.has_value()) return absl::OkStatus();
    TESSERA_ASSIGN_OR_RETURN(*out, CheckId(*id, v.tokens.size(), field));
    return absl::OkStatus();
  };
  TESSERA_RETURN_IF_ERROR(read(v.bos_token_id, kSpmBos, "bos_token_id", &ids.bos));
  TESSERA_RETURN_IF_ERROR(read(v.eos_token_id, kSpmEos, "eos_token_id", &ids.eos));
  TESSERA_RETURN_IF_ERROR(read(v.unknown_token_id, kSpmUnknown, "unknown_token_id", &ids.unknown));
  TESSERA_RETURN_IF_ERROR(read(v.cls_token_id, -1, "cls_token_id", &ids.cls));
  TESSERA_RETURN_IF_ERROR(read(v.separator_token_id, -1, "seperator_token_id", &ids.separator));
  return ids;
}

StatusOr<std::vector<TableToken>> ReadTable(const GgufVocabulary& v, const SpecialIds& ids) {
  if (!v.scores.empty() && v.scores.size() != v.tokens.size()) {
    return FieldError("scores", absl::StrCat(v.scores.size(), " for ", v.tokens.size(), " tokens"));
  }
  if (!v.token_types.empty() && v.token_types.size() != v.tokens.size()) {
    return FieldError("token_type",
                      absl::StrCat(v.token_types.size(), " for ", v.tokens.size(), " tokens"));
  }
  std::vector<TableToken> table(v.tokens.size());
  for (size_t i = 0; i < table.size(); ++i) {
    table[i].text = v.tokens[i];
    if (!v.scores.empty()) table[i].score = v.scores[i];
    if (v.token_types.empty()) {
      if (ByteOfName(v.tokens[i]).has_value()) table[i].kind = TokenKind::kByte;
      continue;
    }
    const int32_t type = v.token_types[i];
    if (type < 0 || type > static_cast<int32_t>(TokenKind::kByte)) {
      return FieldError(absl::StrCat("token_type[", i, "]"), absl::StrCat("unknown type ", type));
    }
    table[i].kind = type == 0 ? TokenKind::kUnused : static_cast<TokenKind>(type);
  }
  if (v.token_types.empty()) {
    if (ids.unknown) table[*ids.unknown].kind = TokenKind::kUnknown;
    if (ids.bos) table[*ids.bos].kind = TokenKind::kControl;
    if (ids.eos) table[*ids.eos].kind = TokenKind::kControl;
  }
  TESSERA_RETURN_IF_ERROR(CheckTable(table));
  return table;
}

Status FillSpm(const GgufVocabulary& v, const SpecialIds& ids, const std::vector<TableToken>& table,
               Tokenizer::Parts* parts) {
  if (v.scores.empty()) return FieldError("scores", "a SentencePiece vocabulary needs them");
  parts->kind = "SentencePiece BPE";
  const bool prefix = v.add_space_prefix.value_or(true);
  if (prefix) {
    parts->normalizer.push_back(
        MakePrependStep(std::string(kSpaceMark), PrependTo::kEveryFragment));
  }
  TESSERA_ASSIGN_OR_RETURN(Regex space, Regex::CompileLiteral(" "));
  parts->normalizer.push_back(MakeReplaceStep(std::move(space), std::string(kSpaceMark)));
  if (ids.bos && v.add_bos_token.value_or(true)) parts->prefix.push_back(*ids.bos);
  ScoreOptions options{ids.unknown, ByteTokens(table)};
  TESSERA_ASSIGN_OR_RETURN(parts->model, SpmBpeModel::Create(MergeableTokens(table), options));
  parts->bytes = BytesOfMarkedTokens(table);
  if (prefix) parts->bytes.set_first_token(FirstToken::kWithoutOneSpace);
  return absl::OkStatus();
}

// Splits "left right" at the first space behind the first character.
StatusOr<std::vector<MergeTexts>> ReadMerges(const std::vector<std::string>& lines,
                                             std::vector<std::string>* storage) {
  std::vector<MergeTexts> merges;
  storage->reserve(2 * lines.size());
  merges.reserve(lines.size());
  for (size_t i = 0; i < lines.size(); ++i) {
    const absl::string_view line = lines[i];
    const size_t space = line.find(' ', 1);
    if (space == line.npos || space + 1 == line.size()) {
      return FieldError(absl::StrCat("merges[", i, "]"), "is not two texts with a space between");
    }
    for (const absl::string_view part : {line.substr(0, space), line.substr(space + 1)}) {
      storage->push_back(SymbolsToBytes(part).value_or(std::string(part)));
    }
    merges.emplace_back((*storage)[2 * i], (*storage)[2 * i + 1]);
  }
  return merges;
}

Status FillBpe(const GgufVocabulary& v, const SpecialIds& ids, const std::vector<TableToken>& table,
               Tokenizer::Parts* parts) {
  if (v.merges.empty()) return FieldError("merges", "a byte-level vocabulary needs them");
  parts->kind = absl::StrCat("byte-level BPE (", v.pre.empty() ? "default" : v.pre, ")");
  TESSERA_ASSIGN_OR_RETURN(const GgufSplitRules rules, FindGgufSplitRules(v.pre));
  for (const std::string& pattern : rules.patterns) {
    TESSERA_ASSIGN_OR_RETURN(Regex regex, Regex::Compile(pattern));
    parts->pre_tokenizer.push_back(
        MakeSplitStep(std::move(regex), SplitBehavior::kIsolated, SplitMatches::kPattern));
  }
  std::vector<std::string> raw(table.size());
  std::vector<Vocabulary::Entry> written, literal;
  for (TokenId id = 0; id < table.size(); ++id) {
    const TableToken& token = table[id];
    const bool plain = token.kind == TokenKind::kNormal || token.kind == TokenKind::kUnused ||
                       token.kind == TokenKind::kByte;
    std::optional<std::string> bytes;
    if (plain) bytes = SymbolsToBytes(token.text);
    raw[id] = bytes.value_or(token.text);
    parts->bytes.Add(raw[id], token.kind);
    if (bytes.has_value()) {
      written.push_back({raw[id], id});
    } else if (token.kind == TokenKind::kUserDefined || plain) {
      literal.push_back({raw[id], id});
    }
  }
  // Of equal texts the last counts, so tokens in the byte alphabet win over literal names.
  literal.insert(literal.end(), written.begin(), written.end());
  std::vector<std::string> storage;
  TESSERA_ASSIGN_OR_RETURN(const std::vector<MergeTexts> merges, ReadMerges(v.merges, &storage));
  BpeOptions options;
  options.unknown_merge = UnknownMerge::kKeep;
  options.whole_words = rules.whole_words;
  TESSERA_ASSIGN_OR_RETURN(parts->model, BpeModel::Create(literal, merges, options));
  if (ids.bos && v.add_bos_token.value_or(rules.adds_bos)) parts->prefix.push_back(*ids.bos);
  return absl::OkStatus();
}

Status FillBert(const GgufVocabulary& v, const SpecialIds& ids,
                const std::vector<TableToken>& table, Tokenizer::Parts* parts) {
  if (!ids.unknown) return FieldError("unknown_token_id", "a WordPiece vocabulary needs it");
  parts->kind = "WordPiece";
  if (ids.cls) parts->prefix.push_back(*ids.cls);
  if (ids.separator) parts->suffix.push_back(*ids.separator);
  parts->normalizer.push_back(MakeBertStep({}));
  parts->pre_tokenizer.push_back(MakeSplitStep(Regex::FromScanner(&ScanWhiteSpace),
                                               SplitBehavior::kRemoved, SplitMatches::kPattern));
  parts->pre_tokenizer.push_back(MakeSplitStep(Regex::FromScanner(&ScanBertPunctuation),
                                               SplitBehavior::kIsolated, SplitMatches::kPattern));
  std::vector<Vocabulary::Entry> entries;
  for (const ScoredToken& token : MergeableTokens(table)) entries.push_back({token.text, token.id});
  parts->model = std::make_unique<WordPieceModel>(
      entries, WordPieceOptions{*ids.unknown, std::string(kSpaceMark), ""});
  parts->bytes = BytesOfMarkedTokens(table);
  parts->bytes.set_first_token(FirstToken::kWithoutOneSpace);
  return absl::OkStatus();
}

}  // namespace

StatusOr<std::shared_ptr<const Tokenizer>> TokenizerFromGgufVocabulary(const GgufVocabulary& v) {
  TESSERA_ASSIGN_OR_RETURN(const SpecialIds ids, ReadIds(v));
  TESSERA_ASSIGN_OR_RETURN(const std::vector<TableToken> table, ReadTable(v, ids));
  Tokenizer::Parts parts;
  if (v.model == "llama") {
    TESSERA_RETURN_IF_ERROR(FillSpm(v, ids, table, &parts));
  } else if (v.model == "gpt2") {
    TESSERA_RETURN_IF_ERROR(FillBpe(v, ids, table, &parts));
  } else if (v.model == "bert") {
    TESSERA_RETURN_IF_ERROR(FillBert(v, ids, table, &parts));
  } else {
    return FieldError("model", absl::StrCat("\"", v.model, "\" is none of llama, gpt2, bert"));
  }
  parts.added = AddedFrom(table);
  parts.bos = ids.bos;
  parts.eos = ids.eos;
  const bool adds_eos = v.add_eos_token.value_or(false) && v.model != "bert";
  if (ids.eos && adds_eos) parts.suffix.push_back(*ids.eos);
  return Tokenizer::Create(std::move(parts));
}

}  // namespace tessera::server
