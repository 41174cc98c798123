// GLM 4.5 to 4.7: <tool_call>NAME<arg_key>KEY</arg_key><arg_value>VALUE</arg_value></tool_call>.
#include "absl/strings/match.h"
#include "server/text/chat_output/answer_format.h"

namespace tessera::server {
namespace {

bool IsGlm(absl::string_view chat_template) {
  return absl::StrContains(chat_template, "<arg_key>") &&
         absl::StrContains(chat_template, "<tool_call>");
}

}  // namespace

void Register_glm(AnswerFormatRegistry& registry) {
  registry.Add({.name = "glm",
                .recognises = IsGlm,
                .markup = {.calls = {{.begin = "<tool_call>",
                                      .end = "</tool_call>",
                                      .body = CallBody::kTagged,
                                      .name_end = "\n",
                                      .key_begin = "<arg_key>",
                                      .key_end = "</arg_key>",
                                      .value_begin = "<arg_value>",
                                      .value_end = "</arg_value>"}}},
                .make = MakeMarkupParser});
}

}  // namespace tessera::server
