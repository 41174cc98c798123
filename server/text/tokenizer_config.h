// What tokenizer_config.json says about a tokenizer.
#pragma once

#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "config/foundation/status.h"

namespace tessera::server {

struct TokenizerConfig {
  std::string tokenizer_class;
  std::optional<std::string> bos_token;
  std::optional<std::string> eos_token;
  std::optional<bool> add_bos;
  std::optional<bool> add_eos;
};

// An empty text gives an empty config. INVALID_ARGUMENT when it is not a JSON object.
[[nodiscard]] StatusOr<TokenizerConfig> ParseTokenizerConfig(absl::string_view json_text);

}  // namespace tessera::server
