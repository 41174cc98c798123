// Bodies of /v1/completions and /v1/chat/completions as specs.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "server/core/generation_spec.h"
#include "server/http/openai_error.h"
#include "server/http/openai_json.h"

namespace tessera::server {

struct OpenAiRequest {
  OpenAiEndpoint endpoint = OpenAiEndpoint::kCompletions;
  // One a prompt, in order; alike but for the prompt. Valid by ValidateSpec. No request ids.
  std::vector<GenerationSpec> specs;
  enum class Delivery : uint8_t { kWhole, kStream } delivery = Delivery::kWhole;
  // When a stream tells the usage.
  enum class StreamUsage : uint8_t { kNever, kAtTheEnd, kAlways } usage = StreamUsage::kNever;
  enum class Echo : uint8_t { kNo, kBefore } echo = Echo::kNo;
  uint32_t unknown_fields = 0;  // were ignored
};

// INVALID_ARGUMENT with everything that is wrong, or UNIMPLEMENTED when all of it is known and not
// offered; fields are named as the client wrote them.
[[nodiscard]] StatusOr<OpenAiRequest> ParseOpenAiRequest(OpenAiEndpoint endpoint,
                                                         absl::string_view body,
                                                         const SpecLimits& limits);

// The fields that make a chat's prompt: messages, tools, tool_choice,
// parallel_tool_calls, chat_template_kwargs, add_generation_prompt.
[[nodiscard]] ChatSpec ReadChat(FieldReader* fields, FieldErrors* errors);
// The prompts of `field` in any of the four forms; a fault when there is none.
[[nodiscard]] std::vector<PromptSpec> ReadPrompts(FieldReader* fields, const char* field);

}  // namespace tessera::server
