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
// A prompt with the continuation that is scored after it.
struct EncodedPair {
  std::vector<TokenId> ids;
  uint32_t continuation_from = 0;  // index of its first token; at least 1
};
// Two texts are encoded as one, because merges across the border are what a model has seen; the
// continuation has the tokens beyond as many as the context has alone. White space at the context's
// end counts as the continuation's. (So does lm-evaluation-harness.) Where that leaves the
// continuation nothing, one of the two has ids, or control tokens are parsed in one only, each is
// encoded alone. A context without
// tokens becomes the tokenizer's BOS, else its EOS. INVALID_ARGUMENT of "prompt" or "continuation".
[[nodiscard]] StatusOr<EncodedPair> EncodePair(const LoadedModel& model, const PromptSpec& context,
                                               const PromptSpec& continuation);
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
