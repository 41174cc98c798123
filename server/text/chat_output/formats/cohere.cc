// Command R7B and later: reasoning, actions (a list of calls) and the response between marks.
#include "absl/strings/match.h"
#include "server/text/chat_output/answer_format.h"

namespace tessera::server {
namespace {

bool IsCohere(absl::string_view chat_template) {
  return absl::StrContains(chat_template, "<|START_ACTION|>");
}

}  // namespace

void Register_cohere(AnswerFormatRegistry& registry) {
  registry.Add({.name = "cohere",
                .recognises = IsCohere,
                .markup = {.reasoning_begin = "<|START_THINKING|>",
                           .reasoning_end = "<|END_THINKING|>",
                           .ignored = {"<|START_RESPONSE|>", "<|END_RESPONSE|>"},
                           .calls = {{.begin = "<|START_ACTION|>", .end = "<|END_ACTION|>"}}},
                .make = MakeMarkupParser});
}

}  // namespace tessera::server
