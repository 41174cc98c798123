// Calls as JSON objects, alone or in a list.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "server/text/chat_output/call_reader.h"
#include "server/text/chat_output/json_scanner.h"

namespace tessera::server {
namespace {

std::optional<std::string> JsonText(const std::string& raw) {
  const nlohmann::json json = nlohmann::json::parse(raw, nullptr, false);
  if (!json.is_string()) return std::nullopt;
  return json.get<std::string>();
}

// One object's members as they come.
class CallObject {
 public:
  enum class Role : uint8_t { kOther, kName, kArguments, kId };

  JsonScanner::Result Push(char c) {
    const JsonScanner::Result result = scanner_.Push(c);
    if (result == JsonScanner::Result::kBad) return result;
    if (scanner_.part() == JsonScanner::Part::kKey) {
      key_ += c;
      return result;
    }
    if (scanner_.part() == JsonScanner::Part::kValue) {
      if (!in_value_) BeginValue(c);
      in_value_ = true;
      (streams_ ? arguments_ : value_) += c;
    }
    if (in_value_ && scanner_.between_members()) {
      in_value_ = false;
      if (!EndValue()) return JsonScanner::Result::kBad;
    }
    return result;
  }

  [[nodiscard]] const std::optional<std::string>& name() const { return name_; }
  [[nodiscard]] const std::string& id() const { return id_; }
  // Arguments under way or read, with what was not yet taken of them.
  [[nodiscard]] bool has_arguments() const { return has_arguments_; }
  [[nodiscard]] bool in_arguments() const { return in_value_ && streams_; }
  std::string TakeArguments() { return std::exchange(arguments_, ""); }

 private:
  void BeginValue(char c) {
    const std::string key = JsonText(key_).value_or("");
    key_.clear();
    value_.clear();
    role_ = Role::kOther;
    if (key == "name" || key == "tool_name") role_ = Role::kName;
    const bool arguments = key == "arguments" || key == "parameters";
    // The first: they are told as they come.
    if (arguments && !has_arguments_) role_ = Role::kArguments;
    if (key == "id" || key == "tool_call_id") role_ = Role::kId;
    streams_ = role_ == Role::kArguments && (c == '{' || c == '[');
    if (streams_) has_arguments_ = true;
  }

  bool EndValue() {
    if (role_ == Role::kName) {
      name_ = JsonText(value_);
      return name_.has_value();
    }
    if (role_ == Role::kId) id_ = JsonText(value_).value_or(value_);
    if (role_ == Role::kArguments && !streams_) {
      // Some write the object as text.
      arguments_ = value_ == "null" ? "{}" : JsonText(value_).value_or(value_);
      has_arguments_ = true;
    }
    streams_ = false;
    return true;
  }

  JsonScanner scanner_;
  std::string key_;
  std::string value_;
  Role role_ = Role::kOther;
  bool in_value_ = false;
  bool streams_ = false;  // the value under way goes into arguments_
  bool has_arguments_ = false;
  std::optional<std::string> name_;
  std::string id_;
  std::string arguments_;
};

class JsonCalls final : public CallReader {
 public:
  using CallReader::CallReader;

  State Read(std::string* buffer) override {
    while (true) {
      if (place_ == Place::kVerbatim) return ReadVerbatim(buffer);
      if (place_ == Place::kObject) {
        const State state = ReadObject(buffer);
        if (state != State::kDone) return state;
        continue;
      }
      Take(buffer, std::min(buffer->find_first_not_of(kMarkupSpace), buffer->size()));
      if (buffer->empty()) return State::kMore;
      const std::optional<State> state =
          place_ == Place::kEnd ? std::optional(ReadEnd(buffer)) : ReadBetween(buffer);
      if (state) return *state;
    }
  }

  State Finish(std::string* buffer) override {
    if (place_ == Place::kVerbatim) {
      writer_.Arguments(*buffer);
      buffer->clear();
    }
    return Unfinished();
  }

 private:
  enum class Place : uint8_t {
    kBegin,    // before the first object, or the list
    kItem,     // before an object of a list, or its end
    kObject,   // within an object
    kAfter,    // after an object
    kEnd,      // before the form's end
    kVerbatim  // within arguments that are no JSON
  };

  // What is left over after the last whole call goes back as text, unless it is space.
  State Unfinished() const {
    return committed_ && raw_.find_first_not_of(kMarkupSpace) == std::string::npos ? State::kDone
                                                                                   : State::kFailed;
  }

  std::optional<State> ReadBetween(std::string* buffer) {
    const char c = buffer->front();
    if (c == '{' && (place_ != Place::kAfter || !list_)) {
      place_ = Place::kObject;
      object_.emplace();
      keeps_raw_ = true;
      return std::nullopt;
    }
    if (place_ == Place::kBegin) {
      if (c != '[') return State::kFailed;
      list_ = true;
      place_ = Place::kItem;
      Take(buffer, 1);
    } else if (list_) {
      if (c == ']') {
        if (!committed_) return State::kFailed;
        list_ = false;
        place_ = Place::kEnd;
      } else if (c == ',' && place_ == Place::kAfter) {
        place_ = Place::kItem;
      } else {
        return Unfinished();
      }
      Take(buffer, 1);
    } else if (c == ';') {
      Take(buffer, 1);
    } else {
      place_ = Place::kEnd;
    }
    return std::nullopt;
  }

  State ReadEnd(std::string* buffer) {
    if (form_.end.empty()) return State::kDone;
    const MarkMatch match = MatchMark(*buffer, form_.end);
    if (match == MarkMatch::kPart) return State::kMore;
    if (match == MarkMatch::kYes) Take(buffer, form_.end.size());
    return State::kDone;
  }

  // kDone: the place has changed.
  State ReadObject(std::string* buffer) {
    for (size_t i = 0; i < buffer->size(); ++i) {
      const JsonScanner::Result result = object_->Push((*buffer)[i]);
      if (result == JsonScanner::Result::kBad) return Broken(buffer, i);
      if (keeps_raw_) {
        if (raw_.size() + i > kMaxHeadBytes) return State::kFailed;
        const bool known = object_->name() && object_->has_arguments();
        const bool whole = result == JsonScanner::Result::kDone;
        if (whole && !object_->name()) return State::kFailed;
        if ((known || whole) && !Commit(*object_->name(), object_->id())) return State::kFailed;
        if (!keeps_raw_) {
          // The object's text so far is in the object.
          buffer->erase(0, i);
          i = 0;
        }
      }
      if (result != JsonScanner::Result::kDone) continue;
      writer_.Arguments(object_->has_arguments() ? object_->TakeArguments() : "{}");
      buffer->erase(0, i + 1);
      place_ = Place::kAfter;
      return State::kDone;
    }
    if (!keeps_raw_) writer_.Arguments(object_->TakeArguments());
    Take(buffer, buffer->size());
    return State::kMore;
  }

  // The character at `at` cannot be there.
  State Broken(std::string* buffer, size_t at) {
    if (keeps_raw_) return State::kFailed;
    writer_.Arguments(object_->has_arguments() ? object_->TakeArguments() : "{}");
    buffer->erase(0, at);
    place_ = object_->in_arguments() ? Place::kVerbatim : Place::kEnd;
    return State::kDone;
  }

  Place place_ = Place::kBegin;
  bool list_ = false;
  std::optional<CallObject> object_;
};

}  // namespace

std::unique_ptr<CallReader> MakeJsonCalls(const CallForm* form, const OfferedTools* tools,
                                          AnswerWriter* writer) {
  return std::make_unique<JsonCalls>(form, tools, writer);
}

}  // namespace tessera::server
