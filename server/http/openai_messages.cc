// The part of a request that makes a chat's prompt.
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/http/openai_request.h"

namespace tessera::server {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxTools = 256;
constexpr size_t kMaxMessages = 4096;
constexpr size_t kMaxCalls = 256;

// A string, or a list of text parts, which are joined line by line.
std::string ReadContent(const std::string& role, FieldReader* fields, FieldErrors* errors,
                        const std::string& path) {
  const Json* const value = fields->Find("content");
  if (value == nullptr) {
    // Only an assistant may say nothing, when it called tools.
    if (role != "assistant") fields->Invalid("content", "must be set");
    return "";
  }
  if (value->is_string()) return value->get<std::string>();
  if (!value->is_array()) {
    fields->Invalid("content", "must be a string or a list of text parts");
    return "";
  }
  std::string text;
  for (const Json& one : *value) {
    const std::string place = absl::StrCat("content[", &one - &value->front(), "]");
    if (!one.is_object()) {
      fields->Invalid(place, "must be an object with a type");
      continue;
    }
    FieldReader part(one, absl::StrCat(path, place, "."), errors);
    const std::string type = part.Text("type").value_or("");
    if (type != "text") {
      part.Unsupported("type", "only parts of type \"text\" are taken");
      continue;
    }
    const std::optional<std::string> piece = part.Text("text");
    if (!piece) part.Invalid("text", "must be set");
    absl::StrAppend(&text, &one == &value->front() ? "" : "\n", piece.value_or(""));
  }
  return text;
}

ToolCallSpec ReadToolCall(const Json& value, const std::string& path, FieldErrors* errors) {
  ToolCallSpec call;
  FieldReader fields(value, path + ".", errors);
  call.id = fields.Text("id").value_or("");
  const Json* const function = fields.Find("function");
  if (fields.Text("type").value_or("function") != "function" || function == nullptr ||
      !function->is_object()) {
    errors->Invalid(path, "must be of type \"function\" and have a function object");
    return call;
  }
  FieldReader inner(*function, path + ".function.", errors);
  call.name = inner.Text("name").value_or("");
  if (call.name.empty()) inner.Invalid("name", "must be set");
  const Json* const arguments = inner.Find("arguments");
  // The interface has JSON as text here; templates want the object, and some clients send it.
  if (arguments != nullptr && arguments->is_object()) {
    call.arguments_json = DumpJson(*arguments);
  } else {
    call.arguments_json = inner.Text("arguments").value_or("");
  }
  return call;
}

MessageSpec ReadMessage(const Json& value, const std::string& path, FieldErrors* errors) {
  MessageSpec message;
  if (!value.is_object()) {
    errors->Invalid(path, "must be an object");
    return message;
  }
  FieldReader fields(value, path + ".", errors);
  message.role = fields.Text("role").value_or("");
  if (message.role.empty()) fields.Invalid("role", "must be set");
  message.content = ReadContent(message.role, &fields, errors, path + ".");
  message.name = fields.Text("name").value_or("");
  message.tool_call_id = fields.Text("tool_call_id").value_or("");
  message.reasoning = fields.Text("reasoning_content").value_or("");
  fields.Refuse("function_call", "is replaced by tool_calls; send those");
  fields.Refuse("audio", "only text is taken; leave it out");
  const Json* const calls = fields.Find("tool_calls");
  if (calls == nullptr) return message;
  if (!calls->is_array() || calls->size() > kMaxCalls) {
    fields.Invalid("tool_calls", absl::StrCat("must be a list of at most ", kMaxCalls));
    return message;
  }
  for (size_t i = 0; i < calls->size(); ++i) {
    const std::string place = absl::StrCat(path, ".tool_calls[", i, "]");
    if ((*calls)[i].is_object()) {
      message.tool_calls.push_back(ReadToolCall((*calls)[i], place, errors));
    } else {
      errors->Invalid(place, "must be an object");
    }
  }
  return message;
}

void CheckTool(const Json& tool, const std::string& path, FieldErrors* errors) {
  const auto function = tool.is_object() ? tool.find("function") : tool.end();
  if (!tool.is_object() || tool.value("type", Json()) != "function" || function == tool.end() ||
      !function->is_object()) {
    errors->Invalid(path, "must be an object of type \"function\" with a function object");
    return;
  }
  const auto name = function->find("name");
  if (name == function->end() || !name->is_string()) {
    errors->Invalid(path + ".function.name", "must be a string");
  }
}

void ReadTools(FieldReader* fields, FieldErrors* errors, ChatSpec* chat) {
  const Json* const tools = fields->Find("tools");
  if (tools != nullptr && !(tools->is_array() && tools->size() <= kMaxTools)) {
    fields->Invalid("tools", absl::StrCat("must be a list of at most ", kMaxTools));
  } else if (tools != nullptr) {
    for (size_t i = 0; i < tools->size(); ++i) {
      CheckTool((*tools)[i], absl::StrCat("tools[", i, "]"), errors);
    }
    if (!tools->empty()) chat->tools_json = DumpJson(*tools);
  }
  chat->parallel_tool_calls = fields->Flag("parallel_tool_calls").value_or(true);
  const Json* const choice = fields->Find("tool_choice");
  if (choice == nullptr) return;
  if (choice->is_string()) {
    chat->tool_choice = choice->get<std::string>();  // judged by ValidateSpec
  } else {
    fields->Unsupported("tool_choice", "only \"auto\" and \"none\" are offered");
  }
}

}  // namespace

ChatSpec ReadChat(FieldReader* fields, FieldErrors* errors) {
  ChatSpec chat;
  const Json* const messages = fields->Find("messages");
  if (messages == nullptr) {
    fields->Invalid("messages", "must be set: a list of messages");
  } else if (!messages->is_array()) {
    fields->Invalid("messages", "must be a list of messages");
  } else if (messages->size() > kMaxMessages) {
    fields->Invalid("messages", absl::StrCat("must be at most ", kMaxMessages, " entries, is ",
                                             messages->size()));
  } else {
    for (size_t i = 0; i < messages->size(); ++i) {
      chat.messages.push_back(
          ReadMessage((*messages)[i], absl::StrCat("messages[", i, "]"), errors));
    }
  }
  ReadTools(fields, errors, &chat);
  const Json* const args = fields->Find("chat_template_kwargs");
  if (args != nullptr && !args->is_object()) {
    fields->Invalid("chat_template_kwargs", "must be an object");
  } else if (args != nullptr && !args->empty()) {
    chat.template_args_json = DumpJson(*args);
  }
  chat.add_generation_prompt = fields->Flag("add_generation_prompt").value_or(true);
  return chat;
}

}  // namespace tessera::server
