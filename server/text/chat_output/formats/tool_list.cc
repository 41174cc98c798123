// Apriel, MiniMax M1: a list of calls, or one after the other, within <tool_calls>. Nemotron Nano
// 2: within <TOOLCALL>.
#include "absl/strings/match.h"
#include "server/text/chat_output/answer_format.h"

namespace tessera::server {
namespace {

bool IsToolList(absl::string_view chat_template) {
  return absl::StrContains(chat_template, "<tool_calls>") ||
         absl::StrContains(chat_template, "<TOOLCALL>");
}

}  // namespace

void Register_tool_list(AnswerFormatRegistry& registry) {
  registry.Add({.name = "tool_list",
                .recognises = IsToolList,
                .markup = {.calls = {{.begin = "<tool_calls>", .end = "</tool_calls>"},
                                     {.begin = "<TOOLCALL>", .end = "</TOOLCALL>"}}},
                .make = MakeMarkupParser});
}

}  // namespace tessera::server
