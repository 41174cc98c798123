// From the engine's token events to text: bytes of tokens, whole characters, deltas of the asked
// size.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "scheduler/stream_mailbox.h"
#include "server/core/embedding.h"
#include "server/core/loaded_model.h"
#include "server/core/output.h"
#include "server/text/chat_output/answer_parser.h"
#include "server/text/utf8.h"

namespace tessera::server {

// One request's; not thread-safe.
class OutputAssembler {
 public:
  struct Options {
    std::string request_id;
    ModelPtr model;
    uint64_t seed = 0;
    uint32_t choices = 1;
    std::vector<std::string> stop;  // what FinishedEvent::stop_index points into
    uint32_t stream_interval = 0;   // tokens a delta at least
    enum class Tokens : uint8_t { kCount, kList } tokens = Tokens::kCount;
    enum class Special : uint8_t { kSkip, kShow } special = Special::kSkip;
    // The prompt holds nothing but control tokens: the output begins a text, which costs a
    // vocabulary with leading spaces its first one.
    enum class Place : uint8_t { kContinues, kBeginsText } place = Place::kContinues;
    EmbeddingSpec embedding;  // how a pooled vector is finished
    enum class Progress : uint8_t { kHide, kShow } progress = Progress::kHide;
    // Set: the model's ChatOutput, if it has one, takes the answer apart.
    std::optional<AnswerOptions> chat;
  };
  explicit OutputAssembler(Options options);

  // Adds what the events show to `batch`.
  void Convert(const scheduler::MailboxBatch& events, OutputBatch* batch);
  // Adds what is held back for a larger delta: the request ends here.
  void HandOutHeld(OutputBatch* batch);
  // Tokens that went into batches so far, of all choices.
  [[nodiscard]] uint32_t tokens_sent() const { return tokens_sent_; }

 private:
  struct Choice {
    OutputDelta held;
    Utf8Repair repair;
    std::unique_ptr<AnswerParser> parser;  // null: all is text
    uint32_t tool_calls = 0;
    bool at_start = true;
    bool open = true;
  };

  void AddToken(const scheduler::TokenEvent& event, const scheduler::MailboxBatch& events,
                OutputBatch* batch);
  [[nodiscard]] OutputToken MakeToken(const scheduler::TokenEvent& event,
                                      const scheduler::MailboxBatch& events) const;
  void AddControl(TokenId token, Choice& choice) const;
  static void AddText(absl::string_view text, Choice& choice);
  static void AddParts(ChatParts parts, Choice& choice);
  // Nothing comes after what came.
  static void Close(Choice& choice);
  // Takes what the parser holds back.
  static void FinishParts(Choice& choice);
  [[nodiscard]] OutputFinished MakeFinished(const scheduler::FinishedEvent& event) const;
  [[nodiscard]] static bool HasSomething(const Choice& choice);
  void HandOut(Choice& choice, OutputBatch* batch);

  const Options options_;
  std::vector<Choice> choices_;
  OutputUsage usage_;
  Duration queue_wait_{};
  uint32_t tokens_sent_ = 0;
};

}  // namespace tessera::server
