// Tokenizers from Hugging Face's tokenizer.json.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/text/bpe_model.h"
#include "server/text/huggingface_decoder.h"
#include "server/text/huggingface_parts.h"
#include "server/text/score_models.h"
#include "server/text/serde_number.h"
#include "server/text/tokenizer.h"
#include "server/text/tokenizer_config.h"
#include "server/text/utf8.h"
#include "server/text/vocabulary_table.h"

namespace tessera::server {
namespace {

using Json = nlohmann::json;

// Makes the document, with fractions as the library reads them.
class DocumentReader : public nlohmann::detail::json_sax_dom_parser<Json> {
 public:
  explicit DocumentReader(Json* root) : json_sax_dom_parser(*root, false) {}
  bool number_float(double, const std::string& text) {
    return json_sax_dom_parser::number_float(SerdeNumber(text), text);
  }
};

struct ModelToken {
  std::string text;
  TokenId id = 0;
  double score = 0;
};

struct FileVocabulary {
  std::vector<ModelToken> model;       // what the model may make
  std::vector<TableToken> table;       // all tokens by id; ids without one stay unused
  std::vector<AddedToken> added;       // found in the text as it came
  std::vector<AddedToken> normalized;  // found in normalized text
  uint64_t id_limit = kMaxVocabularyTokens;

  Status Put(uint64_t id, absl::string_view text, TokenKind kind) {
    if (id >= id_limit) {
      return HuggingFaceError("model.vocab", absl::StrCat("id ", id, " is too large"));
    }
    if (text.size() > kMaxTokenTextBytes) {
      return HuggingFaceError("model.vocab", absl::StrCat("token ", id, " is too long"));
    }
    if (id >= table.size()) table.resize(id + 1, TableToken{"", 0, TokenKind::kUnused});
    table[id] = {std::string(text), 0, kind};
    return absl::OkStatus();
  }
  Status PutModel(uint64_t id, absl::string_view text, double score) {
    TESSERA_RETURN_IF_ERROR(Put(id, text, TokenKind::kNormal));
    model.push_back({std::string(text), static_cast<TokenId>(id), score});
    return absl::OkStatus();
  }
  [[nodiscard]] std::optional<TokenId> FindModel(absl::string_view text) const {
    for (const ModelToken& token : model) {
      if (token.text == text) return token.id;
    }
    return std::nullopt;
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
      TESSERA_RETURN_IF_ERROR(vocabulary->PutModel(id.get<uint64_t>(), text, 0));
    }
    return absl::OkStatus();
  }
  for (size_t i = 0; i < it->size(); ++i) {
    const Json& pair = (*it)[i];
    if (!pair.is_array() || pair.size() != 2 || !pair[0].is_string() || !pair[1].is_number()) {
      return HuggingFaceError(absl::StrCat("model.vocab[", i, "]"), "must be [text, score]");
    }
    TESSERA_RETURN_IF_ERROR(
        vocabulary->PutModel(i, pair[0].get_ref<const std::string&>(), pair[1].get<double>()));
  }
  return absl::OkStatus();
}

Status ReadAdded(const Json& root, const NormalizerSteps& normalizer, FileVocabulary* vocabulary) {
  const auto it = root.find("added_tokens");
  if (it == root.end() || it->is_null()) return absl::OkStatus();
  if (!it->is_array()) return HuggingFaceError("added_tokens", "must be a list");
  for (const Json& entry : *it) {
    const std::string where = absl::StrCat("added_tokens[", &entry - &(*it)[0], "]");
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
        id, token.text, token.special ? TokenKind::kControl : TokenKind::kUserDefined));
    token.id = static_cast<TokenId>(id);
    if (!FlagOf(entry, "normalized", !token.special)) {
      vocabulary->added.push_back(std::move(token));
      continue;
    }
    AlignedText text = AlignedText::From(token.text, 0, Alignment::kOff);
    TESSERA_RETURN_IF_ERROR(Normalize(normalizer, FragmentPlace::kFirst, &text));
    token.text = std::move(text.text);
    // The library decodes such a token to its normalized text.
    if (!token.special) vocabulary->table[id].text = token.text;
    vocabulary->normalized.push_back(std::move(token));
  }
  return absl::OkStatus();
}

// Special tokens come first: of equal texts the first counts.
AddedTokens InOrder(std::vector<AddedToken> tokens) {
  std::stable_partition(tokens.begin(), tokens.end(),
                        [](const AddedToken& token) { return token.special; });
  return AddedTokens(std::move(tokens));
}

std::optional<TokenId> FindText(const FileVocabulary& vocabulary, absl::string_view text) {
  for (TokenId id = 0; id < vocabulary.table.size(); ++id) {
    if (vocabulary.table[id].text == text && !text.empty()) return id;
  }
  return std::nullopt;
}

