// Renders one chat template per line of standard input, for tests that compare with another
// implementation. A line is a JSON object with `template` and the fields of a ChatInput; the answer
// is one line: {"text": …, "data": [[begin, end], …]} with the byte ranges that are data, or
// {"error": …, "code": …}.
//
// With an `answer`, the text of a model whose template it is and whose control tokens are
// `controls`, after a prompt that ends with `prompt`, the answer is its parts instead:
// {"format": …, "text": …, "reasoning": …, "calls": [[name, arguments], …]}.
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/match.h"
#include "server/text/chat_output/answer_format.h"
#include "server/text/chat_template.h"

namespace {

using Json = nlohmann::ordered_json;
using tessera::server::AnswerOptions;
using tessera::server::ChatInput;
using tessera::server::ChatMessage;
using tessera::server::ChatOutput;
using tessera::server::ChatParts;
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

// Pushes a control token or a byte at a time: what is no mark of the format is not shown.
ChatParts PartsOf(const ChatOutput& output, const Json& request) {
  AnswerOptions options;
  options.tools = tessera::server::OfferedTools(JsonField(request, "tools"));
  options.prompt = request.value("prompt", std::string());
  const std::string answer = request["answer"];
  ChatParts parts;
  const auto parser = output.MakeParser(std::move(options));
  if (parser == nullptr) {
    parts.text = answer;
    return parts;
  }
  for (absl::string_view rest = answer; !rest.empty();) {
    std::string control;
    for (const std::string name : request["controls"]) {
      if (absl::StartsWith(rest, name)) control = name;
    }
    if (control.empty()) {
      parser->Push(rest.substr(0, 1), &parts);
    } else if (output.IsMark(control)) {
      parser->Push(tessera::server::ControlMarker(control), &parts);
    }
    rest.remove_prefix(control.empty() ? 1 : control.size());
  }
  parser->Finish(&parts);
  return parts;
}

Json TakenApart(const Json& request) {
  tessera::server::TokenBytes tokens;
  for (const std::string name : request["controls"]) {
    tokens.Add(name, tessera::server::TokenKind::kControl);
  }
  const auto output = ChatOutput::Choose("auto", request.value("template", std::string()), tokens);
  if (!output.ok()) return Failure(output.status());
  if (*output == nullptr) return {{"format", nullptr}, {"text", request["answer"]}};
  const ChatParts parts = PartsOf(**output, request);
  std::vector<std::pair<std::string, std::string>> calls;
  for (const auto& call : parts.calls) {
    if (!call.name.empty()) calls.emplace_back(call.name, "");
    calls.back().second += call.arguments;
  }
  return {{"format", (*output)->name()},
          {"text", parts.text},
          {"reasoning", parts.reasoning},
          {"calls", calls}};
}

Json Answer(const Json& request) {
  if (request.contains("answer")) return TakenApart(request);
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
