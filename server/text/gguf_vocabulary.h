// The vocabulary that a GGUF file carries, as values and as the asset text gguf_vocabulary.json.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "config/foundation/status.h"
#include "server/text/bpe_model.h"

namespace tessera::server {

// The keys tokenizer.ggml.*; a key that the file lacks is nullopt or empty.
struct GgufVocabulary {
  std::string model;  // "gpt2", "llama", "bert"
  std::string pre;    // the name of the splitting rules, for "gpt2"
  std::vector<std::string> tokens;
  std::vector<float> scores;         // empty, or one a token
  std::vector<int32_t> token_types;  // empty, or one a token
  std::vector<std::string> merges;   // "left right"
  std::optional<int64_t> bos_token_id;
  std::optional<int64_t> eos_token_id;
  std::optional<int64_t> unknown_token_id;
  std::optional<int64_t> cls_token_id;
  std::optional<int64_t> separator_token_id;
  std::optional<bool> add_bos_token;
  std::optional<bool> add_eos_token;
  std::optional<bool> add_space_prefix;
};

// Reads gguf_vocabulary.json: an object with the fields above by name.
// INVALID_ARGUMENT naming the field when one has another type or is too large.
[[nodiscard]] StatusOr<GgufVocabulary> ParseGgufVocabulary(absl::string_view json_text);

// What a name of splitting rules ("pre") says about byte-level BPE.
struct GgufSplitRules {
  std::vector<std::string> patterns;  // that cut a text, applied one after the other
  WholeWords whole_words = WholeWords::kByMerges;
  bool adds_bos = false;  // where the file does not say
};
// INVALID_ARGUMENT listing the known names when `pre` is none of them.
[[nodiscard]] StatusOr<GgufSplitRules> FindGgufSplitRules(absl::string_view pre);

}  // namespace tessera::server
