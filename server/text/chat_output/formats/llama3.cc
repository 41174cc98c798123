// Llama 3.1 to 3.3: the whole answer is {"name": …, "parameters": …}, perhaps after
// <|python_tag|>; or <function=NAME>{…}</function>.
#include "absl/strings/match.h"
#include "server/text/chat_output/answer_format.h"

namespace tessera::server {
namespace {

bool IsLlama3(absl::string_view chat_template) {
  return absl::StrContains(chat_template, "<|start_header_id|>") &&
         (absl::StrContains(chat_template, "<|python_tag|>") ||
          absl::StrContains(chat_template, "\"parameters\":"));
}

}  // namespace

void Register_llama3(AnswerFormatRegistry& registry) {
  registry.Add({.name = "llama3",
                .recognises = IsLlama3,
                .markup = {.calls = {{.begin = ""},
                                     {.begin = "<|python_tag|>"},
                                     {.begin = "<function=",
                                      .end = "</function>",
                                      .body = CallBody::kNamed,
                                      .arguments_begin = ">"}}},
                .make = MakeMarkupParser});
}

}  // namespace tessera::server
