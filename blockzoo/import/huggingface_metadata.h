// What a Hugging Face directory says besides weights, in the forms that `Checkpoint` gives.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "blockzoo/import/checkpoint.h"

namespace tessera::blockzoo {

// Fields of config.json, nested ones joined by dots ("rope_scaling.factor"), texts in lists by
// index
// ("architectures.0"). A bool is 0 or 1; a null is absent. INVALID_ARGUMENT when it is no JSON
// object or nested more than 16 deep.
[[nodiscard]] StatusOr<Attributes> HuggingFaceSettings(absl::string_view config_text);

// Tokenizer files, template and generation settings of `directory` by the names of
// ChainManifest::assets. The template is chat_template.jinja, else tokenizer_config.json's
// ("default" where it lists several).
[[nodiscard]] StatusOr<std::map<std::string, std::string>> HuggingFaceAssets(
    const std::string& directory);

// The end ids of generation_config.json and config.json, tokenizer_config.json's eos_token looked
// up among the added tokens, and well-known turn ends that the template writes. Sorted, unique.
[[nodiscard]] StatusOr<std::vector<uint32_t>> HuggingFaceEndTokenIds(
    const Attributes& settings, const std::map<std::string, std::string>& assets);

// Whether the directory has weights as pickles (.bin, .pt, .pth, .ckpt) and none as safetensors.
[[nodiscard]] bool HasOnlyPickledWeights(const std::string& directory);
// Of files that belong to a model beside its weights: settings, tokenizer, template, licence.
[[nodiscard]] bool IsCompanionName(absl::string_view file);
[[nodiscard]] bool IsPickleName(absl::string_view file);

// Tensor name → file name of model.safetensors.index.json. INVALID_ARGUMENT when a file name is not
// a plain name in the same directory.
[[nodiscard]] StatusOr<std::map<std::string, std::string>> ParseShardIndex(absl::string_view text);

}  // namespace tessera::blockzoo
