// MiniMax M2: <invoke name="NAME"><parameter name="KEY">VALUE</parameter></invoke>, one or more
// within <minimax:tool_call>.
#include "absl/strings/match.h"
#include "server/text/chat_output/answer_format.h"

namespace tessera::server {
namespace {

bool IsMiniMax(absl::string_view chat_template) {
  return absl::StrContains(chat_template, "minimax:tool_call") &&
         absl::StrContains(chat_template, "<invoke name=");
}

}  // namespace

void Register_minimax(AnswerFormatRegistry& registry) {
  registry.Add({.name = "minimax",
                .recognises = IsMiniMax,
                .markup = {.calls = {{.begin = "<minimax:tool_call>",
                                      .end = "</minimax:tool_call>",
                                      .body = CallBody::kTagged,
                                      .open = "<invoke name=\"",
                                      .name_end = "\">",
                                      .key_begin = "<parameter name=\"",
                                      .key_end = "\">",
                                      .value_end = "</parameter>",
                                      .close = "</invoke>"}}},
                .make = MakeMarkupParser});
}

}  // namespace tessera::server
