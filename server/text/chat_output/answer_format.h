// The table of answer formats: one file each under formats/, found by its name.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "config/foundation/status.h"
#include "server/text/chat_output/answer_parser.h"
#include "server/text/chat_output/markup.h"
#include "server/text/token_bytes.h"

namespace tessera::server {

struct AnswerFormat {
  const char* name = "";
  // Whether a chain with this chat template answers so. At most one format says yes.
  bool (*recognises)(absl::string_view chat_template) = nullptr;
  Markup markup;
  // `markup` outlives the parser.
  std::unique_ptr<AnswerParser> (*make)(const Markup* markup, AnswerOptions options) = nullptr;
};

class AnswerFormatRegistry {
 public:
  void Add(AnswerFormat format) { formats_.push_back(std::move(format)); }
  [[nodiscard]] const std::vector<AnswerFormat>& formats() const { return formats_; }

 private:
  std::vector<AnswerFormat> formats_;
};

// Generated: calls Register_<file> of each file in formats/.
void RegisterAnswerFormats(AnswerFormatRegistry& registry);
[[nodiscard]] const std::vector<AnswerFormat>& AnswerFormats();

// Makes a MarkupParser.
[[nodiscard]] std::unique_ptr<AnswerParser> MakeMarkupParser(const Markup* markup,
                                                             AnswerOptions options);

// How one chain's answers are taken apart. Immutable, thread-safe.
class ChatOutput {
 public:
  // `setting`: "auto" (by the template), "none", or a format's name; INVALID_ARGUMENT naming the
  // known ones for any other. Null when there is nothing to take apart. Reasoning between marks of
  // its own is known by the template, whatever the format.
  static StatusOr<std::shared_ptr<const ChatOutput>> Choose(absl::string_view setting,
                                                            absl::string_view chat_template,
                                                            const TokenBytes& tokens);

  // The format's name; "reasoning" when nothing but reasoning is marked.
  [[nodiscard]] const std::string& name() const { return name_; }
  // Null when the answer is nothing but text: no tools are offered, no reasoning is known. This
  // object outlives the parser.
  [[nodiscard]] std::unique_ptr<AnswerParser> MakeParser(AnswerOptions options) const;
  // Whether a control token called `name` means something to the parser.
  [[nodiscard]] bool IsMark(absl::string_view name) const;

 private:
  ChatOutput(std::string name, const AnswerFormat& format)
      : name_(std::move(name)), format_(format) {}

  const std::string name_;
  AnswerFormat format_;                     // its marks as this vocabulary has them
  std::vector<std::string> control_marks_;  // sorted names
};

}  // namespace tessera::server
