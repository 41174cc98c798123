#include "server/text/chat_output/offered_tools.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace tessera::server {
namespace {

using Json = nlohmann::json;

const Json& MemberOf(const Json& object, const char* name) {
  static const Json& none = *new Json();
  if (!object.is_object()) return none;
  const auto found = object.find(name);
  return found == object.end() ? none : *found;
}

OfferedTools::Value KindBySchema(const Json& schema) {
  const Json& type = MemberOf(schema, "type");
  const bool text = type == "string" || (type.is_array() && std::find(type.begin(), type.end(),
                                                                      "string") != type.end());
  return text ? OfferedTools::Value::kText : OfferedTools::Value::kJson;
}

}  // namespace

OfferedTools::OfferedTools(const std::string& json) {
  const Json tools = Json::parse(json, nullptr, false);
  if (!tools.is_array()) return;
  for (const Json& tool : tools) {
    const Json& wrapped = MemberOf(tool, "function");
    const Json& function = wrapped.is_object() ? wrapped : tool;
    const Json& name = MemberOf(function, "name");
    if (!name.is_string()) continue;
    Parameters& parameters = functions_[name.get<std::string>()];
    const Json& properties = MemberOf(MemberOf(function, "parameters"), "properties");
    if (!properties.is_object()) continue;
    for (const auto& [key, schema] : properties.items()) parameters[key] = KindBySchema(schema);
  }
}

bool OfferedTools::Has(absl::string_view name) const {
  return functions_.find(std::string_view(name.data(), name.size())) != functions_.end();
}

OfferedTools::Value OfferedTools::KindOf(absl::string_view name,
                                         absl::string_view parameter) const {
  const auto function = functions_.find(std::string_view(name.data(), name.size()));
  if (function == functions_.end()) return Value::kText;
  const auto found = function->second.find(std::string_view(parameter.data(), parameter.size()));
  return found == function->second.end() ? Value::kText : found->second;
}

}  // namespace tessera::server
