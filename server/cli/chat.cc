// tessera chat: a conversation on the terminal, or one answer.
#include <unistd.h>

#include <chrono>
#include <iostream>
#include <mutex>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/cli/commands.h"
#include "server/cli/console.h"
#include "server/cli/generation_flags.h"
#include "server/cli/interrupt.h"

namespace tessera::server::cli {
namespace {

using Clock = std::chrono::steady_clock;

struct ChatOptions {
  GenerationFlags flags;
  std::optional<std::string> message;
  std::string system;
};

constexpr char kHelp[] =
    "/stats   figures of the last answer     /reset   forget the conversation\n"
    "/system TEXT   set the system prompt    /retry   answer the last message again\n"
    "/help    this                           /quit    leave (or Ctrl-D); Ctrl-C stops an answer\n";

// The answer under way, which Ctrl-C stops.
class RunningAnswer {
 public:
  CancelSwitch Begin() {
    const std::scoped_lock lock(mutex_);
    cancel_ = CancelSwitch();
    running_ = true;
    return *cancel_;
  }
  void End() {
    const std::scoped_lock lock(mutex_);
    running_ = false;
  }
  void Interrupt() {
    const std::scoped_lock lock(mutex_);
    if (!running_) {
      PrintError("\n(/quit or Ctrl-D leaves)\n");
      return;
    }
    cancel_->Cancel();
  }

 private:
  std::mutex mutex_;
  std::optional<CancelSwitch> cancel_;
  bool running_ = false;
};

struct AnswerFigures {
  GenerateFinished finished;
  double first_token_s = 0;
  double total_s = 0;
};

std::string FiguresText(const AnswerFigures& figures) {
  const GenerateFinished& f = figures.finished;
  const double rate =
      f.decode_s > 0 && f.completion_tokens > 1 ? (f.completion_tokens - 1) / f.decode_s : 0;
  return absl::StrFormat(
      "prompt %d tokens (%d from the cache), answer %d tokens, %.1f tokens/s\n"
      "first token after %s, queue %s, prefill %s, all %s; ended by %s\n",
      f.prompt_tokens, f.cached_tokens, f.completion_tokens, rate,
      HumanSeconds(figures.first_token_s), HumanSeconds(f.queue_s), HumanSeconds(f.prefill_s),
      HumanSeconds(figures.total_s), f.reason.empty() ? "interruption" : f.reason);
}

// Reasoning and calls are set apart from the answer, which alone stays in the conversation.
class AnswerPrinter {
 public:
  void Add(const GenerateDelta& delta) {
    if (!delta.reasoning.empty()) {
      Begin(Part::kReasoning);
      Print(Styled(Stream::kOut, Style::kDim, ForTerminal(delta.reasoning)));
    }
    if (!delta.text.empty()) {
      Begin(Part::kText);
      Print(ForTerminal(delta.text));
    }
    for (const GenerateToolCall& call : delta.calls) {
      if (!call.name.empty()) {
        if (part_ == Part::kCall) {
          Print("\n");
        }
        Begin(Part::kCall);
        Print(absl::StrCat("call ", ForTerminal(call.name), " "));
      }
      Print(ForTerminal(call.arguments));
    }
  }

 private:
  enum class Part : uint8_t { kNone, kReasoning, kText, kCall };

  void Begin(Part part) {
    if (part_ != part && part_ != Part::kNone) {
      Print("\n");
    }
    part_ = part;
  }

  Part part_ = Part::kNone;
};

class Conversation {
 public:
  explicit Conversation(const ChatOptions& options)
      : client_(options.flags.endpoint), call_(CallOf(options.flags)), system_(options.system) {}

  Status Open() {
    TESSERA_ASSIGN_OR_RETURN(call_.model, client_.ChooseModel(call_.model));
    return absl::OkStatus();
  }

  [[nodiscard]] const std::string& model() const { return call_.model; }
  [[nodiscard]] const AnswerFigures& figures() const { return figures_; }
  void SetSystem(std::string text) { system_ = std::move(text); }
  void Reset() { turns_.clear(); }
  // Takes the last exchange back and returns its message; empty when there is none.
  std::string TakeBack() {
    if (turns_.size() < 2) {
      return "";
    }
    std::string message = turns_[turns_.size() - 2].content;
    turns_.resize(turns_.size() - 2);
    return message;
  }

