// Qwen3-Coder, Qwen 3.5, Seed-OSS, Nemotron 3: <function=NAME><parameter=KEY>VALUE</parameter>
// </function> within <tool_call>, which models forget.
#include "absl/strings/match.h"
#include "server/text/chat_output/answer_format.h"

namespace tessera::server {
namespace {

bool IsQwen3Coder(absl::string_view chat_template) {
  return absl::StrContains(chat_template, "<function=") &&
         absl::StrContains(chat_template, "<parameter=") &&
         absl::StrContains(chat_template, "tool_call>");
}

CallForm FunctionTags(const char* begin, const char* end, const char* open) {
  return {.begin = begin,
          .end = end,
          .body = CallBody::kTagged,
          .open = open,
          .name_end = ">",
          .key_begin = "<parameter=",
          .key_end = ">",
          .value_end = "</parameter>",
          .close = "</function>",
          .values = CallForm::Values::kLines};
}

}  // namespace

void Register_qwen3_coder(AnswerFormatRegistry& registry) {
  registry.Add(
      {.name = "qwen3_coder",
       .recognises = IsQwen3Coder,
       .markup = {.calls = {FunctionTags("<tool_call>", "</tool_call>", "<function="),
                            FunctionTags("<seed:tool_call>", "</seed:tool_call>", "<function="),
                            FunctionTags("<function=", "</tool_call>", "")}},
       .make = MakeMarkupParser});
}

}  // namespace tessera::server
