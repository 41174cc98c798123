// Text to tokens and back with a loaded model.
#pragma once

#include <string>
#include <vector>

#include "server/core/generation_spec.h"
#include "server/core/loaded_model.h"

namespace tessera::server {

struct TokenSpan {
  TokenId id = 0;
  std::string raw;
  uint32_t begin = 0;  // byte offset in the text; 0 for prompts given as ids
};

struct RenderedChat {
  std::string text;
  std::vector<TokenId> token_ids;
};

// The prompt's tokens, truncated as asked. INVALID_ARGUMENT for ids outside the vocabulary.
[[nodiscard]] StatusOr<std::vector<TokenId>> EncodePrompt(const LoadedModel& model,
                                                          const PromptSpec& prompt);
// The same with each token's bytes and place.
[[nodiscard]] StatusOr<std::vector<TokenSpan>> EncodeSpans(const LoadedModel& model,
                                                           const PromptSpec& prompt);
// Renders the messages with the model's template; what came from the messages never becomes a
// control token. INVALID_ARGUMENT when there is no template or it refuses them.
[[nodiscard]] StatusOr<RenderedChat> RenderChat(const LoadedModel& model, const ChatSpec& chat);

enum class SpecialTokens : uint8_t { kSkip, kKeep };
struct DecodedText {
  std::string text;  // valid UTF-8
  std::string raw;
};
// INVALID_ARGUMENT for ids outside the vocabulary.
[[nodiscard]] StatusOr<DecodedText> DecodeTokens(const LoadedModel& model,
                                                 const std::vector<TokenId>& ids,
                                                 SpecialTokens special);

}  // namespace tessera::server
