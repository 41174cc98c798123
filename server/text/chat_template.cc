#include "server/text/chat_template.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "config/foundation/text.h"
#include "server/text/jinja/interpreter.h"
#include "server/text/jinja/json.h"
#include "server/text/jinja/parser.h"
#include "server/text/jinja/variables.h"

namespace tessera::server {
namespace {

using jinja::Dict;
using jinja::Value;

constexpr size_t kMaxSourceBytes = size_t{256} << 10;

// Roles that templates build control tokens from. Any other role is data like the rest.
constexpr absl::string_view kTemplateRoles[] = {
    "system", "user", "assistant", "tool",          "developer", "function", "assistant_tool_call",
    "model",  "bot",  "context",   "tool_response", "ipython",
};

// Variables that have fields of their own in a ChatInput.
constexpr absl::string_view kOwnVariables[] = {"messages", "tools", "add_generation_prompt",
                                               "bos_token", "eos_token"};

Status Broken(absl::string_view field, absl::string_view why, absl::string_view fix) {
  return Error(absl::StatusCode::kInvalidArgument,
               {"unusable chat input", std::string(field), std::string(why), std::string(fix)});
}

Status CheckUtf8(absl::string_view text, absl::string_view field) {
  const std::optional<size_t> at = FindInvalidUtf8(text);
  if (!at) return absl::OkStatus();
  return Broken(field, absl::StrCat("byte ", *at, " is not UTF-8"), "send text as UTF-8");
}

size_t InputBytes(const ChatInput& input) {
  size_t bytes = input.tools_json.size() + input.documents_json.size() + input.args_json.size();
  for (const ChatMessage& message : input.messages) {
    bytes += message.role.size() + message.content.size() + message.name.size() +
             message.tool_call_id.size() + message.tool_calls_json.size() +
             message.fields_json.size();
  }
  for (const auto* token : {&input.bos_token, &input.eos_token}) {
    if (*token) bytes += (*token)->size();
  }
  return bytes;
}

Value RoleText(const std::string& role) {
  const bool known = std::find(std::begin(kTemplateRoles), std::end(kTemplateRoles), role) !=
                     std::end(kTemplateRoles);
  return Value::Text(role, known ? TextOrigin::kTemplate : TextOrigin::kData);
}

StatusOr<Value> ParseField(const std::string& json, const std::string& field) {
  return jinja::FromJson(json, TextOrigin::kData, field);
}

StatusOr<Value> MessageValue(const ChatMessage& message, const std::string& field) {
  Dict dict;
  const auto add = [&](absl::string_view name, Value value) {
    dict.Set(Value::Text(std::string(name)), std::move(value));
  };
  for (const auto& [name, text] :
       {std::pair<const char*, const std::string*>{"role", &message.role},
        {"content", &message.content},
        {"name", &message.name},
        {"tool_call_id", &message.tool_call_id}}) {
    TESSERA_RETURN_IF_ERROR(CheckUtf8(*text, absl::StrCat(field, ".", name)));
  }
  add("role", RoleText(message.role));
  add("content", Value::Text(message.content, TextOrigin::kData));
  if (!message.name.empty()) add("name", Value::Text(message.name, TextOrigin::kData));
  if (!message.tool_call_id.empty()) {
    add("tool_call_id", Value::Text(message.tool_call_id, TextOrigin::kData));
  }
  if (!message.tool_calls_json.empty()) {
    TESSERA_ASSIGN_OR_RETURN(Value calls,
                             ParseField(message.tool_calls_json, field + ".tool_calls"));
    add("tool_calls", std::move(calls));
  }
  if (!message.fields_json.empty()) {
    TESSERA_ASSIGN_OR_RETURN(const Value fields,
                             ParseField(message.fields_json, field + ".fields"));
    if (fields.dict() == nullptr) {
      return Broken(field + ".fields", "it is no JSON object", "send an object");
    }
    const size_t own_count = dict.items.size();
    for (const auto& item : fields.dict()->items) {
      const Value& key = item.first;
      const Value& value = item.second;
      // Keys of an object differ: only the message's own fields can be met again.
      const auto end = dict.items.begin() + static_cast<ptrdiff_t>(own_count);
      const auto same = std::find_if(dict.items.begin(), end,
                                     [&](const auto& own) { return own.first.Equals(key); });
      const bool role = key.text()->bytes() == "role" && value.text() != nullptr;
      Value field_value = role ? RoleText(value.text()->bytes()) : value;
      if (same != end) {
        same->second = std::move(field_value);
      } else {
        dict.items.emplace_back(key, std::move(field_value));
      }
    }
  }
  return Value::MakeDict(std::move(dict));
}

StatusOr<Value> MessagesValue(const std::vector<ChatMessage>& messages) {
  jinja::List list;
  list.reserve(messages.size());
  for (size_t i = 0; i < messages.size(); ++i) {
    TESSERA_ASSIGN_OR_RETURN(Value message,
                             MessageValue(messages[i], absl::StrCat("messages[", i, "]")));
    list.push_back(std::move(message));
  }
  return Value::MakeList(std::move(list));
}

// What a template reads where a request gives none: null, which templates test for.
StatusOr<Value> ListOrNone(const std::string& json, const std::string& field) {
  if (json.empty()) return Value::MakeNone();
  TESSERA_ASSIGN_OR_RETURN(Value value, ParseField(json, field));
  if (value.sequence() != nullptr) return value;
  return Broken(field, "it is no JSON array", "send an array");
}

}  // namespace

struct ChatTemplate::Impl {
  jinja::Body body;
  std::set<std::string> keys;
  size_t source_bytes = 0;

