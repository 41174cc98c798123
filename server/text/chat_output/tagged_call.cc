// A call as tags: a name, and a key and a value for each argument.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "server/text/chat_output/call_reader.h"

namespace tessera::server {
namespace {

// `text` as it stands within a JSON string.
std::string Escaped(absl::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c == '\r') {
      out += "\\r";
    } else if (static_cast<uint8_t>(c) < 0x20) {
      absl::StrAppend(&out, "\\u", absl::Hex(static_cast<uint8_t>(c), absl::kZeroPad4));
    } else {
      out += c;
    }
  }
  return out;
}

// JSON as it is, Python's words as JSON's, anything else as a string.
std::string JsonOrText(absl::string_view value) {
  const absl::string_view trimmed = absl::StripAsciiWhitespace(value);
  if (trimmed == "True") return "true";
  if (trimmed == "False") return "false";
  if (trimmed == "None") return "null";
  if (nlohmann::json::accept(std::string(trimmed))) return std::string(trimmed);
  return absl::StrCat("\"", Escaped(value), "\"");
}

class TaggedCall final : public CallReader {
 public:
  TaggedCall(const CallForm* form, const OfferedTools* tools, AnswerWriter* writer)
      : CallReader(form, tools, writer), place_(form->open.empty() ? Place::kName : Place::kOpen) {
    if (form_.values == CallForm::Values::kLines) value_end_ = "\n";
    value_end_ += form_.value_end;
  }

  State Read(std::string* buffer) override {
    while (true) {
      const State state = ReadPlace(buffer);
      if (state != State::kDone || place_ == Place::kDone) return state;
    }
  }

  State Finish(std::string* buffer) override {
    if (keeps_raw_) return State::kFailed;
    if (place_ == Place::kValue) {
      AddToValue(*buffer);
      writer_.Arguments(value_);
      buffer->clear();
    }
    return State::kDone;
  }

 private:
  enum class Place : uint8_t {
    kOpen,
    kName,
    kMember,  // before a key or the end
    kKey,
    kValueBegin,
    kValue,
    kClosed,  // after the arguments
    kDone
  };

  // kDone: the place has changed.
  State ReadPlace(std::string* buffer) {
    switch (place_) {
      case Place::kOpen:
        return ReadOpen(buffer);
      case Place::kName:
        return ReadName(buffer);
      case Place::kMember:
        return ReadMember(buffer);
      case Place::kKey:
        return ReadKey(buffer);
      case Place::kValueBegin:
        return ReadValueBegin(buffer);
      case Place::kValue:
        return ReadValue(buffer);
      case Place::kClosed:
        return ReadClosed(buffer);
      case Place::kDone:
        break;
    }
    return State::kDone;
  }

  void SkipSpace(std::string* buffer) {
    Take(buffer, std::min(buffer->find_first_not_of(kMarkupSpace), buffer->size()));
  }

  State ReadOpen(std::string* buffer) {
    SkipSpace(buffer);
    const MarkMatch match = MatchMark(*buffer, form_.open);
    if (match == MarkMatch::kPart) return State::kMore;
    if (match == MarkMatch::kNo) return State::kFailed;
    Take(buffer, form_.open.size());
    place_ = Place::kName;
    return State::kDone;
  }

  State ReadName(std::string* buffer) {
    size_t end = buffer->find(form_.name_end);
    size_t mark_bytes = form_.name_end.size();
    for (const std::string* mark : {&form_.key_begin, &form_.end}) {
      const size_t at = buffer->find(*mark);
      if (at >= end) continue;
      end = at;
      mark_bytes = 0;
    }
    if (TooLong(end, buffer->size())) return State::kFailed;
    if (end == std::string::npos) return State::kMore;
    name_ = std::string(absl::StripAsciiWhitespace(buffer->substr(0, end)));
    if (!Commit(name_, "")) return State::kFailed;
    writer_.Arguments("{");
    first_ = true;
    buffer->erase(0, end + mark_bytes);
    place_ = Place::kMember;
    return State::kDone;
  }

  State ReadMember(std::string* buffer) {
    SkipSpace(buffer);
    const struct {
      const std::string& mark;
      Place next;
    } ways[] = {
        {form_.key_begin, Place::kKey}, {form_.close, Place::kClosed}, {form_.end, Place::kDone}};
    for (const auto& way : ways) {
      if (way.mark.empty()) continue;
      const MarkMatch match = MatchMark(*buffer, way.mark);
      if (match == MarkMatch::kPart) return State::kMore;
      if (match == MarkMatch::kNo) continue;
      Take(buffer, way.mark.size());
      return Enter(way.next);
    }
    return Enter(Place::kDone);  // what follows is text
  }

