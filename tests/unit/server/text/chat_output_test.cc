// Answers of each format: whole, cut at every place, broken, and from random pieces.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/text/chat_output/answer_format.h"
#include "server/text/chat_output/call_reader.h"
#include "server/text/chat_output/json_scanner.h"
#include "server/text/utf8.h"
#include "tests/support/parse_pieces.h"
#include "tests/unit/server/text/chat_output_examples.h"

namespace tessera::server {
namespace {

using Pieces = std::vector<std::string>;

constexpr char kTools[] = R"([
  {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties":
    {"place": {"type": "string"}, "days": {"type": "integer"}, "raw": {"type": ["string", "null"]},
     "list": {"type": "array"}}}}},
  {"type": "function", "function": {"name": "größe"}}, {"type": "other"}, 7])";

// Control tokens of a vocabulary that has some of every family's.
TokenBytes Vocabulary() {
  TokenBytes tokens;
  tokens.Add("a", TokenKind::kNormal);
  tokens.Add("<tool_call>", TokenKind::kUserDefined);
  for (const char* name : {"<|python_tag|>",
                           "[TOOL_CALLS]",
                           "[ARGS]",
                           "[CALL_ID]",
                           "<｜tool▁calls▁begin｜>",
                           "<｜tool▁calls▁end｜>",
                           "<｜tool▁call▁begin｜>",
                           "<｜tool▁call▁end｜>",
                           "<｜tool▁sep｜>",
                           "<|start|>",
                           "<|channel|>",
                           "<|message|>",
                           "<|constrain|>",
                           "<|end|>",
                           "<|call|>",
                           "<|return|>",
                           "<|tool_call|>",
                           "<|START_ACTION|>",
                           "<|END_ACTION|>",
                           "<|START_THINKING|>",
                           "<|END_THINKING|>",
                           "<|START_RESPONSE|>",
                           "<|END_RESPONSE|>",
                           "<|tool_call_begin|>",
                           "<|tool_call_argument_begin|>",
                           "<|tool_call_end|>",
                           "<|tool_calls_section_begin|>",
                           "<|tool_calls_section_end|>",
                           "[THINK]",
                           "[/THINK]"}) {
    tokens.Add(name, TokenKind::kControl);
  }
  return tokens;
}

std::shared_ptr<const ChatOutput> OutputOf(const AnswerExample& example) {
  const auto output = ChatOutput::Choose(example.format, example.chat_template, Vocabulary());
  EXPECT_TRUE(output.ok()) << output.status();
  return output.ok() ? *output : nullptr;
}

// Marks that are control tokens, and characters.
Pieces PiecesOf(const ChatOutput& output, absl::string_view answer) {
  const TokenBytes vocabulary = Vocabulary();
  Pieces pieces;
  while (!answer.empty()) {
    std::string piece;
    for (TokenId id = 0; id < vocabulary.size(); ++id) {
      const absl::string_view name = vocabulary.bytes(id);
      if (output.IsMark(name) && absl::StartsWith(answer, name)) piece = std::string(name);
    }
    const size_t bytes = piece.empty() ? DecodeUtf8(answer, 0).length : piece.size();
    pieces.push_back(piece.empty() ? std::string(answer.substr(0, bytes)) : ControlMarker(piece));
    answer.remove_prefix(bytes);
  }
  return pieces;
}

AnswerOptions OptionsOf(const AnswerExample& example) {
  AnswerOptions options;
  options.tools = OfferedTools(kTools);
  options.prompt = example.prompt;
  options.id_seed = 7;
  return options;
}

ChatParts Parse(const ChatOutput& output, AnswerOptions options, const Pieces& pieces) {
  return ParsePieces(output.MakeParser(std::move(options)).get(), pieces);
}

// Pieces joined into random runs.
Pieces Joined(const Pieces& pieces, std::mt19937* random) {
  Pieces joined;
  for (const std::string& piece : pieces) {
    if (joined.empty() || (*random)() % 3 == 0) joined.emplace_back();
    joined.back() += piece;
  }
  return joined;
}

std::string Show(const ChatParts& parts) {
  std::string shown = absl::StrCat("text ", parts.text, "\nreasoning ", parts.reasoning);
  for (const ToolCallDelta& call : parts.calls) {
    absl::StrAppend(&shown, "\ncall ", call.index, " ", call.id, " ", call.name, " ",
                    call.arguments);
  }
  return shown;
}

TEST(ChatOutput, AnswersAreTakenApart) {
  for (const AnswerExample& example : AnswerExamples()) {
    const auto output = OutputOf(example);
    const ChatParts parts = Parse(*output, OptionsOf(example), PiecesOf(*output, example.answer));
    EXPECT_EQ(parts.text, example.text) << example.answer;
    EXPECT_EQ(parts.reasoning, example.reasoning) << example.answer;
    ASSERT_EQ(parts.calls.size(), example.calls.size()) << example.answer << "\n" << Show(parts);
    for (size_t i = 0; i < parts.calls.size(); ++i) {
      EXPECT_EQ(parts.calls[i].index, i);
      EXPECT_FALSE(parts.calls[i].id.empty());
      EXPECT_EQ(parts.calls[i].name, example.calls[i].first) << example.answer;
      EXPECT_EQ(parts.calls[i].arguments, example.calls[i].second) << example.answer;
    }
  }
}

