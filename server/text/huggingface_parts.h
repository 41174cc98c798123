// The parts of tokenizer.json, by the names that the file gives them. One function reads one part.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "config/foundation/status.h"
#include "server/text/normalizer.h"
#include "server/text/pretokenizer.h"

namespace tessera::server {

// INVALID_ARGUMENT "tokenizer.json is not usable" at `where` because of `why`.
[[nodiscard]] Status HuggingFaceError(absl::string_view where, absl::string_view why);

// `json` may be null (no part). Unknown types are refused by name.
[[nodiscard]] StatusOr<NormalizerSteps> ReadNormalizer(const nlohmann::json& json);

enum class VocabularyWriting { kPlain, kByteSymbols };

struct PreTokenizerPart {
  PreTokenizerSteps steps;
  // kByteSymbols: the vocabulary writes bytes as the symbols of the byte-level alphabet.
  VocabularyWriting writing = VocabularyWriting::kPlain;
};
[[nodiscard]] StatusOr<PreTokenizerPart> ReadPreTokenizer(const nlohmann::json& json);

// What the decoder makes of a token's text.
struct DecoderPart {
  std::vector<std::pair<std::string, std::string>> replacements;
  VocabularyWriting writing = VocabularyWriting::kPlain;
  bool byte_fallback = false;
  bool strips_first_space = false;
  // WordPiece: tokens with the prefix continue a word, others begin one behind a space.
  std::string continuation_prefix;
};
[[nodiscard]] StatusOr<DecoderPart> ReadDecoder(const nlohmann::json& json);

// Names of special tokens around one text; ids where the file gives them.
struct PostProcessorPart {
  std::vector<uint64_t> prefix;
  std::vector<uint64_t> suffix;
};
[[nodiscard]] StatusOr<PostProcessorPart> ReadPostProcessor(const nlohmann::json& json);

// The text, flag or number under `name`; the fallback when it is absent, null or of another type.
[[nodiscard]] std::string TextOf(const nlohmann::json& object, const char* name,
                                 absl::string_view fallback);
[[nodiscard]] bool FlagOf(const nlohmann::json& object, const char* name, bool fallback);

}  // namespace tessera::server
