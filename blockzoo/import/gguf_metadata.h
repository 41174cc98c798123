// What a GGUF file says besides weights, in the forms that `Checkpoint` gives.
#pragma once

#include <string>
#include <vector>

#include "blockzoo/import/gguf_reader.h"

namespace tessera::blockzoo {

// Scalars, texts and short numeric arrays; the vocabulary's arrays are left to the asset.
[[nodiscard]] Attributes GgufSettings(const GgufFile& file);

// The asset "gguf_vocabulary.json": model, pre, tokens, scores, token_types, merges, bos_token_id,
// eos_token_id, unknown_token_id, padding_token_id, add_bos_token, add_eos_token, add_space_prefix.
// What the file lacks is absent. Empty when the file has no vocabulary. INVALID_ARGUMENT when a
// token is not UTF-8, lists differ in length or an id is outside the vocabulary.
[[nodiscard]] StatusOr<std::string> GgufVocabularyJson(const GgufFile& file);

// eos, eot and eom ids, and the well-known turn ends that the vocabulary marks as control tokens or
// the chat template writes. Sorted, unique.
[[nodiscard]] StatusOr<std::vector<uint32_t>> GgufEndTokenIds(const GgufFile& file);

// Empty when there is none; INVALID_ARGUMENT when it is not UTF-8 text.
[[nodiscard]] StatusOr<std::string> GgufChatTemplate(const GgufFile& file);

}  // namespace tessera::blockzoo
