#include "server/text/gguf_vocabulary.h"

#include <limits>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "server/text/model.h"

namespace tessera::server {
namespace {

using Json = nlohmann::json;

Status AssetError(absl::string_view field, absl::string_view why) {
  return Error(absl::StatusCode::kInvalidArgument,
               {"gguf_vocabulary.json is not usable", std::string(field), std::string(why),
                "import the model again"});
}

// The array `name` of `object`; nullptr when the key is absent.
StatusOr<const Json*> FindArray(const Json& object, const char* name) {
  const auto it = object.find(name);
  if (it == object.end()) return static_cast<const Json*>(nullptr);
  if (!it->is_array()) return AssetError(name, "must be an array");
  if (it->size() > kMaxVocabularyTokens) return AssetError(name, "has too many entries");
  return &*it;
}

Status ReadStrings(const Json& object, const char* name, std::vector<std::string>* out) {
  TESSERA_ASSIGN_OR_RETURN(const Json* array, FindArray(object, name));
  if (array == nullptr) return absl::OkStatus();
  out->reserve(array->size());
  for (const Json& value : *array) {
    const auto* text = value.get_ptr<const std::string*>();
    if (text == nullptr) {
      return AssetError(absl::StrCat(name, "[", out->size(), "]"), "must be a string");
    }
    if (text->size() > kMaxTokenTextBytes) {
      return AssetError(absl::StrCat(name, "[", out->size(), "]"), "is too long");
    }
    out->push_back(*text);
  }
  return absl::OkStatus();
}

template <typename Number>
Status ReadNumbers(const Json& object, const char* name, std::vector<Number>* out) {
  TESSERA_ASSIGN_OR_RETURN(const Json* array, FindArray(object, name));
  if (array == nullptr) return absl::OkStatus();
  out->reserve(array->size());
  for (const Json& value : *array) {
    if (!value.is_number()) {
      return AssetError(absl::StrCat(name, "[", out->size(), "]"), "must be a number");
    }
    const double number = value.get<double>();
    if (number < double{std::numeric_limits<Number>::lowest()} ||
        number > double{std::numeric_limits<Number>::max()}) {
      return AssetError(absl::StrCat(name, "[", out->size(), "]"), "is out of range");
    }
    out->push_back(static_cast<Number>(number));
  }
  return absl::OkStatus();
}

Status ReadId(const Json& object, const char* name, std::optional<int64_t>* out) {
  const auto it = object.find(name);
  if (it == object.end()) return absl::OkStatus();
  if (!it->is_number_integer()) return AssetError(name, "must be an integer");
  *out = it->get<int64_t>();
  return absl::OkStatus();
}

Status ReadFlag(const Json& object, const char* name, std::optional<bool>* out) {
  const auto it = object.find(name);
  if (it == object.end()) return absl::OkStatus();
  if (!it->is_boolean()) return AssetError(name, "must be true or false");
  *out = it->get<bool>();
  return absl::OkStatus();
}

Status ReadText(const Json& object, const char* name, std::string* out) {
  const auto it = object.find(name);
  if (it == object.end()) return absl::OkStatus();
  if (!it->is_string()) return AssetError(name, "must be a string");
  *out = it->get<std::string>();
  return absl::OkStatus();
}

}  // namespace

StatusOr<GgufVocabulary> ParseGgufVocabulary(absl::string_view json_text) {
  const Json object = Json::parse(json_text.begin(), json_text.end(), nullptr, false);
  if (!object.is_object()) return AssetError("", "it is not a JSON object");
  GgufVocabulary v;
  TESSERA_RETURN_IF_ERROR(ReadText(object, "model", &v.model));
  TESSERA_RETURN_IF_ERROR(ReadText(object, "pre", &v.pre));
  TESSERA_RETURN_IF_ERROR(ReadStrings(object, "tokens", &v.tokens));
  TESSERA_RETURN_IF_ERROR(ReadNumbers(object, "scores", &v.scores));
  TESSERA_RETURN_IF_ERROR(ReadNumbers(object, "token_types", &v.token_types));
  TESSERA_RETURN_IF_ERROR(ReadStrings(object, "merges", &v.merges));
  TESSERA_RETURN_IF_ERROR(ReadId(object, "bos_token_id", &v.bos_token_id));
  TESSERA_RETURN_IF_ERROR(ReadId(object, "eos_token_id", &v.eos_token_id));
  TESSERA_RETURN_IF_ERROR(ReadId(object, "unknown_token_id", &v.unknown_token_id));
  TESSERA_RETURN_IF_ERROR(ReadId(object, "cls_token_id", &v.cls_token_id));
  TESSERA_RETURN_IF_ERROR(ReadId(object, "separator_token_id", &v.separator_token_id));
  TESSERA_RETURN_IF_ERROR(ReadFlag(object, "add_bos_token", &v.add_bos_token));
  TESSERA_RETURN_IF_ERROR(ReadFlag(object, "add_eos_token", &v.add_eos_token));
  TESSERA_RETURN_IF_ERROR(ReadFlag(object, "add_space_prefix", &v.add_space_prefix));
  return v;
}

}  // namespace tessera::server
