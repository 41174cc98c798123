// Requests of tessera.v1 as specs.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "server/core/generation_spec.h"

namespace tessera::v1 {
class ChatRequest;
class EmbedRequest;
class GenerateRequest;
class Prompt;
class ScoreRequest;
}  // namespace tessera::v1

namespace tessera::server {

// Takes over every field; ValidateSpec judges the values.
[[nodiscard]] GenerationSpec ToSpec(const v1::GenerateRequest& request);
// INVALID_ARGUMENT when tools or template arguments have no JSON form.
[[nodiscard]] StatusOr<GenerationSpec> ToSpec(const v1::ChatRequest& request);
[[nodiscard]] PromptSpec ToSpec(const v1::Prompt& prompt);
// One spec a continuation. INVALID_ARGUMENT when there is none or too many.
[[nodiscard]] StatusOr<std::vector<GenerationSpec>> ToSpecs(const v1::ScoreRequest& request);
// One spec an input. INVALID_ARGUMENT when there is none or too many.
[[nodiscard]] StatusOr<std::vector<GenerationSpec>> ToSpecs(const v1::EmbedRequest& request);

}  // namespace tessera::server
