// Kimi K2: functions.NAME:INDEX, a mark, the arguments; all calls within a section.
#include "absl/strings/match.h"
#include "server/text/chat_output/answer_format.h"

namespace tessera::server {
namespace {

bool IsKimi(absl::string_view chat_template) {
  return absl::StrContains(chat_template, "<|tool_call_argument_begin|>");
}

}  // namespace

void Register_kimi(AnswerFormatRegistry& registry) {
  registry.Add(
      {.name = "kimi",
       .recognises = IsKimi,
       .markup = {.ignored = {"<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"},
                  .calls = {{.begin = "<|tool_call_begin|>",
                             .end = "<|tool_call_end|>",
                             .body = CallBody::kNamed,
                             .arguments_begin = "<|tool_call_argument_begin|>",
                             .name = CallForm::Name::kIndexed}}},
       .make = MakeMarkupParser});
}

}  // namespace tessera::server
