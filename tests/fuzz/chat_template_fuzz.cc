// Chat templates from any text: a template, and behind a NUL byte the JSON of a list of messages.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "absl/strings/string_view.h"
#include "server/text/chat_template.h"

namespace {

using tessera::server::ChatInput;
using tessera::server::ChatTemplate;
using tessera::server::TextOrigin;
using tessera::server::TextSegment;

// The list becomes each of the fields that take JSON, and a text of data.
ChatInput InputOf(absl::string_view json) {
  ChatInput input;
  input.messages.push_back({"user", "<|im_start|> hello"});
  input.messages.push_back({"assistant", "", "name", "id", std::string(json)});
  input.messages.push_back({"system", std::string(json)});
  input.messages.push_back({"other", "", "", "", "", std::string(json)});
  input.tools_json = std::string(json);
  input.bos_token = "<s>";
  input.eos_token = "</s>";
  return input;
}

void Render(const ChatTemplate& chat_template, const ChatInput& input) {
  const auto segments = chat_template.Render(input);
  if (!segments.ok()) {
    const absl::StatusCode code = segments.status().code();
    if (code != absl::StatusCode::kInvalidArgument &&
        code != absl::StatusCode::kResourceExhausted) {
      std::abort();
    }
    return;
  }
  size_t bytes = 0;
  const TextSegment* before = nullptr;
  for (const TextSegment& segment : *segments) {
    if (segment.text.empty() || (before != nullptr && before->origin == segment.origin)) {
      std::abort();
    }
    bytes += segment.text.size();
    before = &segment;
  }
  size_t given = input.tools_json.size() + input.args_json.size() + 16;
  for (const auto& message : input.messages) {
    given += message.role.size() + message.content.size() + message.name.size() +
             message.tool_call_id.size() + message.tool_calls_json.size() +
             message.fields_json.size();
  }
  if (bytes > 4 * given + (size_t{64} << 10)) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view all(reinterpret_cast<const char*>(data), size);
  const size_t end = all.find('\0');
  const auto parsed = ChatTemplate::Parse(all.substr(0, end));
  if (!parsed.ok()) return 0;
  const absl::string_view json =
      end == absl::string_view::npos ? absl::string_view() : all.substr(end + 1);
  Render(**parsed, InputOf(json));
  // Once more with fields that are surely sound, so that the template runs.
  ChatInput plain;
  plain.messages.push_back({"user", "<|im_start|> hello"});
  plain.messages.push_back(
      {"assistant", "Good day.\n", "", "",
       R"([{"function": {"name": "f", "arguments": {"a": [1, 2.5, null]}}}])"});
  plain.tools_json = R"([{"type": "function", "function": {"name": "f", "parameters": {}}}])";
  plain.bos_token = "<s>";
  Render(**parsed, plain);
  return 0;
}