  // Streams the answer to stdout. What was said before an interruption stays in the conversation.
  Status Say(const std::string& message, CancelSwitch cancel) {
    GenerateCall call = call_;
    if (!system_.empty()) {
      call.messages.push_back({"system", system_});
    }
    call.messages.insert(call.messages.end(), turns_.begin(), turns_.end());
    call.messages.push_back({"user", message});
    figures_ = {};
    std::string answer;
    const Clock::time_point begin = Clock::now();
    const auto elapsed = [begin] {
      return std::chrono::duration<double>(Clock::now() - begin).count();
    };
    AnswerPrinter printer;
    GenerateSink sink;
    sink.delta = [&](const GenerateDelta& delta) {
      if (figures_.first_token_s == 0) {
        figures_.first_token_s = elapsed();
      }
      answer += delta.text;
      printer.Add(delta);
    };
    sink.finished = [&](const GenerateFinished& finished) { figures_.finished = finished; };
    const Status status = client_.Generate(call, sink, std::move(cancel));
    figures_.total_s = elapsed();
    Print("\n");
    if (status.ok() || (absl::IsCancelled(status) && !answer.empty())) {
      turns_.push_back({"user", message});
      turns_.push_back({"assistant", answer});
    }
    return status;
  }

 private:
  Client client_;
  GenerateCall call_;
  std::string system_;
  std::vector<ChatTurn> turns_;
  AnswerFigures figures_;
};

// Returns false when the conversation is over.
bool RunSlashCommand(const std::string& line, Conversation& chat, std::string* message) {
  const size_t space = line.find(' ');
  const std::string word = line.substr(0, space);
  if (word == "/quit" || word == "/exit") {
    return false;
  }
  if (word == "/stats") {
    Print(FiguresText(chat.figures()));
  } else if (word == "/reset") {
    chat.Reset();
    Print("(the conversation is empty)\n");
  } else if (word == "/system") {
    chat.SetSystem(space == std::string::npos ? "" : line.substr(space + 1));
    chat.Reset();
    Print("(system prompt set, conversation empty)\n");
  } else if (word == "/retry") {
    *message = chat.TakeBack();
  } else {
    Print(kHelp);
  }
  return true;
}

Status Interactive(Conversation& chat) {
  RunningAnswer running;
  const InterruptWatcher watcher([&running] { running.Interrupt(); });
  const bool prompt = isatty(STDIN_FILENO) == 1;
  if (prompt) {
    PrintError(absl::StrCat(Styled(Stream::kErr, Style::kBold, chat.model()),
                            Styled(Stream::kErr, Style::kDim, "  /help for commands"), "\n"));
  }
  std::string line;
  while (true) {
    if (prompt) {
      PrintError(Styled(Stream::kErr, Style::kGreen, "> "));
    }
    if (!std::getline(std::cin, line)) {
      return absl::OkStatus();
    }
    std::string message(absl::StripAsciiWhitespace(line));
    if (!message.empty() && message[0] == '/') {
      const std::string words = std::exchange(message, "");
      if (!RunSlashCommand(words, chat, &message)) {
        return absl::OkStatus();
      }
    }
    if (message.empty()) {
      continue;
    }
    const Status status = chat.Say(message, running.Begin());
    running.End();
    if (!status.ok() && !absl::IsCancelled(status)) {
      PrintStatus(status);
    }
  }
}

Status RunChat(const ChatOptions& options) {
  Conversation chat(options);
  TESSERA_RETURN_IF_ERROR(chat.Open());
  if (options.message) {
    return chat.Say(*options.message, CancelSwitch());
  }
  return Interactive(chat);
}

}  // namespace

void AddChat(CommandLine& line) {
  const auto options = std::make_shared<ChatOptions>();
  Command command = line.Add("chat", "Talk to a model, or ask it one thing");
  command.Option("--message", &options->message, "ask this and print the answer only");
  command.Option("--system", &options->system, "system prompt");
  AddGenerationFlags(command, &options->flags);
  command.Examples(
      "  tessera chat                                        interactive; /help lists commands\n"
      "  tessera chat --model m --message \"Who are you?\"     one answer on stdout\n"
      "  tessera chat --system \"Answer in French.\" --temperature 0.7 --seed 1");
  command.Run([options] { return RunChat(*options); });
}

}  // namespace tessera::server::cli
