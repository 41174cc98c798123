// Granite 3: <|tool_call|> and a list of calls; an answer after reasoning within <response>.
#include "absl/strings/match.h"
#include "server/text/chat_output/answer_format.h"

namespace tessera::server {
namespace {

bool IsGranite(absl::string_view chat_template) {
  return absl::StrContains(chat_template, "<|start_of_role|>") &&
         absl::StrContains(chat_template, "<|tool_call|>");
}

}  // namespace

void Register_granite(AnswerFormatRegistry& registry) {
  registry.Add(
      {.name = "granite",
       .recognises = IsGranite,
       .markup = {.ignored = {"<response>", "</response>"}, .calls = {{.begin = "<|tool_call|>"}}},
       .make = MakeMarkupParser});
}

}  // namespace tessera::server
