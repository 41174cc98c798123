#include "server/text/tokenizer_config.h"

#include <nlohmann/json.hpp>

namespace tessera::server {
namespace {

using Json = nlohmann::json;

// A token is written as its text, or as an object with the text under "content".
std::optional<std::string> TokenText(const Json& object, const char* name) {
  auto it = object.find(name);
  if (it == object.end()) return std::nullopt;
  const Json* value = &*it;
  if (value->is_object() && value->contains("content")) value = &(*value)["content"];
  if (!value->is_string()) return std::nullopt;
  return value->get<std::string>();
}

std::optional<bool> Flag(const Json& object, const char* name) {
  const auto it = object.find(name);
  if (it == object.end() || !it->is_boolean()) return std::nullopt;
  return it->get<bool>();
}

}  // namespace

StatusOr<TokenizerConfig> ParseTokenizerConfig(absl::string_view json_text) {
  TokenizerConfig config;
  if (json_text.empty()) return config;
  const Json object = Json::parse(json_text.begin(), json_text.end(), nullptr, false);
  if (!object.is_object()) {
    return Error(absl::StatusCode::kInvalidArgument,
                 {"tokenizer_config.json is not a JSON object", "", "", "fetch the file again"});
  }
  config.tokenizer_class = TokenText(object, "tokenizer_class").value_or("");
  config.bos_token = TokenText(object, "bos_token");
  config.eos_token = TokenText(object, "eos_token");
  config.add_bos = Flag(object, "add_bos_token");
  config.add_eos = Flag(object, "add_eos_token");
  return config;
}

}  // namespace tessera::server
