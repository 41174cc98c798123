#include "server/text/chat_output/markup_parser.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"

namespace tessera::server {
namespace {

bool IsControlMark(absl::string_view mark) {
  return !mark.empty() && mark.front() == kControlBegin;
}

// As a prompt spells it.
absl::string_view MarkName(absl::string_view mark) {
  return IsControlMark(mark) ? mark.substr(1, mark.size() - 2) : mark;
}

}  // namespace

MarkupParser::MarkupParser(const Markup* markup, AnswerOptions options)
    : markup_(*markup), options_(std::move(options)), writer_(options_) {
  for (const CallForm& form : markup_.calls) {
    if (form.begin.empty() && !options_.tools.empty()) bare_form_ = &form;
  }
  const absl::string_view prompt = absl::StripTrailingAsciiWhitespace(options_.prompt);
  const bool reasons =
      !markup_.reasoning_begin.empty() && absl::EndsWith(prompt, MarkName(markup_.reasoning_begin));
  Enter(reasons ? Place::kReasoning : Place::kText);
  drop_space_ = reasons;
}

void MarkupParser::Push(absl::string_view text, ChatParts* out) {
  writer_.set_out(out);
  buffer_.append(text.data(), text.size());
  Run();
}

void MarkupParser::Run() {
  while (place_ == Place::kCall ? RunCall() : RunText()) {
  }
}

void MarkupParser::Finish(ChatParts* out) {
  writer_.set_out(out);
  Run();
  while (place_ == Place::kCall) {
    if (reader_ != nullptr && reader_->Finish(&buffer_) == CallReader::State::kDone) {
      Enter(Place::kText);
      drop_space_ = true;
      break;
    }
    GiveBackCall();
    Run();
  }
  Write(std::exchange(buffer_, ""));
  WriteSpace();
}

void MarkupParser::Enter(Place place) {
  place_ = place;
  space_.clear();
  ListMarks();
}

void MarkupParser::ListMarks() {
  using Kind = Mark::Kind;
  marks_.clear();
  if (place_ == Place::kReasoning) marks_.push_back({markup_.reasoning_end, Kind::kReasoningEnd});
  const bool begins = place_ == Place::kText && !markup_.reasoning_begin.empty() &&
                      (at_start_ || IsControlMark(markup_.reasoning_begin));
  if (begins) marks_.push_back({markup_.reasoning_begin, Kind::kReasoningBegin});
  for (const std::string& mark : markup_.ignored) {
    marks_.push_back({mark, Kind::kIgnored});
  }
  if (options_.tools.empty()) return;
  for (const CallForm& form : markup_.calls) {
    // Within reasoning, only what cannot be a quotation.
    const bool possible =
        !form.begin.empty() && (place_ == Place::kText || IsControlMark(form.begin));
    if (possible) marks_.push_back({form.begin, Kind::kCall, &form});
  }
}

bool MarkupParser::RunText() {
  if (BeginBareCall()) return true;
  size_t at = std::string::npos;
  const Mark* found = nullptr;
  size_t held = 0;
  for (const Mark& mark : marks_) {
    const size_t place = absl::string_view(buffer_).find(mark.text);
    if (place < at) {
      at = place;
      found = &mark;
    }
    held = std::max(held, PartialMarkBytes(buffer_, mark.text));
  }
  if (found == nullptr) {
    const size_t count = buffer_.size() - held;
    Write(absl::string_view(buffer_).substr(0, count));
    buffer_.erase(0, count);
    return false;
  }
  const bool started = at_start_;
  Write(absl::string_view(buffer_).substr(0, at));
  buffer_.erase(0, at);
  // Text before it: the mark means nothing any more.
  if (started && !at_start_) return true;
  const Mark mark = *found;
  buffer_.erase(0, mark.text.size());
  Pass(mark);
  return true;
}

bool MarkupParser::BeginBareCall() {
  if (bare_form_ == nullptr || !at_start_ || place_ != Place::kText) return false;
  const size_t at = buffer_.find_first_not_of(kMarkupSpace);
  if (at == std::string::npos || (buffer_[at] != '{' && buffer_[at] != '[')) return false;
  Write(absl::string_view(buffer_).substr(0, at));
  buffer_.erase(0, at);
  BeginCall(bare_form_, "");
  return true;
}

void MarkupParser::Pass(const Mark& mark) {
  switch (mark.kind) {
    case Mark::Kind::kReasoningBegin:
      Enter(Place::kReasoning);
      drop_space_ = true;
      return;
    case Mark::Kind::kReasoningEnd:
      Enter(Place::kText);
      drop_space_ = true;
      return;
    case Mark::Kind::kIgnored:
      space_.clear();
      drop_space_ = true;
      return;
    case Mark::Kind::kCall:
      return BeginCall(mark.form, mark.text);
  }
}

void MarkupParser::BeginCall(const CallForm* form, absl::string_view mark) {
  outer_ = place_;
  place_ = Place::kCall;
  form_ = form;
  mark_ = std::string(mark);
}

bool MarkupParser::RunCall() {
  if (reader_ == nullptr) {
    const size_t first = buffer_.find_first_not_of(kMarkupSpace);
    if (first == std::string::npos) return false;
    const bool json =
        form_->body == CallBody::kNamed && (buffer_[first] == '{' || buffer_[first] == '[');
    reader_ = json ? MakeJsonCalls(form_, &options_.tools, &writer_)
                   : MakeCallReader(form_, &options_.tools, &writer_);
  }
  switch (reader_->Read(&buffer_)) {
    case CallReader::State::kMore:
      return false;
    case CallReader::State::kDone:
      reader_.reset();
      at_start_ = false;
      Enter(Place::kText);
      drop_space_ = true;
      return true;
    case CallReader::State::kFailed:
      GiveBackCall();
      return true;
  }
  return false;
}

// Its mark is text; what follows is looked through again.
void MarkupParser::GiveBackCall() {
  const bool committed = reader_ != nullptr && reader_->committed();
  if (reader_ != nullptr) buffer_.insert(0, reader_->raw());
  reader_.reset();
  at_start_ = false;
  place_ = committed ? Place::kText : outer_;
  if (committed) {
    space_.clear();
    drop_space_ = true;
  } else {
    Write(mark_);
  }
  ListMarks();
}

void MarkupParser::Write(absl::string_view text) {
  if (drop_space_) text = absl::StripLeadingAsciiWhitespace(text);
  const size_t last = text.find_last_not_of(kMarkupSpace);
  if (last == absl::string_view::npos) {
    space_.append(text.data(), text.size());
    if (marks_.empty() && !at_start_) WriteSpace();
    return;
  }
  drop_space_ = false;
  WriteSpace();
  const bool reasoning = place_ == Place::kReasoning;
  const absl::string_view solid = text.substr(0, last + 1);
  if (reasoning) {
    writer_.Reasoning(solid);
  } else {
    writer_.Text(solid);
  }
  space_ = std::string(text.substr(last + 1));
  if (!reasoning && at_start_) {
    at_start_ = false;
    ListMarks();
  }
  if (marks_.empty()) WriteSpace();
}

void MarkupParser::WriteSpace() {
  if (place_ == Place::kReasoning) {
    writer_.Reasoning(space_);
  } else {
    writer_.Text(space_);
  }
  space_.clear();
}

}  // namespace tessera::server