  // Defines the variables of `input`. `args` holds the names of further ones.
  Status Define(const ChatInput& input, const Value& args, jinja::Interpreter* interpreter) const;
};

Status ChatTemplate::Impl::Define(const ChatInput& input, const Value& args,
                                  jinja::Interpreter* interpreter) const {
  TESSERA_ASSIGN_OR_RETURN(Value documents, ListOrNone(input.documents_json, "documents"));
  interpreter->Define("documents", std::move(documents));
  if (args.dict() != nullptr) {
    for (const auto& [key, value] : args.dict()->items) {
      const std::string& name = key.text()->bytes();
      const bool own = std::find(std::begin(kOwnVariables), std::end(kOwnVariables), name) !=
                           std::end(kOwnVariables) ||
                       (name == "documents" && !input.documents_json.empty());
      if (own) {
        return Broken(absl::StrCat("template_args.", name),
                      "the request has a field of its own for it", "leave it out");
      }
      // The others cannot be seen.
      if (keys.count(name) > 0) interpreter->Define(name, value);
    }
  }
  TESSERA_ASSIGN_OR_RETURN(Value messages, MessagesValue(input.messages));
  interpreter->Define("messages", std::move(messages));
  TESSERA_ASSIGN_OR_RETURN(Value tools, ListOrNone(input.tools_json, "tools"));
  interpreter->Define("tools", std::move(tools));
  interpreter->Define("add_generation_prompt", Value::Bool(input.add_generation_prompt));
  for (const auto& [name, text] :
       {std::pair{"bos_token", &input.bos_token}, {"eos_token", &input.eos_token}}) {
    if (!*text) continue;
    TESSERA_RETURN_IF_ERROR(CheckUtf8(**text, name));
    interpreter->Define(name, Value::Text(**text, TextOrigin::kTemplate));
  }
  return absl::OkStatus();
}

ChatTemplate::ChatTemplate(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ChatTemplate::~ChatTemplate() = default;

StatusOr<std::shared_ptr<const ChatTemplate>> ChatTemplate::Parse(absl::string_view text) {
  if (text.size() > kMaxSourceBytes) {
    return Error(absl::StatusCode::kInvalidArgument,
                 {"chat template refused", "",
                  absl::StrCat("it has ", text.size(), " bytes, more than ", kMaxSourceBytes),
                  "use a shorter template"});
  }
  if (const std::optional<size_t> at = FindInvalidUtf8(text)) {
    return Error(absl::StatusCode::kInvalidArgument,
                 {"chat template refused", absl::StrCat("byte ", *at), "it is not UTF-8",
                  "save the template as UTF-8"});
  }
  auto impl = std::make_unique<Impl>();
  TESSERA_ASSIGN_OR_RETURN(impl->body, jinja::Parse(text));
  impl->keys = jinja::VariablesRead(impl->body);
  for (const absl::string_view name : kOwnVariables) impl->keys.erase(std::string(name));
  impl->source_bytes = text.size();
  return std::shared_ptr<const ChatTemplate>(new ChatTemplate(std::move(impl)));
}

StatusOr<std::vector<TextSegment>> ChatTemplate::Render(const ChatInput& input) const {
  const size_t bytes = InputBytes(input);
  Value args;
  if (!input.args_json.empty()) {
    TESSERA_ASSIGN_OR_RETURN(args, ParseField(input.args_json, "template_args"));
    if (args.dict() == nullptr) {
      return Broken("template_args", "it is no JSON object", "send an object");
    }
  }
  jinja::Limits limits;
  limits.text_bytes += 4 * bytes;
  limits.built_bytes += 16 * bytes;
  jinja::Interpreter interpreter(limits);
  TESSERA_RETURN_IF_ERROR(impl_->Define(input, args, &interpreter));
  TESSERA_ASSIGN_OR_RETURN(const jinja::MarkedText output, interpreter.Run(impl_->body));
  return output.Segments();
}

const std::set<std::string>& ChatTemplate::keys() const { return impl_->keys; }
size_t ChatTemplate::source_bytes() const { return impl_->source_bytes; }

}  // namespace tessera::server
