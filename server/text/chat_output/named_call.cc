// A call as a name, a mark and the arguments' JSON.
#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/strip.h"
#include "server/text/chat_output/call_reader.h"
#include "server/text/chat_output/json_scanner.h"

namespace tessera::server {
namespace {

constexpr absl::string_view kFence = "```";
constexpr absl::string_view kFenceWord = "json";

class NamedCall final : public CallReader {
 public:
  using CallReader::CallReader;

  State Read(std::string* buffer) override {
    while (true) {
      const State state = ReadPlace(buffer);
      if (state != State::kDone || place_ == Place::kDone) return state;
    }
  }

  State Finish(std::string* buffer) override {
    if (!committed_) return State::kFailed;
    if (place_ == Place::kVerbatim) {
      writer_.Arguments(*buffer);
      buffer->clear();
    }
    return State::kDone;
  }

 private:
  enum class Place : uint8_t { kName, kId, kBefore, kArguments, kAfter, kEnd, kVerbatim, kDone };

  // kDone: the place has changed.
  State ReadPlace(std::string* buffer) {
    switch (place_) {
      case Place::kName:
        return ReadWord(buffer, &name_);
      case Place::kId:
        return ReadWord(buffer, &id_);
      case Place::kBefore:
        return ReadBefore(buffer);
      case Place::kArguments:
        return ReadArguments(buffer);
      case Place::kAfter:
        return ReadMark(buffer, fenced_ ? kFence : "", Place::kEnd);
      case Place::kEnd:
        return ReadMark(buffer, form_.end, Place::kDone);
      case Place::kVerbatim: {
        const State state = ReadVerbatim(buffer);
        if (state == State::kDone) place_ = Place::kDone;
        return state;
      }
      case Place::kDone:
        break;
    }
    return State::kDone;
  }

  // Up to the mark before the id or the arguments.
  State ReadWord(std::string* buffer, std::string* word) {
    size_t end = buffer->find('{');
    size_t mark_bytes = 0;
    Place next = Place::kBefore;
    const auto consider = [&](const std::string& mark, Place place) {
      const size_t at = mark.empty() ? std::string::npos : buffer->find(mark);
      if (at >= end) return;
      end = at;
      mark_bytes = mark.size();
      next = place;
    };
    consider(form_.arguments_begin, Place::kBefore);
    if (place_ == Place::kName) consider(form_.id_begin, Place::kId);
    if (TooLong(end, buffer->size())) return State::kFailed;
    if (end == std::string::npos) return State::kMore;
    *word = buffer->substr(0, end);
    Take(buffer, end + mark_bytes);
    place_ = next;
    return State::kDone;
  }

  // What stands before the arguments' first brace.
  State ReadBefore(std::string* buffer) {
    Take(buffer, std::min(buffer->find_first_not_of(kMarkupSpace), buffer->size()));
    if (buffer->empty()) return State::kMore;
    if (buffer->front() == '{') {
      if (!CommitName()) return State::kFailed;
      place_ = Place::kArguments;
      return State::kDone;
    }
    if (form_.name == CallForm::Name::kTyped && absl::StripAsciiWhitespace(name_) == "function") {
      const size_t end = buffer->find('\n');
      if (TooLong(end, buffer->size())) return State::kFailed;
      if (end == std::string::npos) return State::kMore;
      name_ = buffer->substr(0, end);
      Take(buffer, end);
      return State::kDone;
    }
    const absl::string_view mark = fenced_ ? kFenceWord : kFence;
    const MarkMatch match = MatchMark(*buffer, mark);
    if (match == MarkMatch::kPart) return State::kMore;
    if (match == MarkMatch::kNo) return State::kFailed;
    Take(buffer, mark.size());
    fenced_ = true;
    return State::kDone;
  }

  bool CommitName() {
    if (form_.name != CallForm::Name::kIndexed) return Commit(name_, id_);
    absl::string_view name = absl::StripAsciiWhitespace(name_);
    id_ = std::string(name);
    const size_t colon = name.rfind(':');
    absl::ConsumePrefix(&name, "functions.");
    return Commit(name.substr(0, colon - (id_.size() - name.size())), id_);
  }

  State ReadArguments(std::string* buffer) {
    for (size_t i = 0; i < buffer->size(); ++i) {
      const JsonScanner::Result result = scanner_.Push((*buffer)[i]);
      if (result == JsonScanner::Result::kMore) continue;
      const bool whole = result == JsonScanner::Result::kDone;
      const size_t count = whole ? i + 1 : i;
      writer_.Arguments(absl::string_view(*buffer).substr(0, count));
      buffer->erase(0, count);
      place_ = whole ? Place::kAfter : Place::kVerbatim;
      return State::kDone;
    }
    writer_.Arguments(*buffer);
    buffer->clear();
    return State::kMore;
  }

  // Takes `mark` if it comes next.
  State ReadMark(std::string* buffer, absl::string_view mark, Place next) {
    if (mark.empty()) {
      place_ = next;
      return State::kDone;
    }
    Take(buffer, std::min(buffer->find_first_not_of(kMarkupSpace), buffer->size()));
    const MarkMatch match = MatchMark(*buffer, mark);
    if (match == MarkMatch::kPart) return State::kMore;
    if (match == MarkMatch::kYes) Take(buffer, mark.size());
    place_ = next;
    return State::kDone;
  }

  Place place_ = Place::kName;
  std::string name_;
  std::string id_;
  bool fenced_ = false;
  JsonScanner scanner_;
};

}  // namespace

std::unique_ptr<CallReader> MakeNamedCall(const CallForm* form, const OfferedTools* tools,
                                          AnswerWriter* writer) {
  return std::make_unique<NamedCall>(form, tools, writer);
}

}  // namespace tessera::server
