// Reads what stands after the mark that begins a call.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <utility>

#include "server/text/chat_output/answer_parser.h"
#include "server/text/chat_output/markup.h"

namespace tessera::server {

// Of one occurrence of a form; not thread-safe. A call is told to the writer as soon as its name is
// known and its arguments begin; what is read before that can be taken back.
class CallReader {
 public:
  static constexpr size_t kMaxNameBytes = 256;
  // Of what is kept until a call's name is known; more is no call.
  static constexpr size_t kMaxHeadBytes = size_t{64} << 10;

  // Longest mark; format tables are tested for it.
  static constexpr size_t kMaxMarkBytes = 64;

  enum class State : uint8_t {
    kMore,   // the buffer's rest is needed, with what follows
    kDone,   // the call has ended; the buffer's rest is not of it
    kFailed  // `raw()` and the buffer's rest are no call
  };
  CallReader(const CallForm* form, const OfferedTools* tools, AnswerWriter* writer)
      : form_(*form), tools_(*tools), writer_(*writer) {}
  virtual ~CallReader() = default;
  CallReader(const CallReader&) = delete;
  CallReader& operator=(const CallReader&) = delete;

  // Takes what it reads from the buffer's front.
  virtual State Read(std::string* buffer) = 0;
  // The answer has ended: kDone or kFailed.
  virtual State Finish(std::string* buffer) = 0;
  // A call was told.
  [[nodiscard]] bool committed() const { return committed_; }
  // What was taken since the last call that was told, or since the beginning.
  [[nodiscard]] const std::string& raw() const { return raw_; }

 protected:
  // Moves the buffer's first `count` bytes to raw(), or out of the way once a call was told.
  void Take(std::string* buffer, size_t count);
  // Tells the call when `name` can be one; space around it does not count.
  [[nodiscard]] bool Commit(absl::string_view name, absl::string_view id);
  // A name or key whose end is at `end`, or not within the `size` bytes that are known, is none.
  [[nodiscard]] static bool TooLong(size_t end, size_t size) {
    return end == std::string::npos ? size > kMaxNameBytes + kMaxMarkBytes : end > kMaxNameBytes;
  }
  // Of arguments that are no JSON: all up to the form's end goes into them as it is.
  State ReadVerbatim(std::string* buffer);

  const CallForm& form_;
  const OfferedTools& tools_;
  AnswerWriter& writer_;
  bool committed_ = false;
  bool keeps_raw_ = true;  // raw() is being kept
  std::string raw_;
};

[[nodiscard]] std::unique_ptr<CallReader> MakeJsonCalls(const CallForm* form,
                                                        const OfferedTools* tools,
                                                        AnswerWriter* writer);
[[nodiscard]] std::unique_ptr<CallReader> MakeNamedCall(const CallForm* form,
                                                        const OfferedTools* tools,
                                                        AnswerWriter* writer);
[[nodiscard]] std::unique_ptr<CallReader> MakeTaggedCall(const CallForm* form,
                                                         const OfferedTools* tools,
                                                         AnswerWriter* writer);
[[nodiscard]] std::unique_ptr<CallReader> MakeCallReader(const CallForm* form,
                                                         const OfferedTools* tools,
                                                         AnswerWriter* writer);

inline constexpr char kMarkupSpace[] = " \n\r\t";
// Whether `text` begins with `mark`, or may when more of it is known.
enum class MarkMatch : uint8_t { kNo, kPart, kYes };
[[nodiscard]] MarkMatch MatchMark(absl::string_view text, absl::string_view mark);
// How many bytes at the end of `text` may be the beginning of `mark`.
[[nodiscard]] size_t PartialMarkBytes(absl::string_view text, absl::string_view mark);

}  // namespace tessera::server
