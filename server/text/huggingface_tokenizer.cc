// Tokenizers from Hugging Face's tokenizer.json.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "server/text/bpe_model.h"
#include "server/text/huggingface_parts.h"
#include "server/text/score_models.h"
#include "server/text/tokenizer.h"
#include "server/text/tokenizer_config.h"
#include "server/text/utf8.h"
#include "server/text/vocabulary_table.h"

namespace tessera::server {
namespace {

using Json = nlohmann::json;

// The vocabulary by id, before its texts are turned into bytes. Ids without a token stay unused.
struct FileVocabulary {
  std::vector<TableToken> table;
  std::vector<AddedToken> added;
  uint64_t id_limit = kMaxVocabularyTokens;

  Status Put(uint64_t id, absl::string_view text, float score, TokenKind kind) {
    if (id >= id_limit) {
      return HuggingFaceError("model.vocab", absl::StrCat("id ", id, " is too large"));
    }
    if (text.size() > kMaxTokenTextBytes) {
      return HuggingFaceError("model.vocab", absl::StrCat("token ", id, " is too long"));
    }
    if (id >= table.size()) table.resize(id + 1, TableToken{"", 0, TokenKind::kUnused});
    table[id] = {std::string(text), score, kind};
    return absl::OkStatus();
  }
};

Status ReadVocabulary(const Json& model, FileVocabulary* vocabulary) {
  const auto it = model.find("vocab");
  if (it == model.end() || !(it->is_object() || it->is_array())) {
    return HuggingFaceError("model.vocab", "is missing");
  }
  if (it->size() > kMaxVocabularyTokens) return HuggingFaceError("model.vocab", "is too large");
  // Some vocabularies have gaps; a single large id must not size the table.
  vocabulary->id_limit = std::min<uint64_t>(kMaxVocabularyTokens, 4 * it->size() + 4096);
  // Sized at once: growing step by step in the order of texts would copy the table many times.
  vocabulary->table.reserve(it->size() + 1024);
  if (it->is_object()) {
    for (const auto& [text, id] : it->items()) {
      if (!id.is_number_unsigned()) return HuggingFaceError("model.vocab", "ids must be numbers");
      TESSERA_RETURN_IF_ERROR(vocabulary->Put(id.get<uint64_t>(), text, 0, TokenKind::kNormal));
    }
    return absl::OkStatus();
  }
  for (size_t i = 0; i < it->size(); ++i) {
    const Json& pair = (*it)[i];
    if (!pair.is_array() || pair.size() != 2 || !pair[0].is_string() || !pair[1].is_number()) {
      return HuggingFaceError(absl::StrCat("model.vocab[", i, "]"), "must be [text, score]");
    }
    TESSERA_RETURN_IF_ERROR(vocabulary->Put(i, pair[0].get_ref<const std::string&>(),
                                            static_cast<float>(pair[1].get<double>()),
                                            TokenKind::kNormal));
  }
  return absl::OkStatus();
}

Status ReadAdded(const Json& root, FileVocabulary* vocabulary) {
  const auto it = root.find("added_tokens");
  if (it == root.end() || it->is_null()) return absl::OkStatus();
  if (!it->is_array()) return HuggingFaceError("added_tokens", "must be a list");
  for (const Json& entry : *it) {
    const std::string where = absl::StrCat("added_tokens[", vocabulary->added.size(), "]");
    if (!entry.is_object() || !entry.contains("id") || !entry["id"].is_number_unsigned()) {
      return HuggingFaceError(where, "needs an id");
    }
    AddedToken token;
    token.text = TextOf(entry, "content", "");
    token.special = FlagOf(entry, "special", false);
    token.single_word = FlagOf(entry, "single_word", false);
    token.lstrip = FlagOf(entry, "lstrip", false);
    token.rstrip = FlagOf(entry, "rstrip", false);
    const uint64_t id = entry["id"].get<uint64_t>();
    TESSERA_RETURN_IF_ERROR(vocabulary->Put(
        id, token.text, 0, token.special ? TokenKind::kControl : TokenKind::kUserDefined));
    token.id = static_cast<TokenId>(id);
    vocabulary->added.push_back(std::move(token));
  }
  return absl::OkStatus();
}

std::optional<TokenId> FindText(const FileVocabulary& vocabulary, absl::string_view text) {
  for (TokenId id = 0; id < vocabulary.table.size(); ++id) {
    if (vocabulary.table[id].text == text && !text.empty()) return id;
  }
  return std::nullopt;
}

// Byte tokens of a vocabulary that falls back to bytes, marked as such in the table.
std::optional<std::array<TokenId, 256>> MarkByteTokens(std::vector<TableToken>* table) {
  for (TableToken& token : *table) {
    if (token.kind == TokenKind::kNormal && ByteOfName(token.text).has_value()) {
      token.kind = TokenKind::kByte;
    }
  }
  return ByteTokens(*table);
}

std::string InBytes(absl::string_view text, VocabularyWriting writing) {
  if (writing == VocabularyWriting::kPlain) return std::string(text);
  return SymbolsToBytes(text).value_or(std::string(text));
}

// The merges as texts in the model's writing, kept in `storage`.
StatusOr<std::vector<MergeTexts>> ReadMerges(const Json& model, VocabularyWriting writing,
                                             std::vector<std::string>* storage) {
  std::vector<MergeTexts> merges;
  const auto it = model.find("merges");
  if (it == model.end() || it->is_null()) return merges;
  if (!it->is_array() || it->size() > kMaxVocabularyTokens) {
    return HuggingFaceError("model.merges", "must be a list of bounded size");
  }
  storage->reserve(2 * it->size());
  merges.reserve(it->size());
  for (const Json& entry : *it) {
    absl::string_view left, right;
    if (const auto* line = entry.get_ptr<const std::string*>()) {
      const size_t space = line->find(' ');
      if (space != std::string::npos) {
        left = absl::string_view(*line).substr(0, space);
        right = absl::string_view(*line).substr(space + 1);
      }
    } else if (entry.is_array() && entry.size() == 2 && entry[0].is_string() &&
               entry[1].is_string()) {
      left = entry[0].get_ref<const std::string&>();
      right = entry[1].get_ref<const std::string&>();
    }
    if (left.empty() || right.empty()) {
      return HuggingFaceError(absl::StrCat("model.merges[", merges.size(), "]"),
                              "must be two texts");
    }
    storage->push_back(InBytes(left, writing));
    storage->push_back(InBytes(right, writing));
    merges.emplace_back((*storage)[storage->size() - 2], storage->back());
  }
  return merges;
}

StatusOr<std::unique_ptr<Model>> ReadBpe(const Json& model, FileVocabulary* vocabulary,
                                         VocabularyWriting writing) {
  for (const char* name : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!TextOf(model, name, "").empty()) {
      return HuggingFaceError(absl::StrCat("model.", name), "is not supported");
    }
  }
  if (model.contains("dropout") && model["dropout"].is_number() &&
      model["dropout"].get<double>() > 0) {
    return HuggingFaceError("model.dropout", "gives another result each time; remove it");
  }
  BpeOptions options;
  options.unit = writing == VocabularyWriting::kByteSymbols ? BpeUnit::kByte : BpeUnit::kCharacter;
  if (FlagOf(model, "ignore_merges", false)) options.whole_words = WholeWords::kFirst;
  if (FlagOf(model, "fuse_unk", false)) options.unknown_runs = UnknownRuns::kFused;
  if (FlagOf(model, "byte_fallback", false))
    options.byte_tokens = MarkByteTokens(&vocabulary->table);
  if (const std::string unknown = TextOf(model, "unk_token", ""); !unknown.empty()) {
    options.unknown = FindText(*vocabulary, unknown);
  }
  std::vector<std::string> texts(vocabulary->table.size());
  std::vector<Vocabulary::Entry> entries, literal;
  for (TokenId id = 0; id < texts.size(); ++id) {
    const TableToken& token = vocabulary->table[id];
    if (token.text.empty() || token.kind == TokenKind::kByte) continue;
    texts[id] = InBytes(token.text, writing);
    (token.kind == TokenKind::kNormal ? entries : literal).push_back({texts[id], id});
  }
  // Added tokens may be parts of merges; of equal texts the last counts, which are the plain ones.
  literal.insert(literal.end(), entries.begin(), entries.end());
  std::vector<std::string> storage;
  TESSERA_ASSIGN_OR_RETURN(const std::vector<MergeTexts> merges,
                           ReadMerges(model, writing, &storage));
  TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<Model> result,
                           BpeModel::Create(literal, merges, options));
  return result;
}

