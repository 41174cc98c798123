#include "server/http/openai_json.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "config/foundation/text.h"

namespace tessera::server {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxDepth = 64;
constexpr size_t kMaxValues = 1 << 20;
constexpr size_t kMaxFaults = 64;
// The last whole number up to which every one has a double.
constexpr double kMaxExact = 9007199254740992.0;

Status BadBody(absl::string_view why) {
  return MakeError(Condition::kInvalidParameter, absl::StrCat("the body ", why));
}

// Bounds what parsing takes, before it takes it; `text` need not be JSON.
Status CheckShape(absl::string_view text) {
  size_t depth = 0;
  size_t values = 1;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
      continue;
    }
    if (c == '"') in_string = true;
    if (c == '[' || c == '{') ++depth;
    if ((c == ']' || c == '}') && depth > 0) --depth;
    if (c == '[' || c == '{' || c == ',') ++values;
    if (depth > kMaxDepth) {
      return BadBody(absl::StrCat("is nested deeper than ", kMaxDepth, " at byte ", i));
    }
    if (values > kMaxValues) {
      return BadBody(absl::StrCat("has more than ", kMaxValues, " values; send less at once"));
    }
  }
  return absl::OkStatus();
}

// Only says where a text stops being JSON.
struct FaultFinder : nlohmann::json_sax<Json> {
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(size_t) override { return true; }
  bool key(string_t&) override { return true; }
  bool end_object() override { return true; }
  bool start_array(size_t) override { return true; }
  bool end_array() override { return true; }
  bool parse_error(size_t position, const std::string&, const Json::exception&) override {
    where = position;
    return false;
  }
  size_t where = 0;
};

std::optional<int64_t> WholeNumber(const Json& value) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<uint64_t>();
    if (number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
    return static_cast<int64_t>(number);
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (!value.is_number_float()) return std::nullopt;
  const auto number = value.get<double>();
  if (std::trunc(number) != number || std::abs(number) > kMaxExact) return std::nullopt;
  return static_cast<int64_t>(number);
}

// How a value is shown in a message: briefly, and never with its text.
std::string KindOf(const Json& value) {
  if (value.is_number() || value.is_boolean()) return value.dump();
  if (value.is_object()) return "an object";
  if (value.is_array()) return "a list";
  return "a string";
}

}  // namespace

StatusOr<nlohmann::json> ParseJsonBody(absl::string_view text) {
  TESSERA_RETURN_IF_ERROR(CheckShape(text));
  Json body = Json::parse(text.begin(), text.end(), nullptr, false);
  if (body.is_discarded()) {
    FaultFinder finder;
    (void)Json::sax_parse(text.begin(), text.end(), &finder);
    return BadBody(text.empty() ? "is empty; send a JSON object"
                                : absl::StrCat("is not JSON at byte ", finder.where));
  }
  if (!body.is_object()) return BadBody("must be a JSON object");
  return body;
}

