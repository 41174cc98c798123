#include "blockzoo/import/huggingface_metadata.h"

#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "blockzoo/import/turn_ends.h"
#include "blockzoo/zoo_io.h"
#include "config/foundation/text.h"

namespace tessera::blockzoo {
namespace {

using nlohmann::json;

constexpr int kMaxDepth = 16;
constexpr uint64_t kMaxAssetBytes = uint64_t{256} << 20;

Status BadConfig(absl::string_view where, absl::string_view why) {
  return Error(absl::StatusCode::kInvalidArgument, {.what = "the model's settings are not valid",
                                                    .where = std::string(where),
                                                    .why = std::string(why)});
}

StatusOr<json> ParseObject(absl::string_view text, absl::string_view file) {
  json object = json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return BadConfig(file, "it is not a JSON object");
  return object;
}

Status Flatten(const json& value, const std::string& name, int depth, Attributes& settings) {
  if (depth > kMaxDepth)
    return BadConfig("config.json", absl::StrCat(name, " is nested too deeply"));
  if (value.is_object()) {
    for (const auto& [key, member] : value.items()) {
      TESSERA_RETURN_IF_ERROR(
          Flatten(member, name.empty() ? key : absl::StrCat(name, ".", key), depth + 1, settings));
    }
  } else if (value.is_array()) {
    std::vector<double> numbers;
    for (const json& element : value) {
      if (element.is_number()) numbers.push_back(element.get<double>());
    }
    if (numbers.size() == value.size()) {
      settings.Set(name, std::move(numbers));
      return absl::OkStatus();
    }
    for (size_t i = 0; i < value.size(); ++i) {
      TESSERA_RETURN_IF_ERROR(Flatten(value[i], absl::StrCat(name, ".", i), depth + 1, settings));
    }
  } else if (value.is_boolean()) {
    settings.Set(name, int64_t{value.get<bool>() ? 1 : 0});
  } else if (value.is_string()) {
    settings.Set(name, value.get<std::string>());
  } else if (value.is_number_float() ||
             (value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX)) {
    settings.Set(name, value.get<double>());
  } else if (value.is_number_integer()) {
    settings.Set(name, value.get<int64_t>());
  }
  return absl::OkStatus();
}

// "" when the tokenizer's settings hold no template.
StatusOr<std::string> TemplateOf(const json& tokenizer_config) {
  const auto found = tokenizer_config.find("chat_template");
  if (found == tokenizer_config.end() || found->is_null()) return std::string();
  if (found->is_string()) return found->get<std::string>();
  const absl::string_view where = "tokenizer_config.json: chat_template";
  if (!found->is_array()) return BadConfig(where, "it must be text or a list of named templates");
  for (const json& entry : *found) {
    if (!entry.is_object() || !entry.contains("name") || !entry.contains("template") ||
        !entry["name"].is_string() || !entry["template"].is_string()) {
      return BadConfig(where, "each entry must have a name and a template");
    }
    if (entry["name"].get_ref<const std::string&>() == "default") {
      return entry["template"].get<std::string>();
    }
  }
  return BadConfig(where, "no entry is named default");
}

// Ids of a field that is an id or a list of ids.
void AddIds(const json& object, const char* field, std::set<uint32_t>& ids) {
  const auto found = object.find(field);
  if (found == object.end()) return;
  const auto add = [&ids](const json& value) {
    if (value.is_number_unsigned() && value.get<uint64_t>() < UINT32_MAX) {
      ids.insert(value.get<uint32_t>());
    }
  };
  if (found->is_array()) {
    for (const json& value : *found) add(value);
  } else {
    add(*found);
  }
}

// Added tokens by text, from tokenizer.json or tokenizer_config.json's added_tokens_decoder.
std::map<std::string, uint32_t> AddedTokens(const json& tokenizer, const json& tokenizer_config) {
  std::map<std::string, uint32_t> tokens;
  const auto decoder = tokenizer_config.find("added_tokens_decoder");
  if (decoder != tokenizer_config.end() && decoder->is_object()) {
    for (const auto& [id, entry] : decoder->items()) {
      const bool digits =
          !id.empty() && id.size() <= 9 && id.find_first_not_of("0123456789") == std::string::npos;
      if (digits && entry.is_object() && entry.contains("content") &&
          entry["content"].is_string()) {
        tokens[entry["content"].get<std::string>()] = static_cast<uint32_t>(std::stoul(id));
      }
    }
  }
  const auto added = tokenizer.find("added_tokens");
  if (added != tokenizer.end() && added->is_array()) {
    for (const json& entry : *added) {
      if (entry.is_object() && entry.contains("content") && entry["content"].is_string() &&
          entry.contains("id") && entry["id"].is_number_unsigned() &&
          entry["id"].get<uint64_t>() < UINT32_MAX) {
        tokens[entry["content"].get<std::string>()] = entry["id"].get<uint32_t>();
      }
    }
  }
  return tokens;
}

StatusOr<json> AssetObject(const std::map<std::string, std::string>& assets, const char* name) {
  const auto found = assets.find(name);
  if (found == assets.end()) return json::object();
  return ParseObject(found->second, name);
}

}  // namespace

StatusOr<Attributes> HuggingFaceSettings(absl::string_view config_text) {
  TESSERA_ASSIGN_OR_RETURN(const json config, ParseObject(config_text, "config.json"));
  Attributes settings;
  TESSERA_RETURN_IF_ERROR(Flatten(config, "", 0, settings));
  return settings;
}

StatusOr<std::map<std::string, std::string>> HuggingFaceAssets(const std::string& directory) {
  std::map<std::string, std::string> assets;
  for (const char* name : {"tokenizer.json", "tokenizer.model", "tokenizer_config.json",
                           "generation_config.json", "chat_template.jinja"}) {
    const std::string path = absl::StrCat(directory, "/", name);
    if (KindOfPath(path) == PathKind::kMissing) continue;
    TESSERA_ASSIGN_OR_RETURN(assets[name], ReadWholeFile(path, kMaxAssetBytes));
  }
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "generation_config.json"}) {
    if (assets.contains(name)) TESSERA_RETURN_IF_ERROR(ParseObject(assets[name], name).status());
  }
  std::string chat_template;
  if (const auto file = assets.find("chat_template.jinja"); file != assets.end()) {
    chat_template = std::move(file->second);
    assets.erase(file);
  } else {
    TESSERA_ASSIGN_OR_RETURN(const json config, AssetObject(assets, "tokenizer_config.json"));
    TESSERA_ASSIGN_OR_RETURN(chat_template, TemplateOf(config));
  }
  if (FindInvalidUtf8(chat_template).has_value())
    return BadConfig("chat template", "it is not UTF-8");
  if (!chat_template.empty()) assets["chat_template"] = std::move(chat_template);
  return assets;
}

