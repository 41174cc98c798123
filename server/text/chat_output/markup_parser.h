// Answers whose reasoning and calls stand between marks.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "server/text/chat_output/answer_parser.h"
#include "server/text/chat_output/call_reader.h"
#include "server/text/chat_output/markup.h"

namespace tessera::server {

// Space beside markup belongs to the markup. Reasoning that the prompt has begun goes on; what is
// no call after all is text, with its mark. `markup` outlives the parser.
class MarkupParser final : public AnswerParser {
 public:
  MarkupParser(const Markup* markup, AnswerOptions options);

  void Push(absl::string_view text, ChatParts* out) override;
  void Finish(ChatParts* out) override;

 private:
  enum class Place : uint8_t { kText, kReasoning, kCall };
  struct Mark {
    absl::string_view text;
    enum class Kind : uint8_t { kReasoningBegin, kReasoningEnd, kIgnored, kCall } kind;
    const CallForm* form = nullptr;  // kCall
  };

  void Run();
  // Each reads what it can of buffer_; false: it needs more.
  bool RunText();
  bool RunCall();
  // A call that needs no mark.
  bool BeginBareCall();
  void Pass(const Mark& mark);
  void BeginCall(const CallForm* form, absl::string_view mark);
  void GiveBackCall();
  void Enter(Place place);
  void ListMarks();
  void Write(absl::string_view text);
  void WriteSpace();

  const Markup& markup_;
  const AnswerOptions options_;
  AnswerWriter writer_;
  const CallForm* bare_form_ = nullptr;
  Place place_ = Place::kText;
  std::vector<Mark> marks_;  // that may come in this place
  bool at_start_ = true;     // nothing of the answer's text has come
  bool drop_space_ = false;  // markup was before it
  std::string space_;        // after text, until it is known what follows
  std::string buffer_;
  // Of the call under way.
  const CallForm* form_ = nullptr;
  std::unique_ptr<CallReader> reader_;  // made when its first character is known
  Place outer_ = Place::kText;
  std::string mark_;
};

}  // namespace tessera::server