std::string DumpJson(const nlohmann::json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

void FieldErrors::Invalid(std::string field, std::string description) {
  if (invalid_.size() < kMaxFaults && !Has(field)) {
    invalid_.push_back({std::move(field), std::move(description)});
  }
}

void FieldErrors::Unsupported(std::string field, std::string description) {
  if (unsupported_.size() < kMaxFaults && !Has(field)) {
    unsupported_.push_back({std::move(field), std::move(description)});
  }
}

bool FieldErrors::Has(absl::string_view field) const {
  const auto is_part = [](absl::string_view part, absl::string_view whole) {
    if (!absl::StartsWith(part, whole)) return false;
    return part.size() == whole.size() || part[whole.size()] == '[' || part[whole.size()] == '.';
  };
  const auto concerns = [&](const FieldViolation& one) {
    return is_part(one.field, field) || is_part(field, one.field);
  };
  for (const FieldViolation& one : invalid_) {
    if (concerns(one)) return true;
  }
  for (const FieldViolation& one : unsupported_) {
    if (concerns(one)) return true;
  }
  return false;
}

Status FieldErrors::Finish() && {
  if (invalid_.empty() && unsupported_.empty()) return absl::OkStatus();
  ErrorDetails details;
  details.condition = invalid_.empty() ? Condition::kUnsupported : Condition::kInvalidParameter;
  details.violations = std::move(invalid_);
  details.violations.insert(details.violations.end(), unsupported_.begin(), unsupported_.end());
  std::string message;
  for (const FieldViolation& one : details.violations) {
    absl::StrAppend(&message, message.empty() ? "" : "; ", one.field, ": ", one.description);
  }
  return MakeError(details, message);
}

FieldReader::FieldReader(const nlohmann::json& object, std::string path, FieldErrors* errors)
    : object_(object), path_(std::move(path)), errors_(errors) {}

const nlohmann::json* FieldReader::Find(const char* field) {
  known_.insert(field);
  const auto found = object_.find(field);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

std::optional<bool> FieldReader::Flag(const char* field) {
  const Json* const value = Find(field);
  if (value == nullptr) return std::nullopt;
  if (value->is_boolean()) return value->get<bool>();
  Invalid(field, absl::StrCat("must be true or false, is ", KindOf(*value)));
  return std::nullopt;
}

std::optional<double> FieldReader::Number(const char* field) {
  const Json* const value = Find(field);
  if (value == nullptr) return std::nullopt;
  if (value->is_number()) return value->get<double>();
  Invalid(field, absl::StrCat("must be a number, is ", KindOf(*value)));
  return std::nullopt;
}

std::optional<int64_t> FieldReader::Integer(const char* field) {
  const Json* const value = Find(field);
  if (value == nullptr) return std::nullopt;
  const std::optional<int64_t> number = WholeNumber(*value);
  if (!number) Invalid(field, absl::StrCat("must be a whole number, is ", KindOf(*value)));
  return number;
}

std::optional<uint32_t> FieldReader::Count(const char* field) {
  const std::optional<int64_t> number = Integer(field);
  if (!number) return std::nullopt;
  if (*number >= 0 && *number <= std::numeric_limits<uint32_t>::max()) {
    return static_cast<uint32_t>(*number);
  }
  Invalid(field,
          absl::StrCat("must be in [0, ", std::numeric_limits<uint32_t>::max(), "], is ", *number));
  return std::nullopt;
}

std::optional<std::string> FieldReader::Text(const char* field) {
  const Json* const value = Find(field);
  if (value == nullptr) return std::nullopt;
  if (value->is_string()) return value->get<std::string>();
  Invalid(field, absl::StrCat("must be a string, is ", KindOf(*value)));
  return std::nullopt;
}

std::vector<uint32_t> FieldReader::Ids(const char* field) {
  std::vector<uint32_t> ids;
  const Json* const value = Find(field);
  if (value == nullptr) return ids;
  if (!value->is_array()) {
    Invalid(field, absl::StrCat("must be a list of token ids, is ", KindOf(*value)));
    return ids;
  }
  ids.reserve(value->size());
  for (const Json& one : *value) {
    const std::optional<uint32_t> id = IdOf(one);
    if (!id) {
      Invalid(absl::StrCat(field, "[", ids.size(), "]"),
              absl::StrCat("must be a token id, is ", KindOf(one)));
      return {};
    }
    ids.push_back(*id);
  }
  return ids;
}

std::vector<std::string> FieldReader::Texts(const char* field) {
  std::vector<std::string> texts;
  const Json* const value = Find(field);
  if (value == nullptr) return texts;
  if (!value->is_array()) {
    Invalid(field, absl::StrCat("must be a list of strings, is ", KindOf(*value)));
    return texts;
  }
  for (const Json& one : *value) {
    if (!one.is_string()) {
      Invalid(absl::StrCat(field, "[", texts.size(), "]"),
              absl::StrCat("must be a string, is ", KindOf(one)));
      return {};
    }
    texts.push_back(one.get<std::string>());
  }
  return texts;
}

void FieldReader::Ignore(std::initializer_list<const char*> fields) {
  known_.insert(fields.begin(), fields.end());
}

void FieldReader::Refuse(const char* field, absl::string_view why) {
  const Json* const value = Find(field);
  if (value == nullptr) return;
  const bool nothing = (value->is_boolean() && !value->get<bool>()) ||
                       (value->is_string() && value->get_ref<const std::string&>().empty()) ||
                       (value->is_structured() && value->empty());
  if (!nothing) Unsupported(field, std::string(why));
}

uint32_t FieldReader::CountUnknown() const {
  uint32_t unknown = 0;
  for (const auto& [key, value] : object_.items()) unknown += known_.count(key) == 0 ? 1 : 0;
  return unknown;
}

void FieldReader::Invalid(absl::string_view field, std::string description) {
  errors_->Invalid(absl::StrCat(path_, field), std::move(description));
}

void FieldReader::Unsupported(absl::string_view field, std::string description) {
  errors_->Unsupported(absl::StrCat(path_, field), std::move(description));
}

std::optional<uint32_t> IdOf(const nlohmann::json& value) {
  // A float is no id, unlike where a count is meant.
  if (!value.is_number_integer()) return std::nullopt;
  const std::optional<int64_t> number = WholeNumber(value);
  if (!number || *number < 0 || *number > std::numeric_limits<uint32_t>::max()) return std::nullopt;
  return static_cast<uint32_t>(*number);
}

}  // namespace tessera::server
