#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/core/text_ops.h"
#include "server/text/chat_template.h"
#include "server/text/tokenizer.h"

namespace tessera::server {
namespace {

using Json = nlohmann::json;

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// Calls as templates know them; arguments that are no JSON object stay text.
std::string CallsJson(const std::vector<ToolCallSpec>& calls) {
  if (calls.empty()) return "";
  Json list = Json::array();
  for (const ToolCallSpec& call : calls) {
    Json arguments = Json::parse(call.arguments_json, nullptr, false);
    if (!arguments.is_object()) arguments = call.arguments_json;
    list.push_back({{"id", call.id},
                    {"type", "function"},
                    {"function", {{"name", call.name}, {"arguments", std::move(arguments)}}}});
  }
  return Dump(list);
}

std::optional<std::string> TextOf(const LoadedModel& model, std::optional<TokenId> id) {
  if (!id) return std::nullopt;
  return std::string(model.tokens->Of(*id));
}

// A template's variables are its interface; anything else in the arguments is a mistake.
Status CheckArguments(const std::string& json, const ChatTemplate& chat_template) {
  if (json.empty()) return absl::OkStatus();
  const Json arguments = Json::parse(json, nullptr, false);
  if (!arguments.is_object()) {
    return InvalidFields({{"template_args", "must be a JSON object"}});
  }
  const std::string reads =
      chat_template.keys().empty()
          ? "leave it out: it reads no arguments"
          : absl::StrCat("it reads ", absl::StrJoin(chat_template.keys(), ", "));
  std::vector<FieldViolation> violations;
  for (const auto& [key, value] : arguments.items()) {
    if (chat_template.keys().count(key) > 0) continue;
    violations.push_back({absl::StrCat("template_args.", key.substr(0, 64)),
                          absl::StrCat("the model's template does not read it; ", reads)});
    if (violations.size() == 16) break;
  }
  return violations.empty() ? absl::OkStatus() : InvalidFields(std::move(violations));
}

ChatInput InputOf(const LoadedModel& model, const ChatSpec& chat) {
  ChatInput input;
  for (const MessageSpec& message : chat.messages) {
    ChatMessage& one = input.messages.emplace_back();
    one.role = message.role;
    one.content = message.content;
    one.name = message.name;
    one.tool_call_id = message.tool_call_id;
    one.tool_calls_json = CallsJson(message.tool_calls);
    if (!message.reasoning.empty()) {
      one.fields_json = Dump({{"reasoning_content", message.reasoning}});
    }
  }
  if (chat.tool_choice != "none") input.tools_json = chat.tools_json;
  input.args_json = chat.template_args_json;
  input.add_generation_prompt = chat.add_generation_prompt;
  input.bos_token = TextOf(model, model.tokenizer->bos());
  input.eos_token = TextOf(model, model.tokenizer->eos());
  return input;
}

}  // namespace

StatusOr<RenderedChat> RenderChat(const LoadedModel& model, const ChatSpec& chat) {
  if (!model.chat_template) {
    return MakeError(Condition::kTemplateFailed,
                     absl::StrCat("model \"", model.name,
                                  model.chat_template_error.empty()
                                      ? "\" has no chat template"
                                      : "\" has a chat template that cannot be used: ",
                                  absl::string_view(model.chat_template_error).substr(0, 512),
                                  "; send a prompt instead of messages"));
  }
  TESSERA_RETURN_IF_ERROR(CheckArguments(chat.template_args_json, *model.chat_template));
  const StatusOr<std::vector<TextSegment>> segments =
      model.chat_template->Render(InputOf(model, chat));
  if (!segments.ok()) {
    return MakeError(Condition::kTemplateFailed,
                     absl::StrCat("the chat template refuses these messages: ",
                                  absl::string_view(segments.status().message()).substr(0, 512)));
  }
  RenderedChat rendered;
  for (const TextSegment& segment : *segments) rendered.text += segment.text;
  TESSERA_ASSIGN_OR_RETURN(rendered.token_ids, model.tokenizer->EncodeSegments(*segments));
  for (const TokenId id : rendered.token_ids) {
    if (id < model.vocab) continue;
    return MakeError(
        Condition::kTemplateFailed,
        absl::StrCat("the template writes token ", id,
                     ", which the model does not have; its tokenizer is of another model"));
  }
  return rendered;
}

}  // namespace tessera::server