// The tokens named "<0x00>" to "<0xFF>", as far as there are any.
std::array<uint32_t, 256> NamedBytes(const FileVocabulary& vocabulary) {
  std::array<uint32_t, 256> ids;
  ids.fill(kNoSymbol);
  for (const ModelToken& token : vocabulary.model) {
    if (const std::optional<uint8_t> byte = ByteOfName(token.text)) ids[*byte] = token.id;
  }
  return ids;
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

StatusOr<BpeOptions> ReadBpeOptions(const Json& model, const FileVocabulary& vocabulary,
                                    VocabularyWriting writing) {
  if (model.contains("dropout") && model["dropout"].is_number() &&
      model["dropout"].get<double>() > 0) {
    return HuggingFaceError("model.dropout", "gives another result each time; remove it");
  }
  BpeOptions options;
  options.unit = writing == VocabularyWriting::kByteSymbols ? BpeUnit::kByte : BpeUnit::kCharacter;
  options.same_merge = SameMerge::kLastCounts;
  options.missing_bytes = MissingBytes::kAllow;
  options.continuing_prefix = InBytes(TextOf(model, "continuing_subword_prefix", ""), writing);
  options.word_suffix = InBytes(TextOf(model, "end_of_word_suffix", ""), writing);
  if (std::max(options.continuing_prefix.size(), options.word_suffix.size()) >
      kMaxReplacementBytes) {
    return HuggingFaceError("model.continuing_subword_prefix", "is too long");
  }
  if (FlagOf(model, "ignore_merges", false)) options.whole_words = WholeWords::kFirst;
  if (FlagOf(model, "fuse_unk", false)) options.unknown_runs = UnknownRuns::kFused;
  if (FlagOf(model, "byte_fallback", false)) options.byte_tokens = NamedBytes(vocabulary);
  if (const std::string unknown = TextOf(model, "unk_token", ""); !unknown.empty()) {
    options.unknown = vocabulary.FindModel(unknown);
    if (!options.unknown.has_value()) {
      return HuggingFaceError("model.unk_token", absl::StrCat("\"", unknown, "\" is no token"));
    }
  }
  return options;
}

StatusOr<std::unique_ptr<Model>> ReadBpe(const Json& model, const FileVocabulary& vocabulary,
                                         VocabularyWriting writing) {
  TESSERA_ASSIGN_OR_RETURN(const BpeOptions options, ReadBpeOptions(model, vocabulary, writing));
  std::vector<std::string> texts;
  std::vector<Vocabulary::Entry> entries;
  texts.reserve(vocabulary.model.size());
  for (const ModelToken& token : vocabulary.model) {
    texts.push_back(InBytes(token.text, writing));
    entries.push_back({texts.back(), token.id});
  }
  std::vector<std::string> storage;
  TESSERA_ASSIGN_OR_RETURN(const std::vector<MergeTexts> merges,
                           ReadMerges(model, writing, &storage));
  TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<Model> result,
                           BpeModel::Create(entries, merges, options));
  return result;
}

StatusOr<std::unique_ptr<Model>> ReadUnigram(const Json& model, const FileVocabulary& vocabulary) {
  ScoreOptions options;
  options.sum = ScoreSum::kDouble;
  if (FlagOf(model, "byte_fallback", false)) options.byte_tokens = NamedBytes(vocabulary);
  if (model.contains("unk_id") && model["unk_id"].is_number_unsigned()) {
    const uint64_t id = model["unk_id"].get<uint64_t>();
    if (id >= vocabulary.model.size()) return HuggingFaceError("model.unk_id", "is no token");
    options.unknown = static_cast<TokenId>(id);
  }
  std::vector<ScoredToken> tokens;
  tokens.reserve(vocabulary.model.size());
  for (const ModelToken& token : vocabulary.model) {
    tokens.push_back({token.text, token.id, token.score});
  }
  TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<Model> result, UnigramModel::Create(tokens, options));
  return result;
}

std::vector<Vocabulary::Entry> EntriesOf(const FileVocabulary& vocabulary) {
  std::vector<Vocabulary::Entry> entries;
  entries.reserve(vocabulary.model.size());
  for (const ModelToken& token : vocabulary.model) entries.push_back({token.text, token.id});
  return entries;
}

StatusOr<std::unique_ptr<Model>> ReadWordPiece(const Json& model,
                                               const FileVocabulary& vocabulary) {
  const std::optional<TokenId> unknown = vocabulary.FindModel(TextOf(model, "unk_token", "[UNK]"));
  if (!unknown.has_value()) return HuggingFaceError("model.unk_token", "is no token");
  WordPieceOptions options{*unknown, "", TextOf(model, "continuing_subword_prefix", "##")};
  if (const auto most = model.find("max_input_chars_per_word");
      most != model.end() && most->is_number_unsigned()) {
    options.max_word_characters = most->get<size_t>();
  }
  return std::make_unique<WordPieceModel>(EntriesOf(vocabulary), options);
}

