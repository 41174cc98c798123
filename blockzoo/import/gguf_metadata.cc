#include "blockzoo/import/gguf_metadata.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "blockzoo/import/turn_ends.h"
#include "config/foundation/text.h"

namespace tessera::blockzoo {
namespace {

using nlohmann::json;

constexpr absl::string_view kPrefix = "tokenizer.ggml.";
constexpr uint64_t kMaxSettingElements = 4096;
constexpr int64_t kNoId = 4294967295;
constexpr int64_t kControlToken = 3;

Status BadKey(absl::string_view key, absl::string_view why) {
  return Error(absl::StatusCode::kInvalidArgument,
               {.what = absl::StrCat("the key ", key, " is not valid"), .why = std::string(why)});
}

bool IsUtf8(absl::string_view text) { return !FindInvalidUtf8(text).has_value(); }

const GgufValue* Find(const GgufFile& file, absl::string_view name) {
  return file.Find(absl::StrCat(kPrefix, name));
}

StatusOr<std::vector<absl::string_view>> TextList(const GgufFile& file, absl::string_view name) {
  const GgufValue* value = Find(file, name);
  if (value == nullptr) return std::vector<absl::string_view>();
  auto texts = value->Texts();
  if (!texts.has_value())
    return BadKey(absl::StrCat(kPrefix, name), "it must be a list of strings");
  for (size_t i = 0; i < texts->size(); ++i) {
    if (!IsUtf8((*texts)[i])) {
      return BadKey(absl::StrCat(kPrefix, name), absl::StrCat("element ", i, " is not UTF-8"));
    }
  }
  return *std::move(texts);
}

// nullopt when absent or written as "none".
StatusOr<std::optional<int64_t>> TokenId(const GgufFile& file, absl::string_view name,
                                         size_t vocabulary) {
  const GgufValue* value = Find(file, name);
  if (value == nullptr) return std::optional<int64_t>();
  const std::optional<int64_t> id = value->Integer();
  if (!id.has_value()) return BadKey(absl::StrCat(kPrefix, name), "it must be an integer");
  if (*id == kNoId || *id == -1) return std::optional<int64_t>();
  if (*id < 0 || static_cast<uint64_t>(*id) >= vocabulary) {
    return BadKey(absl::StrCat(kPrefix, name),
                  absl::StrCat(*id, " is outside the vocabulary of ", vocabulary));
  }
  return id;
}

enum class NumberKind : uint8_t { kReal, kInteger };

Status AddNumbers(const GgufFile& file, absl::string_view key, const char* name, size_t tokens,
                  NumberKind kind, json& out) {
  const GgufValue* value = Find(file, key);
  if (value == nullptr) return absl::OkStatus();
  const auto numbers = value->Numbers();
  if (!numbers.has_value() || numbers->size() != tokens) {
    return BadKey(absl::StrCat(kPrefix, key),
                  absl::StrCat("it must be a list of ", tokens, " numbers, one a token"));
  }
  json list = json::array();
  for (const double number : *numbers) {
    if (kind == NumberKind::kInteger) {
      list.push_back(static_cast<int64_t>(std::clamp(number, -1e9, 1e9)));
    } else {
      list.push_back(number);
    }
  }
  out[name] = std::move(list);
  return absl::OkStatus();
}

Status AddScalars(const GgufFile& file, size_t tokens, json& out) {
  for (const char* name : {"model", "pre"}) {
    const GgufValue* value = Find(file, name);
    if (value == nullptr) continue;
    const auto text = value->Text();
    if (!text.has_value() || !IsUtf8(*text)) {
      return BadKey(absl::StrCat(kPrefix, name), "it must be text");
    }
    out[name] = std::string(*text);
  }
  for (const char* name :
       {"bos_token_id", "eos_token_id", "unknown_token_id", "padding_token_id"}) {
    TESSERA_ASSIGN_OR_RETURN(const std::optional<int64_t> id, TokenId(file, name, tokens));
    if (id.has_value()) out[name] = *id;
  }
  for (const char* name : {"add_bos_token", "add_eos_token", "add_space_prefix"}) {
    const GgufValue* value = Find(file, name);
    if (value == nullptr) continue;
    const std::optional<int64_t> flag = value->Integer();
    if (!flag.has_value()) return BadKey(absl::StrCat(kPrefix, name), "it must be a bool");
    out[name] = *flag != 0;
  }
  return absl::OkStatus();
}

}  // namespace

Attributes GgufSettings(const GgufFile& file) {
  Attributes settings;
  for (const auto& [key, value] : file.values) {
    if (const auto integer = value.Integer()) {
      settings.Set(key, *integer);
    } else if (const auto number = value.Number()) {
      settings.Set(key, *number);
    } else if (const auto text = value.Text()) {
      settings.Set(key, std::string(*text));
    } else if (value.count() <= kMaxSettingElements && !absl::StartsWith(key, kPrefix)) {
      if (auto numbers = value.Numbers()) settings.Set(key, *std::move(numbers));
    }
  }
  return settings;
}

StatusOr<std::string> GgufVocabularyJson(const GgufFile& file) {
  if (Find(file, "tokens") == nullptr) return std::string();
  TESSERA_ASSIGN_OR_RETURN(const auto tokens, TextList(file, "tokens"));
  TESSERA_ASSIGN_OR_RETURN(const auto merges, TextList(file, "merges"));
  json out = json::object();
  TESSERA_RETURN_IF_ERROR(AddScalars(file, tokens.size(), out));
  json token_list = json::array();
  for (const absl::string_view token : tokens) token_list.push_back(std::string(token));
  out["tokens"] = std::move(token_list);
  if (Find(file, "merges") != nullptr) {
    json merge_list = json::array();
    for (const absl::string_view merge : merges) {
      // Two tokens with a space between; the first may begin with one.
      const size_t space = merge.find(' ', 1);
      if (space == absl::string_view::npos || space + 1 == merge.size()) {
        return BadKey(absl::StrCat(kPrefix, "merges"),
                      absl::StrCat("element ", merge_list.size(), " is not two tokens"));
      }
      merge_list.push_back(std::string(merge));
    }
    out["merges"] = std::move(merge_list);
  }
  TESSERA_RETURN_IF_ERROR(
      AddNumbers(file, "scores", "scores", tokens.size(), NumberKind::kReal, out));
  TESSERA_RETURN_IF_ERROR(
      AddNumbers(file, "token_type", "token_types", tokens.size(), NumberKind::kInteger, out));
  return out.dump(-1, ' ', false, json::error_handler_t::replace);
}

StatusOr<std::string> GgufChatTemplate(const GgufFile& file) {
  const GgufValue* value = file.Find("tokenizer.chat_template");
  if (value == nullptr) return std::string();
  const auto text = value->Text();
  if (!text.has_value() || !IsUtf8(*text)) {
    return BadKey("tokenizer.chat_template", "it must be UTF-8 text");
  }
  return std::string(*text);
}

StatusOr<std::vector<uint32_t>> GgufEndTokenIds(const GgufFile& file) {
  std::set<uint32_t> ids;
  TESSERA_ASSIGN_OR_RETURN(const auto tokens, TextList(file, "tokens"));
  for (const char* name : {"eos_token_id", "eot_token_id", "eom_token_id"}) {
    TESSERA_ASSIGN_OR_RETURN(const std::optional<int64_t> id, TokenId(file, name, tokens.size()));
    if (id.has_value()) ids.insert(static_cast<uint32_t>(*id));
  }
  TESSERA_ASSIGN_OR_RETURN(const std::string chat_template, GgufChatTemplate(file));
  std::vector<double> types;
  if (const GgufValue* value = Find(file, "token_type")) {
    types = value->Numbers().value_or(std::vector<double>());
  }
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (!IsTurnEnd(tokens[i])) continue;
    const bool control = i < types.size() && types[i] == kControlToken;
    if (control || absl::StrContains(chat_template, tokens[i])) {
      ids.insert(static_cast<uint32_t>(i));
    }
  }
  return std::vector<uint32_t>(ids.begin(), ids.end());
}

}  // namespace tessera::blockzoo
