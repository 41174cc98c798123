// Takes one answer apart while it is written.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "server/text/chat_output/chat_parts.h"
#include "server/text/chat_output/offered_tools.h"

namespace tessera::server {

// A control token inside a parser's text: its name between two bytes that no UTF-8 text has, so
// that text which spells the name is not taken for the token.
inline constexpr char kControlBegin = '\xFF';
inline constexpr char kControlEnd = '\xFE';
[[nodiscard]] std::string ControlMarker(absl::string_view name);

struct AnswerOptions {
  OfferedTools tools;
  std::string prompt;  // its last bytes: a template may have begun the answer
  enum class Calls : uint8_t { kAny, kOne } calls = Calls::kAny;  // kOne: others are left out
  enum class Special : uint8_t { kSkip, kShow } special = Special::kSkip;  // of control tokens
  uint64_t id_seed = 0;                                                    // of the ids of calls
};

// Where a parser writes.
class AnswerWriter {
 public:
  explicit AnswerWriter(const AnswerOptions& options);

  void set_out(ChatParts* out) { out_ = out; }
  void Text(absl::string_view text) { AppendPlain(text, &out_->text); }
  void Reasoning(absl::string_view text) { AppendPlain(text, &out_->reasoning); }
  // `id`: the model's own; empty: one is made of nine letters and digits, which every template
  // takes.
  void BeginCall(absl::string_view name, absl::string_view id);
  // Of the call that was begun last.
  void Arguments(absl::string_view text);

 private:
  // Without control tokens, or with their names.
  void AppendPlain(absl::string_view text, std::string* out) const;

  const AnswerOptions::Calls limit_;
  const AnswerOptions::Special special_;
  const uint64_t id_seed_;
  ChatParts* out_ = nullptr;
  uint32_t calls_ = 0;
  bool silent_ = false;
};

// One answer's; not thread-safe. However its text is cut, the parts are the same, and no more is
// held back than what may yet become markup.
class AnswerParser {
 public:
  virtual ~AnswerParser() = default;
  // Appends what is known by now to `out`. `text`: whole characters, or a ControlMarker.
  virtual void Push(absl::string_view text, ChatParts* out) = 0;
  // The answer has ended.
  virtual void Finish(ChatParts* out) = 0;
};

}  // namespace tessera::server