StatusOr<std::unique_ptr<Model>> ReadModel(const Json& model, const FileVocabulary& vocabulary,
                                           VocabularyWriting writing, std::string* kind) {
  *kind = TextOf(model, "type", "");
  // Early files name no type; merges tell.
  if (kind->empty() && model.contains("merges")) *kind = "BPE";
  if (*kind == "BPE") {
    *kind = writing == VocabularyWriting::kByteSymbols ? "byte-level BPE" : "character BPE";
    return ReadBpe(model, vocabulary, writing);
  }
  if (*kind == "Unigram") return ReadUnigram(model, vocabulary);
  if (*kind == "WordPiece") return ReadWordPiece(model, vocabulary);
  if (*kind == "WordLevel") {
    return std::make_unique<WordLevelModel>(EntriesOf(vocabulary),
                                            vocabulary.FindModel(TextOf(model, "unk_token", "")));
  }
  return HuggingFaceError("model.type", absl::StrCat("\"", *kind, "\" is not supported"));
}

StatusOr<TokenBytes> BytesOf(const FileVocabulary& vocabulary, const TokenDecoder& decoder) {
  TokenBytes bytes;
  bytes.set_first_token(decoder.first_token());
  size_t first_bytes = 0;
  for (TokenId id = 0; id < vocabulary.table.size(); ++id) {
    const TableToken& token = vocabulary.table[id];
    const std::optional<uint8_t> byte =
        decoder.falls_back_to_bytes() ? ByteOfName(token.text) : std::nullopt;
    if (byte.has_value()) {
      const char raw = static_cast<char>(*byte);
      bytes.Add(absl::string_view(&raw, 1), TokenKind::kByte);
      continue;
    }
    if (token.text.empty()) {
      bytes.Add("", token.kind);
      continue;
    }
    TESSERA_ASSIGN_OR_RETURN(const std::string later,
                             decoder.Write(token.text, TokenDecoder::Place::kLater));
    bytes.Add(later, token.kind);
    if (!decoder.strips_text()) {
      TESSERA_ASSIGN_OR_RETURN(std::string first,
                               decoder.Write(token.text, TokenDecoder::Place::kFirst));
      first_bytes += first.size();
      if (first != bytes.First(id)) bytes.SetFirst(id, std::move(first));
    }
    if (bytes.data().size() + first_bytes > kMaxVocabularyBytes) {
      return HuggingFaceError("decoder", "it makes the vocabulary too large");
    }
  }
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

}  // namespace

StatusOr<std::shared_ptr<const Tokenizer>> TokenizerFromHuggingFace(
    absl::string_view tokenizer_json, absl::string_view tokenizer_config_json) {
  Json root;
  DocumentReader reader(&root);
  const bool parsed = Json::sax_parse(tokenizer_json.begin(), tokenizer_json.end(), &reader);
  if (!parsed || !root.is_object()) return HuggingFaceError("", "it is not a JSON object");
  const Json& model = PartOf(root, "model");
  if (!model.is_object()) return HuggingFaceError("model", "is missing");
  TESSERA_ASSIGN_OR_RETURN(const TokenizerConfig config,
                           ParseTokenizerConfig(tokenizer_config_json));
  Tokenizer::Parts parts;
  FileVocabulary vocabulary;
  TESSERA_ASSIGN_OR_RETURN(parts.normalizer, ReadNormalizer(PartOf(root, "normalizer")));
  TESSERA_RETURN_IF_ERROR(ReadVocabulary(model, &vocabulary));
  TESSERA_RETURN_IF_ERROR(ReadAdded(root, parts.normalizer, &vocabulary));
  TESSERA_RETURN_IF_ERROR(CheckTable(vocabulary.table));
  TESSERA_ASSIGN_OR_RETURN(PreTokenizerPart pre, ReadPreTokenizer(PartOf(root, "pre_tokenizer")));
  TESSERA_ASSIGN_OR_RETURN(const TokenDecoder decoder, TokenDecoder::Read(PartOf(root, "decoder")));
  TESSERA_ASSIGN_OR_RETURN(const PostProcessorPart post,
                           ReadPostProcessor(PartOf(root, "post_processor")));
  parts.pre_tokenizer = std::move(pre.steps);
  TESSERA_ASSIGN_OR_RETURN(parts.model, ReadModel(model, vocabulary, pre.writing, &parts.kind));
  TESSERA_ASSIGN_OR_RETURN(parts.bytes, BytesOf(vocabulary, decoder));
  TESSERA_RETURN_IF_ERROR(FillSpecials(post, config, vocabulary, &parts));
  parts.added = InOrder(std::move(vocabulary.added));
  parts.normalized_added = InOrder(std::move(vocabulary.normalized));
  return Tokenizer::Create(std::move(parts));
}

}  // namespace tessera::server
