// The tokenizer of chains that have no vocabulary of their own: a byte is a token.
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "server/text/tokenizer.h"

namespace tessera::server {
namespace {

constexpr uint64_t kBytes = 256;

class ByteModel final : public Model {
 public:
  Status Encode(absl::string_view piece, TokenSink* sink) const override {
    for (size_t i = 0; i < piece.size(); ++i) {
      sink->Add(static_cast<TokenId>(static_cast<uint8_t>(piece[i])), i + 1);
    }
    return absl::OkStatus();
  }
  std::optional<TokenId> Find(absl::string_view text) const override {
    if (text.size() != 1) return std::nullopt;
    return static_cast<TokenId>(static_cast<uint8_t>(text[0]));
  }
};

}  // namespace

StatusOr<std::shared_ptr<const Tokenizer>> TokenizerFromByteVocabulary(absl::string_view json) {
  const auto object = nlohmann::json::parse(json.begin(), json.end(), nullptr, false);
  const auto found = object.find("vocab");
  const bool number = found != object.end() && found->is_number_unsigned();
  const uint64_t vocab = number ? found->get<uint64_t>() : 0;
  if (vocab < kBytes || vocab > kMaxVocabularyTokens) {
    return Error(
        absl::StatusCode::kInvalidArgument,
        {.what = "byte_vocabulary.json is not usable",
         .where = "vocab",
         .why = absl::StrCat("it must be a number of ", kBytes, " to ", kMaxVocabularyTokens),
         .fix = "make the chain again with `tessera zoo synth`"});
  }
  Tokenizer::Parts parts;
  parts.kind = "bytes";
  parts.model = std::make_unique<ByteModel>();
  parts.bytes.Reserve(vocab, vocab * 7);
  for (uint64_t id = 0; id < kBytes; ++id) {
    const char byte = static_cast<char>(id);
    parts.bytes.Add(absl::string_view(&byte, 1), TokenKind::kByte);
  }
  for (uint64_t id = kBytes; id < vocab; ++id) {
    parts.bytes.Add(absl::StrCat(" ", id), TokenKind::kNormal);
  }
  return Tokenizer::Create(std::move(parts));
}

}  // namespace tessera::server
