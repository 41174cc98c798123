// What a chat's answer is made of, as far as it has been written.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tessera::server {

struct ToolCallDelta {
  uint32_t index = 0;     // of the call in its answer
  std::string id;         // empty but in the call's first delta
  std::string name;       // the same
  std::string arguments;  // JSON text, to be appended to what came before
};

// Parts of an answer. Texts are whole UTF-8 characters where the answer's are.
struct ChatParts {
  std::string text;
  std::string reasoning;
  std::vector<ToolCallDelta> calls;

  [[nodiscard]] bool empty() const { return text.empty() && reasoning.empty() && calls.empty(); }
  // Appends what comes after; deltas of one call become one.
  void Append(ChatParts after);
};

}  // namespace tessera::server
