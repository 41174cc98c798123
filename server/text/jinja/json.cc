#include "server/text/jinja/json.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/text/utf8.h"

namespace tessera::server::jinja {
namespace {

using Json = nlohmann::json;
constexpr size_t kMaxDepth = 64;

Status NotJson(absl::string_view field, absl::string_view why) {
  return Error(absl::StatusCode::kInvalidArgument,
               {"not usable as JSON", std::string(field), std::string(why), "send valid JSON"});
}

// Takes the parser's events, so that neither depth nor size of the text decides about the stack,
// and looks equal keys up by hash.
class JsonReader : public nlohmann::json_sax<Json> {
 public:
  JsonReader(TextOrigin origin, absl::string_view field) : origin_(origin), field_(field) {}

  bool null() override { return Add(Value::MakeNone()); }
  bool boolean(bool value) override { return Add(Value::Bool(value)); }
  bool number_integer(number_integer_t value) override { return Add(Value::Int(value)); }
  bool number_unsigned(number_unsigned_t value) override {
    if (value > uint64_t{INT64_MAX}) return Fail("an integer does not fit 64 bits");
    return Add(Value::Int(static_cast<int64_t>(value)));
  }
  bool number_float(number_float_t value, const string_t& text) override {
    if (text.find_first_of(".eE") == std::string::npos) {
      return Fail("an integer does not fit 64 bits");
    }
    return Add(Value::Float(value));
  }
  bool string(string_t& value) override { return Add(Value::Text(std::move(value), origin_)); }
  bool binary(binary_t& value) override { return Fail("it does not parse"); }
  bool start_object(size_t) override { return Open(true); }
  bool start_array(size_t) override { return Open(false); }
  bool key(string_t& value) override {
    open_.back().key = std::move(value);
    return true;
  }
  bool end_object() override {
    Dict dict = std::move(open_.back().dict);
    open_.pop_back();
    return Add(Value::MakeDict(std::move(dict)));
  }
  bool end_array() override {
    List list = std::move(open_.back().list);
    open_.pop_back();
    return Add(Value::MakeList(std::move(list)));
  }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception&) override {
    return Fail("it does not parse");
  }

  [[nodiscard]] const Status& status() const { return status_; }
  Value& value() { return value_; }

 private:
  struct Level {
    bool object = false;
    List list;
    Dict dict;
    std::string key;
    absl::flat_hash_map<std::string, size_t> places;
  };

  bool Fail(absl::string_view why) {
    if (status_.ok()) status_ = NotJson(field_, why);
    return false;
  }

  bool Open(bool object) {
    if (open_.size() >= kMaxDepth) return Fail("it is nested too deeply");
    open_.emplace_back().object = object;
    return true;
  }

  bool Add(Value value) {
    if (open_.empty()) {
      value_ = std::move(value);
      return true;
    }
    Level& level = open_.back();
    if (!level.object) {
      level.list.push_back(std::move(value));
      return true;
    }
    auto& items = level.dict.items;
    const auto [place, added] = level.places.emplace(level.key, items.size());
    if (added) {
      items.emplace_back(Value::Text(std::move(level.key), origin_), std::move(value));
    } else {
      items[place->second].second = std::move(value);
    }
    return true;
  }

  const TextOrigin origin_;
  const absl::string_view field_;
  std::vector<Level> open_;
  Value value_;
  Status status_;
};

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

class JsonWriter {
 public:
  explicit JsonWriter(const JsonFormat& format) : format_(format) {}

  Status Write(const Value& value, int depth) {
    if (out_.size() > format_.max_bytes) return absl::OkStatus();
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
    } else if (const Sequence* sequence = value.sequence();
               sequence != nullptr && sequence->kind <= SequenceKind::kGroup) {
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
    if (!format_.indent) return;
    out_.push_back('\n');
    for (int i = 0; i < depth; ++i) out_ += *format_.indent;
  }

  Status WriteList(const List& items, int depth) {
    if (items.empty()) {
      out_ += "[]";
      return absl::OkStatus();
    }
    out_.push_back('[');
    for (size_t i = 0; i < items.size() && out_.size() <= format_.max_bytes; ++i) {
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
    for (size_t i = 0; i < items.size() && out_.size() <= format_.max_bytes; ++i) {
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
    TESSERA_RETURN_IF_ERROR(Write(key, 0));
    out_.push_back('"');
    return absl::OkStatus();
  }

  const JsonFormat& format_;
  std::string out_;
};

}  // namespace

StatusOr<Value> FromJson(absl::string_view text, TextOrigin origin, absl::string_view field) {
  JsonReader reader(origin, field);
  if (!Json::sax_parse(text.begin(), text.end(), &reader)) {
    return reader.status().ok() ? NotJson(field, "it does not parse") : reader.status();
  }
  return std::move(reader.value());
}

StatusOr<MarkedText> ToJson(const Value& value, const JsonFormat& format) {
  JsonWriter writer(format);
  TESSERA_RETURN_IF_ERROR(writer.Write(value, 0));
  return MarkedText(std::move(writer.out()), TextOrigin::kData);
}

}  // namespace tessera::server::jinja