StatusOr<std::unique_ptr<Model>> ReadUnigram(const Json& model, FileVocabulary* vocabulary) {
  ScoreOptions options;
  if (FlagOf(model, "byte_fallback", false))
    options.byte_tokens = MarkByteTokens(&vocabulary->table);
  if (model.contains("unk_id") && model["unk_id"].is_number_unsigned()) {
    const uint64_t id = model["unk_id"].get<uint64_t>();
    if (id >= vocabulary->table.size()) return HuggingFaceError("model.unk_id", "is no token");
    options.unknown = static_cast<TokenId>(id);
    vocabulary->table[*options.unknown].kind = TokenKind::kUnknown;
  }
  TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<Model> result,
                           UnigramModel::Create(MergeableTokens(vocabulary->table), options));
  return result;
}

StatusOr<std::unique_ptr<Model>> ReadWordPiece(const Json& model, FileVocabulary* vocabulary) {
  const std::optional<TokenId> unknown = FindText(*vocabulary, TextOf(model, "unk_token", "[UNK]"));
  if (!unknown.has_value()) return HuggingFaceError("model.unk_token", "is no token");
  std::vector<Vocabulary::Entry> entries;
  for (const ScoredToken& token : MergeableTokens(vocabulary->table)) {
    entries.push_back({token.text, token.id});
  }
  WordPieceOptions options{*unknown, "", TextOf(model, "continuing_subword_prefix", "##")};
  std::unique_ptr<Model> result = std::make_unique<WordPieceModel>(entries, options);
  return result;
}

