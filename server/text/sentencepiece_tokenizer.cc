// Tokenizers from SentencePiece's model files: the ModelProto is read here, field by field.
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/text/character_map.h"
#include "server/text/score_models.h"
#include "server/text/sentencepiece_normalizer.h"
#include "server/text/tokenizer.h"
#include "server/text/tokenizer_config.h"
#include "server/text/vocabulary_table.h"

namespace tessera::server {
namespace {

Status FileError(absl::string_view where, absl::string_view why) {
  return Error(absl::StatusCode::kInvalidArgument,
               {"tokenizer.model is not usable", std::string(where), std::string(why),
                "fetch the model again"});
}

// One field of a protobuf message.
struct WireField {
  uint64_t number = 0;
  uint64_t value = 0;       // varint, or the bits of a fixed field
  absl::string_view bytes;  // length-delimited
};

// Reads a protobuf message field by field; never past its end.
class WireReader {
 public:
  explicit WireReader(absl::string_view data) : data_(data) {}
  [[nodiscard]] bool done() const { return data_.empty(); }

  // False when the message is broken.
  bool Next(WireField* field) {
    uint64_t tag = 0;
    if (!Varint(&tag)) return false;
    *field = {tag >> 3, 0, {}};
    switch (tag & 7) {
      case 0:
        return Varint(&field->value);
      case 1:
        return Fixed(8, &field->value);
      case 5:
        return Fixed(4, &field->value);
      case 2: {
        uint64_t size = 0;
        if (!Varint(&size) || size > data_.size()) return false;
        field->bytes = data_.substr(0, size);
        data_.remove_prefix(size);
        return true;
      }
      default:
        return false;
    }
  }

 private:
  bool Varint(uint64_t* value) {
    *value = 0;
    for (int shift = 0; shift < 64 && !data_.empty(); shift += 7) {
      const uint8_t byte = static_cast<uint8_t>(data_[0]);
      data_.remove_prefix(1);
      *value |= uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return true;
    }
    return false;
  }
  bool Fixed(size_t bytes, uint64_t* value) {
    if (data_.size() < bytes) return false;
    *value = 0;
    std::memcpy(value, data_.data(), bytes);
    data_.remove_prefix(bytes);
    return true;
  }

