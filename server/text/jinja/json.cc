#include "server/text/jinja/json.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/text/utf8.h"

namespace tessera::server::jinja {
namespace {

using Json = nlohmann::ordered_json;
constexpr int kMaxDepth = 64;

Status NotJson(absl::string_view field, absl::string_view why) {
  return Error(absl::StatusCode::kInvalidArgument,
               {"not usable as JSON", std::string(field), std::string(why), "send valid JSON"});
}

StatusOr<Value> Convert(const Json& json, TextOrigin origin, absl::string_view field, int depth) {
  if (depth > kMaxDepth) return NotJson(field, "it is nested too deeply");
  switch (json.type()) {
    case Json::value_t::boolean:
      return Value::Bool(json.get<bool>());
    case Json::value_t::number_integer:
      return Value::Int(json.get<int64_t>());
    case Json::value_t::number_unsigned:
      if (json.get<uint64_t>() > uint64_t{INT64_MAX})
        return NotJson(field, "a number is too large");
      return Value::Int(json.get<int64_t>());
    case Json::value_t::number_float:
      return Value::Float(json.get<double>());
    case Json::value_t::string:
      return Value::Text(json.get<std::string>(), origin);
    case Json::value_t::array: {
      List items;
      items.reserve(json.size());
      for (const Json& item : json) {
        TESSERA_ASSIGN_OR_RETURN(Value value, Convert(item, origin, field, depth + 1));
        items.push_back(std::move(value));
      }
      return Value::MakeList(std::move(items));
    }
    case Json::value_t::object: {
      Dict dict;
      dict.items.reserve(json.size());
      for (const auto& [key, item] : json.items()) {
        TESSERA_ASSIGN_OR_RETURN(Value value, Convert(item, origin, field, depth + 1));
        dict.items.emplace_back(Value::Text(key, origin), std::move(value));
      }
      return Value::MakeDict(std::move(dict));
    }
    default:
      return Value::MakeNone();
  }
}

void AppendString(absl::string_view text, bool ascii, std::string* out) {
  out->push_back('"');
  for (size_t pos = 0; pos < text.size();) {
    const CodePoint code = DecodeUtf8(text, pos);
    const char c = text[pos];
    if (code.value == '"' || code.value == '\\') {
      out->push_back('\\');
      out->push_back(c);
    } else if (code.value == '\n') {
      out->append("\\n");
    } else if (code.value == '\r') {
      out->append("\\r");
    } else if (code.value == '\t') {
      out->append("\\t");
    } else if (code.value == '\b') {
      out->append("\\b");
    } else if (code.value == '\f') {
      out->append("\\f");
    } else if (code.value < 0x20 || (ascii && code.value >= 0x7F && code.value < 0x10000)) {
      absl::StrAppendFormat(out, "\\u%04x", static_cast<uint32_t>(code.value));
    } else if (ascii && code.value >= 0x10000) {
      const uint32_t v = static_cast<uint32_t>(code.value) - 0x10000;
      absl::StrAppendFormat(out, "\\u%04x\\u%04x", 0xD800 + (v >> 10), 0xDC00 + (v & 0x3FF));
    } else {
      out->append(text.data() + pos, code.length);
    }
    pos += code.length;
  }
  out->push_back('"');
}

class Writer {
 public:
  explicit Writer(const JsonFormat& format) : format_(format) {}

  Status Write(const Value& value, int depth) {
    if (depth > kMaxDepth) return NotJson("tojson", "the value is nested too deeply");
    if (const MarkedText* text = value.text()) {
      AppendString(text->bytes(), format_.ascii, &out_);
    } else if (value.is_none()) {
      out_ += "null";
    } else if (const bool* b = value.As<bool>()) {
      out_ += *b ? "true" : "false";
    } else if (const double* d = value.As<double>()) {
      const std::string number = FloatText(*d);
      out_ += number == "nan"
                  ? "NaN"
                  : (number == "inf" ? "Infinity" : (number == "-inf" ? "-Infinity" : number));
    } else if (const std::optional<int64_t> i = value.integer()) {
      absl::StrAppend(&out_, *i);
    } else if (const Sequence* sequence = value.sequence()) {
      return WriteList(*sequence->items, depth);
    } else if (const Dict* dict = value.dict()) {
      return WriteDict(*dict, depth);
    } else {
      return NotJson(
          "tojson", absl::StrCat("Object of type ", value.TypeName(), " is not JSON serializable"));
    }
    return absl::OkStatus();
  }
  std::string& out() { return out_; }

 private:
  void Break(int depth) {
    if (format_.indent < 0) return;
    out_.push_back('\n');
    out_.append(static_cast<size_t>(format_.indent) * depth, ' ');
  }

  Status WriteList(const List& items, int depth) {
    if (items.empty()) {
      out_ += "[]";
      return absl::OkStatus();
    }
    out_.push_back('[');
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_ += format_.item_separator;
      Break(depth + 1);
      TESSERA_RETURN_IF_ERROR(Write(items[i], depth + 1));
    }
    Break(depth);
    out_.push_back(']');
    return absl::OkStatus();
  }

  Status WriteDict(const Dict& dict, int depth) {
    if (dict.items.empty()) {
      out_ += "{}";
      return absl::OkStatus();
    }
    std::vector<const std::pair<Value, Value>*> items;
    for (const auto& item : dict.items) items.push_back(&item);
    if (format_.sort_keys) {
      std::stable_sort(items.begin(), items.end(), [](const auto* a, const auto* b) {
        return a->first.Str().bytes() < b->first.Str().bytes();
      });
    }
    out_.push_back('{');
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_ += format_.item_separator;
      Break(depth + 1);
      TESSERA_RETURN_IF_ERROR(WriteKey(items[i]->first));
      out_ += format_.key_separator;
      TESSERA_RETURN_IF_ERROR(Write(items[i]->second, depth + 1));
    }
    Break(depth);
    out_.push_back('}');
    return absl::OkStatus();
  }

  Status WriteKey(const Value& key) {
    if (const MarkedText* text = key.text()) {
      AppendString(text->bytes(), format_.ascii, &out_);
      return absl::OkStatus();
    }
    if (key.sequence() != nullptr || key.dict() != nullptr) {
      return NotJson("tojson", "keys must be texts or numbers");
    }
    out_.push_back('"');
    TESSERA_RETURN_IF_ERROR(Write(key, kMaxDepth));
    out_.push_back('"');
    return absl::OkStatus();
  }

  const JsonFormat& format_;
  std::string out_;
};

}  // namespace

StatusOr<Value> FromJson(absl::string_view text, TextOrigin origin, absl::string_view field) {
  // nlohmann's parser keeps its own stack, but its values are freed by recursion.
  int depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (quoted && text[i] == '\\') {
      ++i;
    } else if (text[i] == '"') {
      quoted = !quoted;
    } else if (!quoted && (text[i] == '[' || text[i] == '{')) {
      if (++depth > kMaxDepth) return NotJson(field, "it is nested too deeply");
    } else if (!quoted && (text[i] == ']' || text[i] == '}')) {
      --depth;
    }
  }
  const Json json = Json::parse(text.begin(), text.end(), nullptr, false);
  if (json.is_discarded()) return NotJson(field, "it does not parse");
  return Convert(json, origin, field, 0);
}

StatusOr<MarkedText> ToJson(const Value& value, const JsonFormat& format) {
  Writer writer(format);
  TESSERA_RETURN_IF_ERROR(writer.Write(value, 0));
  return MarkedText(std::move(writer.out()), TextOrigin::kData);
}

}  // namespace tessera::server::jinja
