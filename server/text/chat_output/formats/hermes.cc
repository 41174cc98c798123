// Hermes, Qwen 2.5 and 3, Granite 4, SmolLM3: <tool_call>{"name": …, "arguments": …}</tool_call>.
#include <algorithm>

#include "absl/strings/match.h"
#include "server/text/chat_output/answer_format.h"

namespace tessera::server {
namespace {

// What others put between these marks, or around them.
constexpr absl::string_view kOthers[] = {"<function=", "<arg_key>",
                                         "<invoke name=", "<tool_calls>"};

bool IsHermes(absl::string_view chat_template) {
  return absl::StrContains(chat_template, "<tool_call>") &&
         std::none_of(std::begin(kOthers), std::end(kOthers), [&](absl::string_view other) {
           return absl::StrContains(chat_template, other);
         });
}

}  // namespace

void Register_hermes(AnswerFormatRegistry& registry) {
  registry.Add({.name = "hermes",
                .recognises = IsHermes,
                .markup = {.calls = {{.begin = "<tool_call>", .end = "</tool_call>"}}},
                .make = MakeMarkupParser});
}

}  // namespace tessera::server