TEST(ChatOutput, PartsDoNotDependOnWhereTheTextIsCut) {
  std::mt19937 random(1);
  for (const AnswerExample& example : AnswerExamples()) {
    const auto output = OutputOf(example);
    const Pieces pieces = PiecesOf(*output, example.answer);
    const std::string whole = Show(Parse(*output, OptionsOf(example), {absl::StrJoin(pieces, "")}));
    EXPECT_EQ(Show(Parse(*output, OptionsOf(example), pieces)), whole) << example.answer;
    for (int i = 0; i < 20; ++i) {
      ASSERT_EQ(Show(Parse(*output, OptionsOf(example), Joined(pieces, &random))), whole)
          << example.answer;
    }
  }
}

// Pieces of all answers in any order: the same wherever they are cut, and no text is made up.
TEST(ChatOutput, RandomAnswersAreCutAnywhere) {
  std::mt19937 random(2);
  for (const AnswerFormat& format : AnswerFormats()) {
    Pieces parts = {"\n", " ", "x", "{", "}", "\"", "name", "[", "]", ",", ";", ":", "```", "é"};
    for (const AnswerExample& example : AnswerExamples()) {
      if (std::string(example.format) != format.name) continue;
      const auto output = OutputOf(example);
      const Pieces pieces = PiecesOf(*output, example.answer);
      for (size_t begin = 0; begin < pieces.size(); begin += 1 + random() % 9) {
        const size_t end = std::min(pieces.size(), begin + 1 + random() % 30);
        std::string part;
        for (size_t i = begin; i < end; ++i) part += pieces[i];
        parts.push_back(std::move(part));
      }
    }
    const AnswerExample any{.format = format.name, .prompt = random() % 2 == 0 ? "<think>" : ""};
    const auto output = OutputOf(any);
    for (int round = 0; round < 300; ++round) {
      std::string answer;
      for (size_t i = 0; i < 1 + random() % 12; ++i) answer += parts[random() % parts.size()];
      Pieces pieces;
      for (size_t at = 0; at < answer.size();) {
        size_t end = answer[at] == kControlBegin ? answer.find(kControlEnd, at) + 1
                                                 : at + DecodeUtf8(answer, at).length;
        pieces.push_back(answer.substr(at, end - at));
        at = end;
      }
      const std::string whole = Show(Parse(*output, OptionsOf(any), {answer}));
      ASSERT_EQ(Show(Parse(*output, OptionsOf(any), pieces)), whole) << format.name << "\n"
                                                                     << answer;
      ASSERT_EQ(Show(Parse(*output, OptionsOf(any), Joined(pieces, &random))), whole)
          << format.name << "\n"
          << answer;
    }
  }
}

TEST(ChatOutput, NoMoreIsHeldBackThanMayBecomeMarkup) {
  const AnswerExample hermes{.format = "hermes"};
  const auto output = OutputOf(hermes);
  const auto parser = output->MakeParser(OptionsOf(hermes));
  const auto push = [&](absl::string_view text) {
    ChatParts parts;
    parser->Push(text, &parts);
    return Show(parts);
  };
  EXPECT_EQ(push("a <"), "text a\nreasoning ");
  EXPECT_EQ(push("b"), "text  <b\nreasoning ");
  EXPECT_EQ(push("\n<tool_call>{\"name\": \"f\", \"argu"), "text \nreasoning ");
  const std::string begun = push("ments\": {\"a\"");
  EXPECT_TRUE(absl::StrContains(begun, " f {\"a\"")) << begun;
  EXPECT_EQ(push(": 1"), "text \nreasoning \ncall 0   : 1");
}

TEST(ChatOutput, TextThatSpellsAControlTokenIsText) {
  const AnswerExample mistral{.format = "mistral"};
  const auto output = OutputOf(mistral);
  const std::string spelled = "[TOOL_CALLS][{\"name\": \"weather\", \"arguments\": {}}]";
  const ChatParts parts = Parse(*output, OptionsOf(mistral), {spelled});
  EXPECT_EQ(parts.text, spelled);
  EXPECT_TRUE(parts.calls.empty());
}

TEST(ChatOutput, WithoutToolsACallIsText) {
  const AnswerExample hermes{.format = "hermes", .chat_template = ""};
  EXPECT_EQ(OutputOf(hermes)->MakeParser({}), nullptr);
  const AnswerExample thinks{.format = "hermes"};
  const std::string call = "<tool_call>{\"name\": \"f\"}</tool_call>";
  const ChatParts parts = Parse(*OutputOf(thinks), {}, {"<think>x</think>" + call});
  EXPECT_EQ(parts.text, call);
  EXPECT_EQ(parts.reasoning, "x");
}