  State Enter(Place next) {
    if (next != Place::kKey) writer_.Arguments("}");
    place_ = next;
    return State::kDone;
  }

  State ReadKey(std::string* buffer) {
    const size_t end = buffer->find(form_.key_end);
    if (TooLong(end, buffer->size())) return Enter(Place::kDone);
    if (end == std::string::npos) return State::kMore;
    key_ = std::string(absl::StripAsciiWhitespace(buffer->substr(0, end)));
    kind_ = tools_.KindOf(name_, key_);
    Take(buffer, end + form_.key_end.size());
    place_ = Place::kValueBegin;
    return State::kDone;
  }

  State ReadValueBegin(std::string* buffer) {
    if (form_.values == CallForm::Values::kDeclared) {
      const size_t end = buffer->find(form_.value_begin);
      if (TooLong(end, buffer->size())) return Enter(Place::kDone);
      if (end == std::string::npos) return State::kMore;
      const bool text = buffer->compare(0, end, "true") == 0;
      kind_ = text ? OfferedTools::Value::kText : OfferedTools::Value::kJson;
      Take(buffer, end + form_.value_begin.size());
    } else if (!form_.value_begin.empty()) {
      SkipSpace(buffer);
      const MarkMatch match = MatchMark(*buffer, form_.value_begin);
      if (match == MarkMatch::kPart) return State::kMore;
      if (match == MarkMatch::kYes) Take(buffer, form_.value_begin.size());
    }
    writer_.Arguments(absl::StrCat(first_ ? "" : ", ", "\"", Escaped(key_),
                                   "\": ", kind_ == OfferedTools::Value::kText ? "\"" : ""));
    first_ = false;
    value_.clear();
    value_begun_ = false;
    place_ = Place::kValue;
    return State::kDone;
  }

  State ReadValue(std::string* buffer) {
    if (!value_begun_ && form_.values == CallForm::Values::kLines) {
      if (buffer->empty()) return State::kMore;
      if (buffer->front() == '\n') Take(buffer, 1);
    }
    value_begun_ = true;
    const size_t end = buffer->find(form_.value_end);
    if (end == std::string::npos) {
      const size_t held = HeldBytes(*buffer);
      AddToValue(absl::string_view(*buffer).substr(0, buffer->size() - held));
      buffer->erase(0, buffer->size() - held);
      return State::kMore;
    }
    const bool line =
        form_.values == CallForm::Values::kLines && end > 0 && (*buffer)[end - 1] == '\n';
    AddToValue(absl::string_view(*buffer).substr(0, line ? end - 1 : end));
    buffer->erase(0, end + form_.value_end.size());
    writer_.Arguments(kind_ == OfferedTools::Value::kText ? "\"" : JsonOrText(value_));
    place_ = Place::kMember;
    return State::kDone;
  }

  // What may be the end of the value, with the line break before it.
  [[nodiscard]] size_t HeldBytes(absl::string_view text) const {
    return std::max(PartialMarkBytes(text, value_end_), PartialMarkBytes(text, form_.value_end));
  }

  void AddToValue(absl::string_view text) {
    if (kind_ == OfferedTools::Value::kText) {
      writer_.Arguments(Escaped(text));
    } else {
      value_.append(text.data(), text.size());
    }
  }

  State ReadClosed(std::string* buffer) {
    SkipSpace(buffer);
    const MarkMatch end = MatchMark(*buffer, form_.end);
    const MarkMatch another = form_.open.empty() ? MarkMatch::kNo : MatchMark(*buffer, form_.open);
    if (end == MarkMatch::kPart || another == MarkMatch::kPart) return State::kMore;
    if (end == MarkMatch::kYes) Take(buffer, form_.end.size());
    place_ = Place::kDone;
    if (another == MarkMatch::kYes) {
      keeps_raw_ = true;
      place_ = Place::kOpen;
    }
    return State::kDone;
  }

  Place place_;
  std::string value_end_;
  std::string name_;
  std::string key_;
  OfferedTools::Value kind_ = OfferedTools::Value::kText;
  std::string value_;  // when it is no text
  bool value_begun_ = false;
  bool first_ = true;  // argument
};

}  // namespace

std::unique_ptr<CallReader> MakeTaggedCall(const CallForm* form, const OfferedTools* tools,
                                           AnswerWriter* writer) {
  return std::make_unique<TaggedCall>(form, tools, writer);
}

}  // namespace tessera::server
