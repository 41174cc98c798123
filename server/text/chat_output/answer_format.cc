#include "server/text/chat_output/answer_format.h"

#include <algorithm>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/text/chat_output/markup_parser.h"

namespace tessera::server {
namespace {

struct ReasoningMarks {
  const char* begin;
  const char* end;
};
constexpr ReasoningMarks kReasoningMarks[] = {
    {"<think>", "</think>"}, {"[THINK]", "[/THINK]"}, {"<seed:think>", "</seed:think>"}};

// Marks of reasoning that the template mentions, unless the format has its own.
void AddReasoning(absl::string_view chat_template, Markup* markup) {
  if (!markup->reasoning_begin.empty()) return;
  for (const ReasoningMarks& marks : kReasoningMarks) {
    if (!absl::StrContains(chat_template, marks.end)) continue;
    markup->reasoning_begin = marks.begin;
    markup->reasoning_end = marks.end;
    return;
  }
}

StatusOr<const AnswerFormat*> FindFormat(absl::string_view setting,
                                         absl::string_view chat_template) {
  std::vector<std::string> names = {"auto", "none"};
  for (const AnswerFormat& format : AnswerFormats()) {
    const bool chosen =
        setting == "auto" ? format.recognises(chat_template) : setting == format.name;
    if (chosen) return &format;
    names.emplace_back(format.name);
  }
  if (setting == "auto") return nullptr;
  return Error(absl::StatusCode::kInvalidArgument,
               {absl::StrCat("unknown chat_output \"", setting, "\""), "models[].chat_output", "",
                absl::StrCat("use one of ", absl::StrJoin(names, ", "))});
}

std::set<absl::string_view> ControlNames(const TokenBytes& tokens) {
  std::set<absl::string_view> names;
  for (TokenId id = 0; id < tokens.size(); ++id) {
    if (tokens.kind(id) == TokenKind::kControl) names.insert(tokens.bytes(id));
  }
  return names;
}

}  // namespace

const std::vector<AnswerFormat>& AnswerFormats() {
  static const AnswerFormatRegistry& registry = *[] {
    auto* const made = new AnswerFormatRegistry();
    RegisterAnswerFormats(*made);
    return made;
  }();
  return registry.formats();
}

std::unique_ptr<AnswerParser> MakeMarkupParser(const Markup* markup, AnswerOptions options) {
  if (options.tools.empty() && markup->reasoning_begin.empty() && markup->ignored.empty()) {
    return nullptr;
  }
  return std::make_unique<MarkupParser>(markup, std::move(options));
}

StatusOr<std::shared_ptr<const ChatOutput>> ChatOutput::Choose(absl::string_view setting,
                                                               absl::string_view chat_template,
                                                               const TokenBytes& tokens) {
  std::shared_ptr<const ChatOutput> none;
  if (setting == "none") return none;
  TESSERA_ASSIGN_OR_RETURN(const AnswerFormat* const found, FindFormat(setting, chat_template));
  const AnswerFormat plain = {.name = "reasoning", .make = MakeMarkupParser};
  const AnswerFormat& format = found == nullptr ? plain : *found;
  std::shared_ptr<ChatOutput> made(new ChatOutput(format.name, format));
  AddReasoning(chat_template, &made->format_.markup);
  if (found == nullptr && made->format_.markup.reasoning_begin.empty()) return none;
  const std::set<absl::string_view> controls = ControlNames(tokens);
  ForEachMark(&made->format_.markup, [&](std::string* mark) {
    if (controls.count(*mark) == 0) return;
    made->control_marks_.push_back(*mark);
    *mark = ControlMarker(*mark);
  });
  std::sort(made->control_marks_.begin(), made->control_marks_.end());
  return std::shared_ptr<const ChatOutput>(std::move(made));
}

std::unique_ptr<AnswerParser> ChatOutput::MakeParser(AnswerOptions options) const {
  return format_.make(&format_.markup, std::move(options));
}

bool ChatOutput::IsMark(absl::string_view name) const {
  return std::binary_search(control_marks_.begin(), control_marks_.end(), name);
}

}  // namespace tessera::server