// What the decoder makes of one plain token; each step may make it longer.
Status Decode(const DecoderPart& decoder, std::string* text) {
  for (const auto& [from, to] : decoder.replacements) {
    *text = absl::StrReplaceAll(*text, {{from, to}});
    if (text->size() > kMaxTokenTextBytes) {
      return HuggingFaceError("decoder", "it makes a token too long");
    }
  }
  if (const std::string& prefix = decoder.continuation_prefix; !prefix.empty()) {
    *text = text->rfind(prefix, 0) == 0 ? text->substr(prefix.size()) : " " + *text;
  }
  return absl::OkStatus();
}

StatusOr<TokenBytes> BytesOf(const FileVocabulary& vocabulary, const DecoderPart& decoder,
                             VocabularyWriting writing) {
  TokenBytes bytes;
  for (const TableToken& token : vocabulary.table) {
    const bool plain = token.kind == TokenKind::kNormal || token.kind == TokenKind::kByte;
    if (!plain) {
      bytes.Add(token.text, token.kind);
      continue;
    }
    const std::optional<uint8_t> byte = token.kind == TokenKind::kByte || decoder.byte_fallback
                                            ? ByteOfName(token.text)
                                            : std::nullopt;
    if (byte.has_value()) {
      const char raw = static_cast<char>(*byte);
      bytes.Add(absl::string_view(&raw, 1), TokenKind::kByte);
      continue;
    }
    std::string text = InBytes(token.text, writing);
    TESSERA_RETURN_IF_ERROR(Decode(decoder, &text));
    if (bytes.data().size() + text.size() > kMaxVocabularyBytes) {
      return HuggingFaceError("decoder", "it makes the vocabulary too large");
    }
    bytes.Add(text, token.kind);
  }
  bytes.set_strips_first_space(decoder.strips_first_space);
  return bytes;
}

