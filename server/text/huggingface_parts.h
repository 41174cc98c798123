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
#include "server/text/regex.h"

namespace tessera::server {

// INVALID_ARGUMENT "tokenizer.json is not usable" at `where` because of `why`.
[[nodiscard]] Status HuggingFaceError(absl::string_view where, absl::string_view why);

// The longest text that a part may write.
inline constexpr size_t kMaxReplacementBytes = 1024;

// The members of a "Sequence" under the name `list`, flattened, or the part alone; none for null.
[[nodiscard]] StatusOr<std::vector<const nlohmann::json*>> SequenceMembers(
    const nlohmann::json& json, const char* list, const char* where);
// The pattern object {"String": s} or {"Regex": r} of a part.
[[nodiscard]] StatusOr<Regex> ReadPattern(const nlohmann::json& object, absl::string_view where);

// `json` may be null (no part). Unknown types are refused by name.
[[nodiscard]] StatusOr<NormalizerSteps> ReadNormalizer(const nlohmann::json& json);

enum class VocabularyWriting { kPlain, kByteSymbols };

struct PreTokenizerPart {
  PreTokenizerSteps steps;
  // kByteSymbols: the vocabulary writes bytes as the symbols of the byte-level alphabet.
  VocabularyWriting writing = VocabularyWriting::kPlain;
};
[[nodiscard]] StatusOr<PreTokenizerPart> ReadPreTokenizer(const nlohmann::json& json);

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
