#include "server/text/chat_output/chat_parts.h"

#include <utility>

namespace tessera::server {

void ChatParts::Append(ChatParts after) {
  text += after.text;
  reasoning += after.reasoning;
  for (ToolCallDelta& call : after.calls) {
    if (calls.empty() || calls.back().index != call.index) {
      calls.push_back(std::move(call));
    } else {
      calls.back().arguments += call.arguments;
    }
  }
}

}  // namespace tessera::server