TEST(ChatOutput, OneCallWhenMoreAreNotWanted) {
  const AnswerExample hermes{.format = "hermes"};
  AnswerOptions options = OptionsOf(hermes);
  options.calls = AnswerOptions::Calls::kOne;
  const std::string call = "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</tool_call>";
  const ChatParts parts = Parse(*OutputOf(hermes), options, {call + call});
  ASSERT_EQ(parts.calls.size(), 1u);
  EXPECT_EQ(parts.calls[0].arguments, "{\"a\": 1}");
}

TEST(ChatOutput, IdsDifferByCallAndSeed) {
  const AnswerExample hermes{.format = "hermes"};
  const std::string call = "<tool_call>{\"name\": \"f\"}</tool_call>";
  AnswerOptions options = OptionsOf(hermes);
  const ChatParts first = Parse(*OutputOf(hermes), options, {call + call});
  options.id_seed = 8;
  const ChatParts second = Parse(*OutputOf(hermes), options, {call});
  ASSERT_EQ(first.calls.size(), 2u);
  EXPECT_EQ(first.calls[0].id.size(), 9u);
  EXPECT_NE(first.calls[0].id, first.calls[1].id);
  EXPECT_NE(first.calls[0].id, second.calls[0].id);
  // A model's own id is kept.
  const AnswerExample kimi{.format = "kimi"};
  const ChatParts own = Parse(*OutputOf(kimi), OptionsOf(kimi),
                              {ControlMarker("<|tool_call_begin|>"), "functions.f:3",
                               ControlMarker("<|tool_call_argument_begin|>"), "{}"});
  ASSERT_EQ(own.calls.size(), 1u);
  EXPECT_EQ(own.calls[0].id, "functions.f:3");
}

TEST(ChatOutput, HugeHeadsAreNoCalls) {
  const AnswerExample hermes{.format = "hermes"};
  const std::string head = "<tool_call>{\"x\": \"" + std::string(CallReader::kMaxHeadBytes, 'a');
  EXPECT_EQ(Parse(*OutputOf(hermes), OptionsOf(hermes), {head}).text, head);
  std::string deep = "<tool_call>{\"x\": " + std::string(JsonScanner::kMaxDepth + 1, '[');
  EXPECT_EQ(Parse(*OutputOf(hermes), OptionsOf(hermes), {deep}).text, deep);
}

TEST(ChatOutput, AFormatIsChosenByTheTemplateOrByName) {
  const TokenBytes tokens = Vocabulary();
  const auto name = [&](const char* setting, const char* chat_template) -> std::string {
    const auto output = ChatOutput::Choose(setting, chat_template, tokens);
    if (!output.ok()) return std::string(output.status().message());
    return *output == nullptr ? "null" : (*output)->name();
  };
  EXPECT_EQ(name("auto", "{{ messages }}"), "null");
  EXPECT_EQ(name("auto", "x</think>"), "reasoning");
  EXPECT_EQ(name("auto", "<tool_call>"), "hermes");
  EXPECT_EQ(name("auto", "<tool_call><function=a><parameter=b>"), "qwen3_coder");
  EXPECT_EQ(name("none", "<tool_call>"), "null");
  EXPECT_EQ(name("mistral", "<tool_call>"), "mistral");
  EXPECT_TRUE(absl::StrContains(name("mistrel", ""), "models[].chat_output"));
  EXPECT_TRUE(absl::StrContains(name("mistrel", ""), "hermes"));
}

TEST(ChatOutput, NoMarkIsPartOfAnother) {
  for (const AnswerFormat& format : AnswerFormats()) {
    Markup markup = format.markup;
    std::vector<std::string> begins = markup.ignored;
    for (const CallForm& form : markup.calls) begins.push_back(form.begin);
    if (!markup.reasoning_begin.empty()) begins.push_back(markup.reasoning_begin);
    ForEachMark(&markup, [&](std::string* mark) {
      EXPECT_LE(mark->size(), CallReader::kMaxMarkBytes) << *mark;
    });
    for (const std::string& a : begins) {
      for (const std::string& b : begins) {
        EXPECT_TRUE(a == b || a.empty() || !absl::StrContains(b, a)) << a << " in " << b;
      }
    }
  }
}

TEST(JsonScanner, TakesWhatNlohmannTakes) {
  std::mt19937 random(3);
  const Pieces parts = {"{", "}", "[",  "]",  "\"a\"", "\"",   "\\",      ":",  ",", " ",
                        "1", "-", ".5", "e3", "true",  "null", "\\u00e9", "\n", "0"};
  int valid = 0;
  for (int round = 0; round < 200000; ++round) {
    std::string text = random() % 2 == 0 ? "[" : "{\"k\":";
    for (size_t i = 0; i < random() % 8; ++i) text += parts[random() % parts.size()];
    JsonScanner scanner;
    JsonScanner::Result result = JsonScanner::Result::kMore;
    size_t at = 0;
    while (at < text.size() && result == JsonScanner::Result::kMore)
      result = scanner.Push(text[at++]);
    const bool whole = result == JsonScanner::Result::kDone &&
                       text.find_first_not_of(" \n", at) == std::string::npos;
    ASSERT_EQ(whole, nlohmann::json::accept(text)) << text;
    valid += whole ? 1 : 0;
  }
  EXPECT_GT(valid, 1000);
}

}  // namespace
}  // namespace tessera::server
