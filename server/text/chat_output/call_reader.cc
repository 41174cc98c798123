#include "server/text/chat_output/call_reader.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"

namespace tessera::server {
namespace {

bool CanBeName(absl::string_view name) {
  constexpr absl::string_view kNever = "{}[]()<>\"'`,;";
  return !name.empty() && name.size() <= CallReader::kMaxNameBytes &&
         std::all_of(name.begin(), name.end(), [&](char c) {
           const auto byte = static_cast<uint8_t>(c);
           return byte > 0x20 && byte < 0xF8 && kNever.find(c) == absl::string_view::npos;
         });
}

}  // namespace

MarkMatch MatchMark(absl::string_view text, absl::string_view mark) {
  if (absl::StartsWith(text, mark)) return MarkMatch::kYes;
  return absl::StartsWith(mark, text) ? MarkMatch::kPart : MarkMatch::kNo;
}

size_t PartialMarkBytes(absl::string_view text, absl::string_view mark) {
  for (size_t count = std::min(text.size(), mark.size() - 1); count > 0; --count) {
    if (absl::EndsWith(text, mark.substr(0, count))) return count;
  }
  return 0;
}

void ForEachMark(Markup* markup, const std::function<void(std::string*)>& visit) {
  const auto each = [&](std::string* mark) {
    if (!mark->empty()) visit(mark);
  };
  each(&markup->reasoning_begin);
  each(&markup->reasoning_end);
  for (std::string& mark : markup->ignored) each(&mark);
  for (CallForm& form : markup->calls) {
    for (std::string* mark :
         {&form.begin, &form.end, &form.id_begin, &form.arguments_begin, &form.open, &form.name_end,
          &form.key_begin, &form.key_end, &form.value_begin, &form.value_end, &form.close}) {
      each(mark);
    }
  }
}

void CallReader::Take(std::string* buffer, size_t count) {
  if (keeps_raw_) raw_.append(*buffer, 0, count);
  buffer->erase(0, count);
}

bool CallReader::Commit(absl::string_view name, absl::string_view id) {
  name = absl::StripAsciiWhitespace(name);
  if (!CanBeName(name)) return false;
  if (form_.begin.empty() && !tools_.Has(name)) return false;
  writer_.BeginCall(name, absl::StripAsciiWhitespace(id));
  committed_ = true;
  keeps_raw_ = false;
  raw_.clear();
  return true;
}

CallReader::State CallReader::ReadVerbatim(std::string* buffer) {
  const size_t end = form_.end.empty() ? std::string::npos : buffer->find(form_.end);
  if (end != std::string::npos) {
    writer_.Arguments(absl::string_view(*buffer).substr(0, end));
    buffer->erase(0, end + form_.end.size());
    return State::kDone;
  }
  const size_t held = form_.end.empty() ? 0 : PartialMarkBytes(*buffer, form_.end);
  writer_.Arguments(absl::string_view(*buffer).substr(0, buffer->size() - held));
  buffer->erase(0, buffer->size() - held);
  return State::kMore;
}

std::unique_ptr<CallReader> MakeCallReader(const CallForm* form, const OfferedTools* tools,
                                           AnswerWriter* writer) {
  switch (form->body) {
    case CallBody::kJson:
      return MakeJsonCalls(form, tools, writer);
    case CallBody::kNamed:
      return MakeNamedCall(form, tools, writer);
    case CallBody::kTagged:
      return MakeTaggedCall(form, tools, writer);
  }
  return nullptr;
}

}  // namespace tessera::server