StatusOr<std::vector<uint32_t>> HuggingFaceEndTokenIds(
    const Attributes& settings, const std::map<std::string, std::string>& assets) {
  std::set<uint32_t> ids;
  TESSERA_ASSIGN_OR_RETURN(const json generation, AssetObject(assets, "generation_config.json"));
  AddIds(generation, "eos_token_id", ids);
  if (const auto id = settings.Integer("eos_token_id", 0, UINT32_MAX - 1); id.ok()) {
    ids.insert(static_cast<uint32_t>(*id));
  } else if (const auto list = settings.Numbers("eos_token_id"); list.ok()) {
    for (const double id : *list) {
      if (id >= 0 && id < UINT32_MAX) ids.insert(static_cast<uint32_t>(id));
    }
  }
  TESSERA_ASSIGN_OR_RETURN(const json tokenizer, AssetObject(assets, "tokenizer.json"));
  TESSERA_ASSIGN_OR_RETURN(const json config, AssetObject(assets, "tokenizer_config.json"));
  const std::map<std::string, uint32_t> added = AddedTokens(tokenizer, config);
  std::string eos;
  if (const auto found = config.find("eos_token"); found != config.end()) {
    if (found->is_string()) eos = found->get<std::string>();
    if (found->is_object() && found->contains("content") && (*found)["content"].is_string()) {
      eos = (*found)["content"].get<std::string>();
    }
  }
  const auto chat_template = assets.find("chat_template");
  for (const auto& [text, id] : added) {
    const bool written = chat_template != assets.end() && IsTurnEnd(text) &&
                         absl::StrContains(chat_template->second, text);
    if (text == eos || written) ids.insert(id);
  }
  return std::vector<uint32_t>(ids.begin(), ids.end());
}

bool IsCompanionName(absl::string_view file) {
  if (absl::StartsWith(file, ".")) return false;
  for (const absl::string_view prefix : {"LICENSE", "NOTICE", "README"}) {
    if (absl::StartsWith(file, prefix)) return true;
  }
  for (const absl::string_view suffix : {".json", ".jinja", ".model", ".txt", ".tiktoken"}) {
    if (absl::EndsWith(file, suffix)) return true;
  }
  return false;
}

bool IsPickleName(absl::string_view file) {
  for (const absl::string_view suffix : {".bin", ".pt", ".pth", ".ckpt", ".pkl"}) {
    if (absl::EndsWith(file, suffix)) return true;
  }
  return false;
}

bool HasOnlyPickledWeights(const std::string& directory) {
  const StatusOr<std::vector<std::string>> names = ListDirectory(directory);
  bool pickles = false;
  for (const std::string& name : names.ok() ? *names : std::vector<std::string>()) {
    if (absl::StrContains(name, ".safetensors")) return false;
    // training_args.bin and the like are no weights.
    pickles = pickles || (IsPickleName(name) && !absl::StartsWith(name, "training_args"));
  }
  return pickles;
}

StatusOr<std::map<std::string, std::string>> ParseShardIndex(absl::string_view text) {
  constexpr absl::string_view kFile = "model.safetensors.index.json";
  TESSERA_ASSIGN_OR_RETURN(const json index, ParseObject(text, kFile));
  const auto map = index.find("weight_map");
  if (map == index.end() || !map->is_object())
    return BadConfig(kFile, "weight_map must be an object");
  std::map<std::string, std::string> shards;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string()) return BadConfig(kFile, absl::StrCat(tensor, " must name a file"));
    const std::string& name = file.get_ref<const std::string&>();
    if (name.empty() || name[0] == '.' || name.find('/') != std::string::npos ||
        name.find('\0') != std::string::npos) {
      return BadConfig(kFile, absl::StrCat(tensor, " names the file ", Quoted(name),
                                           ", which is not a plain name in the same directory"));
    }
    shards[tensor] = name;
  }
  return shards;
}

}  // namespace tessera::blockzoo
