// Renders one chat template per line of standard input, for tests that compare with another
// implementation. A line is a JSON object with `template` and the fields of a ChatInput; the answer
// is one line: {"text": …, "data": [[begin, end], …]} with the byte ranges that are data, or
// {"error": …, "code": …}.
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "server/text/chat_template.h"

namespace {

using Json = nlohmann::ordered_json;
using tessera::server::ChatInput;
using tessera::server::ChatMessage;
using tessera::server::ChatTemplate;
using tessera::server::TextOrigin;
using tessera::server::TextSegment;

std::string JsonField(const Json& request, const char* name) {
  return request.contains(name) && !request[name].is_null() ? request[name].dump() : "";
}

// All of a message is given as further fields, so that nothing is added to what the test wrote.
ChatInput InputOf(const Json& request) {
  ChatInput input;
  for (const Json& one : request.value("messages", Json::array())) {
    ChatMessage& message = input.messages.emplace_back();
    message.fields_json = one.dump();
  }
  input.tools_json = JsonField(request, "tools");
  input.documents_json = JsonField(request, "documents");
  input.args_json = JsonField(request, "args");
  input.add_generation_prompt = request.value("add_generation_prompt", false);
  if (request.contains("bos_token")) input.bos_token = request["bos_token"].get<std::string>();
  if (request.contains("eos_token")) input.eos_token = request["eos_token"].get<std::string>();
  return input;
}

Json Failure(const absl::Status& status) {
  return {{"error", std::string(status.message())},
          {"code", absl::StatusCodeToString(status.code())}};
}

Json Answer(const Json& request) {
  const auto parsed = ChatTemplate::Parse(request.value("template", std::string()));
  if (!parsed.ok()) return Failure(parsed.status());
  const auto segments = (*parsed)->Render(InputOf(request));
  if (!segments.ok()) return Failure(segments.status());
  std::string text;
  Json data = Json::array();
  for (const TextSegment& segment : *segments) {
    if (segment.origin == TextOrigin::kData) {
      data.push_back({text.size(), text.size() + segment.text.size()});
    }
    text += segment.text;
  }
  return {{"text", text}, {"data", data}};
}

}  // namespace

int main() {
  std::string line;
  while (std::getline(std::cin, line)) {
    const Json request = Json::parse(line, nullptr, false);
    const Json answer = request.is_object() ? Answer(request) : Json{{"error", "no JSON object"}};
    std::cout << answer.dump() << std::endl;
  }
  return 0;
}