  absl::string_view data_;
};

struct SpmModel {
  std::vector<TableToken> tokens;
  int64_t model_type = 1;  // 1 Unigram, 2 BPE
  int64_t unknown = 0;
  int64_t bos = 1;
  int64_t eos = 2;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
  bool whitespace_as_suffix = false;
  absl::string_view charsmap;
  // What the unknown token writes.
  absl::string_view unknown_surface = " \xE2\x81\x87 ";
};

int64_t SignedOf(uint64_t varint) { return static_cast<int32_t>(static_cast<uint32_t>(varint)); }

Status ReadPiece(absl::string_view message, std::vector<TableToken>* tokens) {
  const std::string where = absl::StrCat("pieces[", tokens->size(), "]");
  if (tokens->size() >= kMaxVocabularyTokens) return FileError(where, "too many pieces");
  TableToken token;
  WireReader reader(message);
  WireField field;
  while (!reader.done()) {
    if (!reader.Next(&field)) return FileError(where, "broken message");
    if (field.number == 1) {
      if (field.bytes.size() > kMaxTokenTextBytes) return FileError(where, "text is too long");
      token.text = std::string(field.bytes);
    } else if (field.number == 2) {
      token.score = std::bit_cast<float>(static_cast<uint32_t>(field.value));
    } else if (field.number == 3) {
      if (field.value < 1 || field.value > 6) return FileError(where, "unknown piece type");
      token.kind = static_cast<TokenKind>(field.value);
    }
  }
  tokens->push_back(std::move(token));
  return absl::OkStatus();
}

Status ReadTrainer(absl::string_view message, SpmModel* model) {
  WireReader reader(message);
  WireField field;
  while (!reader.done()) {
    if (!reader.Next(&field)) return FileError("trainer_spec", "broken message");
    if (field.number == 3) model->model_type = SignedOf(field.value);
    if (field.number == 24) model->whitespace_as_suffix = field.value != 0;
    if (field.number == 40) model->unknown = SignedOf(field.value);
    if (field.number == 41) model->bos = SignedOf(field.value);
    if (field.number == 42) model->eos = SignedOf(field.value);
    if (field.number == 44) model->unknown_surface = field.bytes;
  }
  return absl::OkStatus();
}

Status ReadNormalizer(absl::string_view message, SpmModel* model) {
  WireReader reader(message);
  WireField field;
  while (!reader.done()) {
    if (!reader.Next(&field)) return FileError("normalizer_spec", "broken message");
    if (field.number == 2) model->charsmap = field.bytes;
    if (field.number == 3) model->add_dummy_prefix = field.value != 0;
    if (field.number == 4) model->remove_extra_whitespaces = field.value != 0;
    if (field.number == 5) model->escape_whitespaces = field.value != 0;
  }
  return absl::OkStatus();
}

StatusOr<SpmModel> ReadModel(absl::string_view bytes) {
  SpmModel model;
  SpmModel denormalizer;
  WireReader reader(bytes);
  WireField field;
  while (!reader.done()) {
    if (!reader.Next(&field)) return FileError("", "broken message, or a file cut short");
    if (field.number == 1) TESSERA_RETURN_IF_ERROR(ReadPiece(field.bytes, &model.tokens));
    if (field.number == 2) TESSERA_RETURN_IF_ERROR(ReadTrainer(field.bytes, &model));
    if (field.number == 3) TESSERA_RETURN_IF_ERROR(ReadNormalizer(field.bytes, &model));
    if (field.number == 5) TESSERA_RETURN_IF_ERROR(ReadNormalizer(field.bytes, &denormalizer));
  }
  TESSERA_RETURN_IF_ERROR(CheckTable(model.tokens));
  if (!denormalizer.charsmap.empty()) {
    return FileError("denormalizer_spec", "rules for decoded text are not supported");
  }
  if (model.whitespace_as_suffix || !model.escape_whitespaces) {
    return FileError("trainer_spec", "spaces must be written as U+2581 before words");
  }
  return model;
}

Status AddNormalizer(const SpmModel& model, NormalizerSteps* steps) {
  SentencePieceRules rules;
  if (!model.charsmap.empty()) {
    StatusOr<CharacterMap> map = CharacterMap::Parse(model.charsmap);
    if (!map.ok()) {
      return FileError("normalizer_spec.precompiled_charsmap", map.status().message());
    }
    rules.map = *std::move(map);
  }
  for (const TableToken& token : model.tokens) {
    if (token.kind == TokenKind::kUserDefined && !token.text.empty()) {
      rules.symbols.push_back(token.text);
    }
  }
  rules.remove_extra_whitespaces = model.remove_extra_whitespaces;
  rules.add_dummy_prefix = model.add_dummy_prefix;
  steps->push_back(MakeSentencePieceStep(std::move(rules)));
  return absl::OkStatus();
}

std::vector<ScoredToken> ScoredTokens(const std::vector<TableToken>& tokens) {
  std::vector<ScoredToken> scored = MergeableTokens(tokens);
  for (ScoredToken& token : scored) {
    const TokenKind kind = tokens[token.id].kind;
    if (kind == TokenKind::kUserDefined) token.use = ScoredUse::kWhole;
    if (kind == TokenKind::kUnused) token.use = ScoredUse::kUnused;
  }
  return scored;
}

// User-defined tokens are not among them: normalizer and model find those.
AddedTokens SpecialTokens(const std::vector<TableToken>& tokens) {
  std::vector<AddedToken> special = AddedFrom(tokens).tokens();
  std::erase_if(special, [](const AddedToken& token) { return !token.special; });
  return AddedTokens(std::move(special));
}

void SetFirstTokens(const SpmModel& model, TokenBytes* bytes) {
  if (model.remove_extra_whitespaces) {
    bytes->set_first_token(FirstToken::kWithoutLeadingSpaces);
  } else if (model.add_dummy_prefix) {
    bytes->set_first_token(FirstToken::kWithoutOneSpace);
  }
  // A space that is no mark was written, and stays.
  for (TokenId id = 0; id < model.tokens.size(); ++id) {
    const TableToken& token = model.tokens[id];
    if (token.kind == TokenKind::kByte || absl::StartsWith(token.text, " ")) {
      bytes->SetFirst(id, std::string(bytes->bytes(id)));
    }
  }
}

}  // namespace

StatusOr<std::shared_ptr<const Tokenizer>> TokenizerFromSentencePiece(
    absl::string_view model_bytes, absl::string_view tokenizer_config_json) {
  TESSERA_ASSIGN_OR_RETURN(SpmModel model, ReadModel(model_bytes));
  TESSERA_ASSIGN_OR_RETURN(const TokenizerConfig config,
                           ParseTokenizerConfig(tokenizer_config_json));
  Tokenizer::Parts parts;
  const size_t count = model.tokens.size();
  ScoreOptions options{std::nullopt, ByteTokens(model.tokens)};
  options.unknown_runs = UnknownRuns::kFused;
  if (model.unknown >= 0) {
    TESSERA_ASSIGN_OR_RETURN(options.unknown, CheckId(model.unknown, count, "trainer_spec.unk_id"));
  }
  TESSERA_RETURN_IF_ERROR(AddNormalizer(model, &parts.normalizer));
  const std::vector<ScoredToken> scored = ScoredTokens(model.tokens);
  if (model.model_type == 2) {
    parts.kind = "SentencePiece BPE";
    TESSERA_ASSIGN_OR_RETURN(parts.model, SpmBpeModel::Create(scored, options));
  } else if (model.model_type == 1) {
    parts.kind = "SentencePiece Unigram";
    TESSERA_ASSIGN_OR_RETURN(parts.model, UnigramModel::Create(scored, options));
  } else {
    return FileError("trainer_spec.model_type",
                     absl::StrCat(model.model_type, " is neither Unigram (1) nor BPE (2)"));
  }
  parts.added = SpecialTokens(model.tokens);
  if (options.unknown.has_value()) {
    model.tokens[*options.unknown].text = std::string(model.unknown_surface);
  }
  parts.bytes = BytesOfMarkedTokens(model.tokens);
  if (options.unknown.has_value()) {
    parts.bytes.SetFirst(*options.unknown, std::string(model.unknown_surface));
  }
  SetFirstTokens(model, &parts.bytes);
  if (model.bos >= 0) {
    TESSERA_ASSIGN_OR_RETURN(parts.bos, CheckId(model.bos, count, "trainer_spec.bos_id"));
  }
  if (model.eos >= 0) {
    TESSERA_ASSIGN_OR_RETURN(parts.eos, CheckId(model.eos, count, "trainer_spec.eos_id"));
  }
  if (parts.bos && config.add_bos.value_or(true)) parts.prefix.push_back(*parts.bos);
  if (parts.eos && config.add_eos.value_or(false)) parts.suffix.push_back(*parts.eos);
  return Tokenizer::Create(std::move(parts));
}

}  // namespace tessera::server
