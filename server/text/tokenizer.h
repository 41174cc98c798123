// Text to tokens. One immutable tokenizer a chain, made from the chain's assets, shared by threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "config/foundation/ids.h"
#include "config/foundation/status.h"
#include "server/text/added_tokens.h"
#include "server/text/aligned_text.h"
#include "server/text/gguf_vocabulary.h"
#include "server/text/model.h"
#include "server/text/normalizer.h"
#include "server/text/pretokenizer.h"
#include "server/text/text_segment.h"
#include "server/text/token_bytes.h"

namespace tessera::server {

// Whether the tokens that the model expects around a text (BOS, EOS, CLS) are added.
enum class AddSpecial { kNone, kDefault };
// Whether names of control tokens in the text become those tokens. Never for a user's text.
enum class ParseSpecial { kOff, kOn };

struct EncodeOptions {
  AddSpecial add_special = AddSpecial::kDefault;
  ParseSpecial parse_special = ParseSpecial::kOff;
};

struct Encoding {
  std::vector<TokenId> ids;
  // The bytes of the text that each token was made from; empty ranges for added special tokens.
  // A character that becomes several tokens may be in all their ranges.
  std::vector<ByteRange> ranges;
};

class Tokenizer {
 public:
  // What a factory fills in.
  struct Parts {
    std::string kind;  // "byte-level BPE", for `tessera zoo show`
    AddedTokens added;
    NormalizerSteps normalizer;
    AddedTokens normalized_added;  // found behind the normalizer
    PreTokenizerSteps pre_tokenizer;
    std::unique_ptr<Model> model;
    TokenBytes bytes;
    std::vector<TokenId> prefix;  // what AddSpecial::kDefault puts before and behind a text
    std::vector<TokenId> suffix;
    std::optional<TokenId> bos;
    std::optional<TokenId> eos;
  };
  // INTERNAL when the parts do not fit together: a missing model, an id outside the vocabulary.
  static StatusOr<std::shared_ptr<const Tokenizer>> Create(Parts parts);

  // INVALID_ARGUMENT when `text` is not UTF-8 (with the byte's offset) or longer than
  // kMaxEncodeBytes; RESOURCE_EXHAUSTED when a pattern of the tokenizer cannot cope with it.
  [[nodiscard]] StatusOr<std::vector<TokenId>> Encode(absl::string_view text,
                                                      const EncodeOptions& options) const;
  [[nodiscard]] StatusOr<Encoding> EncodeWithRanges(absl::string_view text,
                                                    const EncodeOptions& options) const;
  // Encodes the concatenation of the segments; control tokens are found only where every byte of
  // their name comes from the template. Adds BOS and EOS only when `add_special` says so: a chat
  // template writes its own.
  [[nodiscard]] StatusOr<std::vector<TokenId>> EncodeSegments(
      std::span<const TextSegment> segments, AddSpecial add_special = AddSpecial::kNone) const;

  [[nodiscard]] const TokenBytes& token_bytes() const { return parts_.bytes; }
  [[nodiscard]] size_t vocab_size() const { return parts_.bytes.size(); }
  [[nodiscard]] std::optional<TokenId> bos() const { return parts_.bos; }
  [[nodiscard]] std::optional<TokenId> eos() const { return parts_.eos; }
  [[nodiscard]] const std::string& kind() const { return parts_.kind; }
  // The token written exactly `text`: an added token's name, or a token's own text (raw bytes in a
  // byte-level vocabulary).
  [[nodiscard]] std::optional<TokenId> TokenToId(absl::string_view text) const;

 private:
  explicit Tokenizer(Parts parts) : parts_(std::move(parts)) {}
  Status EncodeInto(absl::string_view text, const std::vector<ByteRange>& special_ranges,
                    AddSpecial add_special, Alignment alignment, Encoding* out) const;
  Status EncodeFragment(absl::string_view text, ByteRange range,
                        const std::vector<ByteRange>& special_ranges, Alignment alignment,
                        Encoding* out) const;
  Status EncodeNormalized(AlignedText text, FragmentPlace place, Encoding* out) const;

  Parts parts_;
};

[[nodiscard]] StatusOr<std::shared_ptr<const Tokenizer>> TokenizerFromGgufVocabulary(
    const GgufVocabulary& vocabulary);
// `tokenizer_config_json` may be empty.
[[nodiscard]] StatusOr<std::shared_ptr<const Tokenizer>> TokenizerFromHuggingFace(
    absl::string_view tokenizer_json, absl::string_view tokenizer_config_json);
// `model_bytes` is a SentencePiece ModelProto; `tokenizer_config_json` may be empty.
[[nodiscard]] StatusOr<std::shared_ptr<const Tokenizer>> TokenizerFromSentencePiece(
    absl::string_view model_bytes, absl::string_view tokenizer_config_json);
// {"vocab":N}, 256 <= N: tokens 0 to 255 are the bytes, which are all that a text becomes; each
// other one writes a space and its number.
[[nodiscard]] StatusOr<std::shared_ptr<const Tokenizer>> TokenizerFromByteVocabulary(
    absl::string_view json);
// Chooses by asset name: "tokenizer.json", "tokenizer.model" (both with "tokenizer_config.json"),
// "gguf_vocabulary.json", "byte_vocabulary.json". NOT_FOUND when there is none.
[[nodiscard]] StatusOr<std::shared_ptr<const Tokenizer>> TokenizerFromAssets(
    const std::map<std::string, std::string>& assets);

}  // namespace tessera::server
