// DeepSeek V3.2 and V4: tags for each argument, which say whether its value is text.
#include "absl/strings/match.h"
#include "server/text/chat_output/answer_format.h"

namespace tessera::server {
namespace {

constexpr char kInvoke[] = "<｜DSML｜invoke name=\"";

// Where the template makes the tags of a variable, this much of them is in its text.
bool IsDeepSeekV32(absl::string_view chat_template) {
  return absl::StrContains(chat_template, "｜DSML｜");
}

CallForm Invocations(const char* begin, const char* end) {
  return {.begin = begin,
          .end = end,
          .body = CallBody::kTagged,
          .open = kInvoke,
          .name_end = "\">",
          .key_begin = "<｜DSML｜parameter name=\"",
          .key_end = "\" string=\"",
          .value_begin = "\">",
          .value_end = "</｜DSML｜parameter>",
          .close = "</｜DSML｜invoke>",
          .values = CallForm::Values::kDeclared};
}

}  // namespace

void Register_deepseek_v32(AnswerFormatRegistry& registry) {
  registry.Add(
      {.name = "deepseek_v32",
       .recognises = IsDeepSeekV32,
       .markup = {.calls = {Invocations("<｜DSML｜function_calls>", "</｜DSML｜function_calls>"),
                            Invocations("<｜DSML｜tool_calls>", "</｜DSML｜tool_calls>")}},
       .make = MakeMarkupParser});
}

}  // namespace tessera::server
