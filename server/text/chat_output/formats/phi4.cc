// Phi-4-mini: a list of calls within <|tool_call|>.
#include "absl/strings/match.h"
#include "server/text/chat_output/answer_format.h"

namespace tessera::server {
namespace {

bool IsPhi4(absl::string_view chat_template) {
  return absl::StrContains(chat_template, "<|/tool_call|>") ||
         absl::StrContains(chat_template, "<|/tool|>");
}

}  // namespace

void Register_phi4(AnswerFormatRegistry& registry) {
  registry.Add({.name = "phi4",
                .recognises = IsPhi4,
                .markup = {.calls = {{.begin = "<|tool_call|>", .end = "<|/tool_call|>"}}},
                .make = MakeMarkupParser});
}

}  // namespace tessera::server
