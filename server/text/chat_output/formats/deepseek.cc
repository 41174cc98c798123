// DeepSeek V3, R1 and V3.1: the type, a mark, the name and the arguments in a fence; later the
// name, the mark and the arguments.
#include "absl/strings/match.h"
#include "server/text/chat_output/answer_format.h"

namespace tessera::server {
namespace {

constexpr char kCallBegin[] = "<｜tool▁call▁begin｜>";

bool IsDeepSeek(absl::string_view chat_template) {
  return absl::StrContains(chat_template, kCallBegin);
}

}  // namespace

void Register_deepseek(AnswerFormatRegistry& registry) {
  registry.Add({.name = "deepseek",
                .recognises = IsDeepSeek,
                .markup = {.ignored = {"<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"},
                           .calls = {{.begin = kCallBegin,
                                      .end = "<｜tool▁call▁end｜>",
                                      .body = CallBody::kNamed,
                                      .arguments_begin = "<｜tool▁sep｜>",
                                      .name = CallForm::Name::kTyped}}},
                .make = MakeMarkupParser});
}

}  // namespace tessera::server
