// Mistral: [TOOL_CALLS][{"name": …, "arguments": …}], later [TOOL_CALLS]NAME[ARGS]{…} for each
// call, with [CALL_ID]… in between or not.
#include "absl/strings/match.h"
#include "server/text/chat_output/answer_format.h"

namespace tessera::server {
namespace {

bool IsMistral(absl::string_view chat_template) {
  return absl::StrContains(chat_template, "[TOOL_CALLS]");
}

}  // namespace

void Register_mistral(AnswerFormatRegistry& registry) {
  registry.Add({.name = "mistral",
                .recognises = IsMistral,
                .markup = {.calls = {{.begin = "[TOOL_CALLS]",
                                      .body = CallBody::kNamed,
                                      .id_begin = "[CALL_ID]",
                                      .arguments_begin = "[ARGS]"}}},
                .make = MakeMarkupParser});
}

}  // namespace tessera::server
