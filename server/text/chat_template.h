// A chain's chat template: messages to a marked prompt.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "config/foundation/status.h"
#include "server/text/text_segment.h"

namespace tessera::server {

struct ChatMessage {
  std::string role;
  std::string content;
  std::string name;             // empty: the message has no such field
  std::string tool_call_id;     // the same
  std::string tool_calls_json;  // a JSON array; empty: none
  // A JSON object whose members become further fields ("reasoning_content") or replace the ones
  // above (a content that is a list of parts, or null); empty: none.
  std::string fields_json;
};

struct ChatInput {
  std::vector<ChatMessage> messages;
  std::string tools_json;      // a JSON array; empty: none
  std::string documents_json;  // a JSON array; empty: none
  std::string args_json;       // a JSON object of further variables; empty: none
  bool add_generation_prompt = true;
  // Texts of the vocabulary's tokens; unset ones are undefined in the template.
  std::optional<std::string> bos_token;
  std::optional<std::string> eos_token;
};

// Immutable, thread-safe.
class ChatTemplate {
 public:
  // INVALID_ARGUMENT naming line, column and reason when the text is longer than 256 KiB or is not
  // the subset of Jinja that is known.
  static StatusOr<std::shared_ptr<const ChatTemplate>> Parse(absl::string_view text);
  ~ChatTemplate();

  // Segments in order, neighbours of different origin. INVALID_ARGUMENT when the template refuses
  // the messages (its own words), fails at a line, or a field is no JSON or no UTF-8;
  // RESOURCE_EXHAUSTED when it needs more than 500,000 steps, nests deeper than 400 levels, writes
  // more than 4 × input + 64 KiB, or builds more than 16 × input + 16 MiB on the way.
  [[nodiscard]] StatusOr<std::vector<TextSegment>> Render(const ChatInput& input) const;

  // The variables that the template reads before it sets them, less those that ChatInput has fields
  // for: what `args_json` may name.
  [[nodiscard]] const std::set<std::string>& keys() const;
  [[nodiscard]] size_t source_bytes() const;

 private:
  struct Impl;
  explicit ChatTemplate(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace tessera::server