Status FillSpecials(const PostProcessorPart& post, const TokenizerConfig& config,
                    const FileVocabulary& vocabulary, Tokenizer::Parts* parts) {
  const size_t count = vocabulary.table.size();
  const auto copy = [&](const std::vector<uint64_t>& from, std::vector<TokenId>* to) -> Status {
    for (const uint64_t id : from) {
      if (id >= count) return HuggingFaceError("post_processor", "an id is no token");
      to->push_back(static_cast<TokenId>(id));
    }
    return absl::OkStatus();
  };
  TESSERA_RETURN_IF_ERROR(copy(post.prefix, &parts->prefix));
  TESSERA_RETURN_IF_ERROR(copy(post.suffix, &parts->suffix));
  if (config.bos_token) parts->bos = FindText(vocabulary, *config.bos_token);
  if (config.eos_token) parts->eos = FindText(vocabulary, *config.eos_token);
  // Llama's tokenizer classes follow their flags, whatever the post-processor says.
  if (config.tokenizer_class.rfind("Llama", 0) == 0) {
    if (config.add_bos && parts->bos) {
      parts->prefix.clear();
      if (*config.add_bos) parts->prefix.push_back(*parts->bos);
    }
    if (config.add_eos && parts->eos) {
      parts->suffix.clear();
      if (*config.add_eos) parts->suffix.push_back(*parts->eos);
    }
  }
  return absl::OkStatus();
}

const Json& PartOf(const Json& root, const char* name) {
  static const Json* const kNull = new Json();
  const auto it = root.find(name);
  return it == root.end() ? *kNull : *it;
}

std::string ModelType(const Json& model) {
  const std::string type = TextOf(model, "type", "");
  // Early files name no type; merges tell.
  return type.empty() && model.contains("merges") ? "BPE" : type;
}

}  // namespace

StatusOr<std::shared_ptr<const Tokenizer>> TokenizerFromHuggingFace(
    absl::string_view tokenizer_json, absl::string_view tokenizer_config_json) {
  const Json root = Json::parse(tokenizer_json.begin(), tokenizer_json.end(), nullptr, false);
  if (!root.is_object()) return HuggingFaceError("", "it is not a JSON object");
  const Json& model = PartOf(root, "model");
  if (!model.is_object()) return HuggingFaceError("model", "is missing");
  TESSERA_ASSIGN_OR_RETURN(const TokenizerConfig config,
                           ParseTokenizerConfig(tokenizer_config_json));
  Tokenizer::Parts parts;
  FileVocabulary vocabulary;
  TESSERA_RETURN_IF_ERROR(ReadVocabulary(model, &vocabulary));
  TESSERA_RETURN_IF_ERROR(ReadAdded(root, &vocabulary));
  TESSERA_RETURN_IF_ERROR(CheckTable(vocabulary.table));
  TESSERA_ASSIGN_OR_RETURN(parts.normalizer, ReadNormalizer(PartOf(root, "normalizer")));
  TESSERA_ASSIGN_OR_RETURN(PreTokenizerPart pre, ReadPreTokenizer(PartOf(root, "pre_tokenizer")));
  TESSERA_ASSIGN_OR_RETURN(const DecoderPart decoder, ReadDecoder(PartOf(root, "decoder")));
  TESSERA_ASSIGN_OR_RETURN(const PostProcessorPart post,
                           ReadPostProcessor(PartOf(root, "post_processor")));
  parts.pre_tokenizer = std::move(pre.steps);
  const std::string type = ModelType(model);
  if (type == "BPE") {
    parts.kind =
        pre.writing == VocabularyWriting::kByteSymbols ? "byte-level BPE" : "character BPE";
    TESSERA_ASSIGN_OR_RETURN(parts.model, ReadBpe(model, &vocabulary, pre.writing));
  } else if (type == "Unigram") {
    parts.kind = "Unigram";
    TESSERA_ASSIGN_OR_RETURN(parts.model, ReadUnigram(model, &vocabulary));
  } else if (type == "WordPiece") {
    parts.kind = "WordPiece";
    TESSERA_ASSIGN_OR_RETURN(parts.model, ReadWordPiece(model, &vocabulary));
  } else {
    return HuggingFaceError("model.type", absl::StrCat("\"", type, "\" is not supported"));
  }
  const bool symbols = pre.writing == VocabularyWriting::kByteSymbols ||
                       decoder.writing == VocabularyWriting::kByteSymbols;
  TESSERA_ASSIGN_OR_RETURN(
      parts.bytes, BytesOf(vocabulary, decoder,
                           symbols ? VocabularyWriting::kByteSymbols : VocabularyWriting::kPlain));
  TESSERA_RETURN_IF_ERROR(FillSpecials(post, config, vocabulary, &parts));
  parts.added = AddedTokens(std::move(vocabulary.added));
  return Tokenizer::Create(std::move(parts));
}

}  // namespace tessera::server
