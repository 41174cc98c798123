// POST /v1/embeddings.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "config/snapshot.h"
#include "server/core/frontend.h"
#include "server/http/http_server.h"

namespace tessera::server {

struct EmbeddingsRequest {
  std::vector<GenerationSpec> specs;  // one an input, in order; valid by ValidateSpec
  enum class Format : uint8_t { kFloat, kBase64 } format = Format::kFloat;
};

// {"model", "input", "encoding_format", "dimensions"} as OpenAI has them, and "pooling" ("last",
// "mean", "cls"), "normalize", "add_special_tokens", "truncate_prompt_tokens". INVALID_ARGUMENT
// with everything that is wrong.
[[nodiscard]] StatusOr<EmbeddingsRequest> ParseEmbeddingsRequest(absl::string_view body,
                                                                 const SpecLimits& limits);

// Answers `exchange`, which it is called with in its handler.
void ServeEmbeddings(Frontend* frontend, const SettingsStore& settings,
                     const std::shared_ptr<Exchange>& exchange, const std::string& request_id);

}  // namespace tessera::server
