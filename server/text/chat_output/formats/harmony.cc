// gpt-oss: an answer is messages, each with a header that names its channel and whom it is for.
#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/strip.h"
#include "server/text/chat_output/answer_format.h"
#include "server/text/chat_output/call_reader.h"

namespace tessera::server {
namespace {

// Positions in Markup::ignored.
enum HarmonyMark : size_t {
  kStartMark,
  kChannelMark,
  kMessageMark,
  kConstrainMark,
  kEndMark,
  kCallMark,
  kReturnMark,
  kMarkCount
};
constexpr std::array<const char*, kMarkCount> kMarkNames = {
    "<|start|>", "<|channel|>", "<|message|>", "<|constrain|>",
    "<|end|>",   "<|call|>",    "<|return|>"};

class HarmonyParser final : public AnswerParser {
 public:
  HarmonyParser(const Markup* markup, AnswerOptions options)
      : markup_(*markup), options_(std::move(options)), writer_(options_) {
    ContinuePrompt();
  }

  void Push(absl::string_view text, ChatParts* out) override {
    writer_.set_out(out);
    buffer_.append(text.data(), text.size());
    Run();
  }

  void Finish(ChatParts* out) override {
    writer_.set_out(out);
    if (place_ == Place::kHeader && bare_ && !channel_seen_) {
      // No message: what there is, is text.
      Begin(Kind::kText);
      Write(header_);
    }
    if (place_ == Place::kBody) Write(buffer_);
    buffer_.clear();
  }

 private:
  enum class Place : uint8_t { kHeader, kBody };
  enum class Kind : uint8_t { kText, kReasoning, kCall };

  // What the prompt has begun after its last start mark.
  void ContinuePrompt() {
    const absl::string_view prompt = options_.prompt;
    const size_t start = prompt.rfind(kMarkNames[kStartMark]);
    if (start == absl::string_view::npos) return;
    const absl::string_view begun = prompt.substr(start);
    const size_t message = begun.find(kMarkNames[kMessageMark]);
    if (message == absl::string_view::npos) return;
    const size_t channel = begun.find(kMarkNames[kChannelMark]);
    const bool reasons =
        channel < message && absl::StartsWith(begun.substr(channel), "<|channel|>analysis");
    Begin(reasons ? Kind::kReasoning : Kind::kText);
  }

  void Run() {
    while (true) {
      size_t at = std::string::npos;
      size_t found = kMarkCount;
      size_t held = 0;
      for (size_t i = 0; i < kMarkCount; ++i) {
        const std::string& mark = markup_.ignored[i];
        const size_t place = buffer_.find(mark);
        if (place < at) {
          at = place;
          found = i;
        }
        held = std::max(held, PartialMarkBytes(buffer_, mark));
      }
      const size_t count = found == kMarkCount ? buffer_.size() - held : at;
      Read(absl::string_view(buffer_).substr(0, count));
      buffer_.erase(0, count);
      if (found == kMarkCount) return;
      buffer_.erase(0, markup_.ignored[found].size());
      Pass(static_cast<HarmonyMark>(found));
    }
  }

  void Read(absl::string_view text) {
    if (place_ == Place::kBody) return Write(text);
    header_.append(text.data(), text.size());
    // A header is a role, whom it is for, and marks; without a start mark it has no role.
    const absl::string_view begun = absl::StripLeadingAsciiWhitespace(header_);
    const bool other = bare_ && !channel_seen_ && MatchMark(begun, "to=") == MarkMatch::kNo;
    if (!other && header_.size() <= CallReader::kMaxNameBytes) return;
    Begin(Kind::kText);
    Write(header_);
  }

  void Pass(HarmonyMark mark) {
    switch (mark) {
      case kStartMark:
      case kEndMark:
      case kCallMark:
      case kReturnMark:
        place_ = Place::kHeader;
        header_.clear();
        channel_seen_ = false;
        bare_ = mark != kStartMark;
        return;
      case kChannelMark:
        if (place_ == Place::kBody) header_.clear();
        place_ = Place::kHeader;
        channel_at_ = header_.size();
        channel_seen_ = true;
        return;
      case kConstrainMark:
        header_ += ' ';
        return;
      case kMessageMark:
        if (place_ == Place::kHeader) BeginMessage();
        return;
      case kMarkCount:
        return;
    }
  }

  void BeginMessage() {
    const size_t to = header_.find("to=");
    if (to != std::string::npos && !options_.tools.empty()) {
      absl::string_view name = absl::string_view(header_).substr(to + 3);
      name = name.substr(0, name.find_first_of(kMarkupSpace));
      // The channel's word follows without a space where the mark stood.
      if (channel_seen_ && channel_at_ > to + 3) name = name.substr(0, channel_at_ - to - 3);
      absl::ConsumePrefix(&name, "functions.");
      if (!name.empty()) {
        Begin(Kind::kCall);
        writer_.BeginCall(name, "");
        return;
      }
    }
    const absl::string_view channel =
        channel_seen_ ? absl::string_view(header_).substr(channel_at_) : "";
    Begin(absl::StartsWith(channel, "analysis") ? Kind::kReasoning : Kind::kText);
  }

  void Begin(Kind kind) {
    place_ = Place::kBody;
    kind_ = kind;
    separate_ = kind != Kind::kCall && written_[static_cast<size_t>(kind)];
  }

  void Write(absl::string_view text) {
    if (text.empty()) return;
    if (kind_ == Kind::kCall) return writer_.Arguments(text);
    // Between two messages of a kind.
    if (std::exchange(separate_, false)) WriteKind("\n");
    written_[static_cast<size_t>(kind_)] = true;
    WriteKind(text);
  }

  void WriteKind(absl::string_view text) {
    if (kind_ == Kind::kReasoning) {
      writer_.Reasoning(text);
    } else {
      writer_.Text(text);
    }
  }

  const Markup& markup_;
  const AnswerOptions options_;
  AnswerWriter writer_;
  std::string buffer_;
  Place place_ = Place::kHeader;
  std::string header_;  // without its marks
  bool bare_ = true;    // no start mark before it, but perhaps in the prompt
  bool channel_seen_ = false;
  size_t channel_at_ = 0;  // in the header
  Kind kind_ = Kind::kText;
  std::array<bool, 2> written_{};  // by kind
  bool separate_ = false;
};

bool IsHarmony(absl::string_view chat_template) {
  return absl::StrContains(chat_template, kMarkNames[kChannelMark]) &&
         absl::StrContains(chat_template, kMarkNames[kMessageMark]);
}

std::unique_ptr<AnswerParser> MakeHarmonyParser(const Markup* markup, AnswerOptions options) {
  return std::make_unique<HarmonyParser>(markup, std::move(options));
}

}  // namespace

void Register_harmony(AnswerFormatRegistry& registry) {
  registry.Add({.name = "harmony",
                .recognises = IsHarmony,
                .markup = {.ignored = {kMarkNames.begin(), kMarkNames.end()}},
                .make = MakeHarmonyParser});
}

}  // namespace tessera::server
