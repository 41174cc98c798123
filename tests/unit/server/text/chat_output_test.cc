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

namespace tessera::server {
namespace {

using Pieces = std::vector<std::string>;

constexpr char kTools[] = R"([
  {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties":
    {"place": {"type": "string"}, "days": {"type": "integer"}, "raw": {"type": ["string", "null"]},
     "list": {"type": "array"}}}}},
  {"type": "function", "function": {"name": "größe"}}, {"type": "other"}, 7])";

struct Example {
  const char* format;
  std::string answer;
  std::string text;
  std::string reasoning;
  std::vector<std::pair<std::string, std::string>> calls;  // name, arguments
  std::string prompt;
  std::string chat_template = "</think>";  // what it mentions
};

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

std::shared_ptr<const ChatOutput> OutputOf(const Example& example) {
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

AnswerOptions OptionsOf(const Example& example) {
  AnswerOptions options;
  options.tools = OfferedTools(kTools);
  options.prompt = example.prompt;
  options.id_seed = 7;
  return options;
}

ChatParts Parse(const ChatOutput& output, AnswerOptions options, const Pieces& pieces) {
  const auto parser = output.MakeParser(std::move(options));
  ChatParts all;
  for (const std::string& piece : pieces) {
    ChatParts parts;
    parser->Push(piece, &parts);
    all.Append(std::move(parts));
  }
  ChatParts parts;
  parser->Finish(&parts);
  all.Append(std::move(parts));
  return all;
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

const std::vector<Example>& Examples() {
  static const auto& examples = *new std::vector<Example>{
      {"hermes", "Plain text.\n", "Plain text.\n"},
      {"hermes", " \n ", " \n "},
      {"hermes", "a <think> b", "a <think> b"},
      {"hermes", "<think>\nhm,\n\nyes\n</think>\n\nYes.", "Yes.", "hm,\n\nyes"},
      {"hermes", "so\n</think>\n\nYes. ", "Yes. ", "so", {}, "<|im_start|>assistant\n<think>\n"},
      {"hermes", "never ends ", "", "never ends ", {}, "<think>"},
      {"hermes",
       "Let me see.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"place\": "
       "\"Z\\u00fcrich\", "
       "\"list\": [1, {\"x\": null}, -2.5e3]}}\n</tool_call>",
       "Let me see.",
       "",
       {{"weather", R"({"place": "Z\u00fcrich", "list": [1, {"x": null}, -2.5e3]})"}}},
      {"hermes",
       "<think>r</think>\n<tool_call>\n{\"arguments\": {\"place\": \"</tool_call>\"}, \"name\": "
       "\"größe\"}\n</tool_call>\n<tool_call>{\"name\":\"weather\"}</tool_call>\n",
       "",
       "r",
       {{"größe", R"({"place": "</tool_call>"})"}, {"weather", "{}"}}},
      // Arguments as text, a forgotten end, text after a call.
      {"hermes",
       "<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": 1}\"} ok",
       "ok",
       "",
       {{"f", R"({"a": 1})"}}},
      {"hermes",
       "<tool_call>{\"name\": \"f\", \"arguments\": {}</tool_call> then",
       "then",
       "",
       {{"f", "{}"}}},
      {"hermes",
       "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}, \"parameters\": {}}</tool_call>",
       "",
       "",
       {{"f", "{\"a\": 1}"}}},
      // No calls after all: nothing is lost.
      {"hermes", "see <tool_call>oops</tool_call>", "see <tool_call>oops</tool_call>"},
      {"hermes", "<tool_call>{\"nome\": \"f\"}</tool_call>",
       "<tool_call>{\"nome\": \"f\"}</tool_call>"},
      {"hermes", "<tool_call>{\"name\": \"f\"", "<tool_call>{\"name\": \"f\""},
      {"hermes", "<tool_call>\n", "<tool_call>\n"},
      {"hermes",
       "<tool_call>[1] <tool_call>{\"name\": \"f\"}</tool_call>",
       "<tool_call>[1]",
       "",
       {{"f", "{}"}}},
      {"hermes", "a <tool_cal", "a <tool_cal"},
      // Arguments that are no JSON are passed on as they are.
      {"hermes",
       "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": tru}}</tool_call> x",
       "x",
       "",
       {{"f", "{\"a\": tru}}"}}},
      {"hermes",
       "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"cut",
       "",
       "",
       {{"f", "{\"a\": \"cut"}}},
      {"qwen3_coder",
       "I look.\n\n<tool_call>\n<function=weather>\n<parameter=place>\nA "
       "\"b\"\n\nc\\\n</parameter>\n"
       "<parameter=days>\n3\n</parameter>\n<parameter=list>\n[1, \"x\"]\n</parameter>\n"
       "<parameter=other>\n5\n</parameter>\n</function>\n</tool_call>",
       "I look.",
       "",
       {{"weather", R"({"place": "A \"b\"\n\nc\\", "days": 3, "list": [1, "x"], "other": "5"})"}}},
      {"qwen3_coder",
       "<tool_call>\n<function=größe>\n</function>\n</tool_call>\n<function=weather>"
       "<parameter=days>three</parameter></function></tool_call>",
       "",
       "",
       {{"größe", "{}"}, {"weather", R"({"days": "three"})"}}},
      {"qwen3_coder",
       "<tool_call>\n<function=weather>\n<parameter=place>\n</parameter>\nwhat",
       "what",
       "",
       {{"weather", R"({"place": ""})"}}},
      {"qwen3_coder", "<tool_call>no</tool_call>", "<tool_call>no</tool_call>"},
      {"minimax",
       "<minimax:tool_call>\n<invoke name=\"weather\">\n<parameter name=\"days\">2</parameter>\n"
       "<parameter name=\"place\">x\n</parameter>\n</invoke>\n<invoke name=\"größe\">\n</invoke>\n"
       "</minimax:tool_call>",
       "",
       "",
       {{"weather", R"({"days": 2, "place": "x\n"})"}, {"größe", "{}"}}},
      {"glm",
       "<think></think>\nOk.\n<tool_call>weather\n<arg_key>place</arg_key>\n<arg_value>Ulm</"
       "arg_value>\n"
       "<arg_key>days</arg_key>\n<arg_value>2</arg_value>\n</tool_call>\n<tool_call>größe</"
       "tool_call>",
       "Ok.",
       "",
       {{"weather", R"({"place": "Ulm", "days": 2})"}, {"größe", "{}"}}},
      {"llama3",
       "{\"name\": \"weather\", \"parameters\": {\"place\": \"Ulm\"}}",
       "",
       "",
       {{"weather", R"({"place": "Ulm"})"}}},
      {"llama3",
       "\n{\"name\": \"weather\", \"parameters\": {}}; {\"name\": \"größe\", \"parameters\": {}}",
       "",
       "",
       {{"weather", "{}"}, {"größe", "{}"}}},
      {"llama3",
       "<|python_tag|>{\"type\": \"function\", \"name\": \"other\", \"parameters\": {}}",
       "",
       "",
       {{"other", "{}"}}},
      {"llama3",
       "<function=weather>{\"place\": \"a</function>\"}</function>",
       "",
       "",
       {{"weather", R"({"place": "a</function>"})"}}},
      // JSON that is the answer.
      {"llama3", " {\"name\": \"Ann\", \"parameters\": {}}",
       " {\"name\": \"Ann\", \"parameters\": {}}"},
      {"llama3", "[1, 2]", "[1, 2]"},
      {"llama3", "It is {\"name\": \"weather\", \"parameters\": {}}",
       "It is {\"name\": \"weather\", \"parameters\": {}}"},
      {"llama3", "{\"name\": \"weather\"", "{\"name\": \"weather\""},
      {"mistral",
       "[TOOL_CALLS][{\"name\": \"weather\", \"arguments\": {\"days\": 1}, \"id\": \"abcdefghi\"}, "
       "{\"name\": \"größe\", \"arguments\": {}}]",
       "",
       "",
       {{"weather", R"({"days": 1})"}, {"größe", "{}"}}},
      {"mistral",
       "[THINK]why[/THINK]So:[TOOL_CALLS]weather[ARGS]{\"days\": 1}[TOOL_CALLS]größe"
       "[CALL_ID]123456789[ARGS]{}",
       "So:",
       "why",
       {{"weather", R"({"days": 1})"}, {"größe", "{}"}},
       "",
       "[/THINK]"},
      {"deepseek",
       "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{"
       "\"days\": "
       "1}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>größe\n```json\n{}"
       "\n```"
       "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
       "",
       "",
       {{"weather", R"({"days": 1})"}, {"größe", "{}"}}},
      {"deepseek",
       "hm</think>Yes.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{\"days\": 1}"
       "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
       "Yes.",
       "hm",
       {{"weather", R"({"days": 1})"}},
       "<｜Assistant｜><think>"},
      {"deepseek_v32",
       "</think>Yes.\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke "
       "name=\"weather\">\n<｜DSML｜parameter "
       "name=\"place\" string=\"true\">7\n</｜DSML｜parameter>\n<｜DSML｜parameter name=\"x\" "
       "string=\"false\">[1]</｜DSML｜parameter>\n</｜DSML｜invoke>\n<｜DSML｜invoke "
       "name=\"größe\">\n</｜DSML｜invoke>\n</｜DSML｜function_calls>",
       "Yes.",
       "",
       {{"weather", R"({"place": "7\n", "x": [1]})"}, {"größe", "{}"}},
       "<think>"},
      {"kimi",
       "<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0<|tool_call_argument_"
       "begin|>"
       "{\"days\": "
       "1}<|tool_call_end|><|tool_call_begin|>functions.größe:1<|tool_call_argument_begin|>"
       "{}<|tool_call_end|><|tool_calls_section_end|>",
       "",
       "",
       {{"weather", R"({"days": 1})"}, {"größe", "{}"}}},
      {"granite",
       "<|tool_call|>[{\"name\": \"weather\", \"arguments\": {}}]",
       "",
       "",
       {{"weather", "{}"}}},
      {"granite", "<think>r</think>\n<response>Yes.</response>", "Yes.", "r"},
      {"tool_list",
       "<tool_calls>\n{\"name\": \"weather\", \"arguments\": {}}\n{\"name\": \"größe\", "
       "\"arguments\": {}}\n</tool_calls>",
       "",
       "",
       {{"weather", "{}"}, {"größe", "{}"}}},
      {"phi4",
       "<|tool_call|>[{\"name\": \"weather\", \"arguments\": {}}]<|/tool_call|>",
       "",
       "",
       {{"weather", "{}"}}},
      {"cohere",
       "<|START_THINKING|>I will look.<|END_THINKING|><|START_ACTION|>[\n    {\"tool_call_id\": "
       "\"0\", "
       "\"tool_name\": \"weather\", \"parameters\": {\"days\": 1}}\n]<|END_ACTION|>",
       "",
       "I will look.",
       {{"weather", R"({"days": 1})"}}},
      {"cohere", "<|START_RESPONSE|>Yes.<|END_RESPONSE|>", "Yes."},
      {"harmony",
       "<|channel|>analysis<|message|>Think.<|end|><|start|>assistant<|channel|>final<|message|>"
       "Yes.",
       "Yes.",
       "Think.",
       {},
       "<|start|>assistant"},
      {"harmony",
       "<|channel|>analysis<|message|>T<|end|><|start|>assistant<|channel|>commentary "
       "to=functions.weather <|constrain|>json<|message|>{\"days\": 1}<|call|>",
       "",
       "T",
       {{"weather", R"({"days": 1})"}},
       "<|start|>assistant"},
      {"harmony",
       " to=functions.weather<|channel|>commentary json<|message|>{}<|call|><|start|>assistant"
       "<|channel|>commentary<|message|>Next.<|end|>",
       "Next.",
       "",
       {{"weather", "{}"}},
       "<|start|>assistant"},
      {"harmony", "No channel.", "No channel.", "", {}, "<|start|>assistant"},
      {"harmony", "Yes.", "Yes.", "", {}, "<|start|>assistant<|channel|>final<|message|>"},
      {"harmony", "to", "to", "", {}, "<|start|>assistant"},
  };
  return examples;
}

TEST(ChatOutput, AnswersAreTakenApart) {
  for (const Example& example : Examples()) {
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
  for (const Example& example : Examples()) {
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
    for (const Example& example : Examples()) {
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
    const Example any{.format = format.name, .prompt = random() % 2 == 0 ? "<think>" : ""};
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
  const Example hermes{.format = "hermes"};
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
  const Example mistral{.format = "mistral"};
  const auto output = OutputOf(mistral);
  const std::string spelled = "[TOOL_CALLS][{\"name\": \"weather\", \"arguments\": {}}]";
  const ChatParts parts = Parse(*output, OptionsOf(mistral), {spelled});
  EXPECT_EQ(parts.text, spelled);
  EXPECT_TRUE(parts.calls.empty());
}

TEST(ChatOutput, WithoutToolsACallIsText) {
  const Example hermes{.format = "hermes", .chat_template = ""};
  EXPECT_EQ(OutputOf(hermes)->MakeParser({}), nullptr);
  const Example thinks{.format = "hermes"};
  const std::string call = "<tool_call>{\"name\": \"f\"}</tool_call>";
  const ChatParts parts = Parse(*OutputOf(thinks), {}, {"<think>x</think>" + call});
  EXPECT_EQ(parts.text, call);
  EXPECT_EQ(parts.reasoning, "x");
}

TEST(ChatOutput, OneCallWhenMoreAreNotWanted) {
  const Example hermes{.format = "hermes"};
  AnswerOptions options = OptionsOf(hermes);
  options.calls = AnswerOptions::Calls::kOne;
  const std::string call = "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</tool_call>";
  const ChatParts parts = Parse(*OutputOf(hermes), options, {call + call});
  ASSERT_EQ(parts.calls.size(), 1u);
  EXPECT_EQ(parts.calls[0].arguments, "{\"a\": 1}");
}

TEST(ChatOutput, IdsDifferByCallAndSeed) {
  const Example hermes{.format = "hermes"};
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
  const Example kimi{.format = "kimi"};
  const ChatParts own = Parse(*OutputOf(kimi), OptionsOf(kimi),
                              {ControlMarker("<|tool_call_begin|>"), "functions.f:3",
                               ControlMarker("<|tool_call_argument_begin|>"), "{}"});
  ASSERT_EQ(own.calls.size(), 1u);
  EXPECT_EQ(own.calls[0].id, "functions.f:3");
}

TEST(ChatOutput, HugeHeadsAreNoCalls) {
  const Example hermes{.format = "hermes"};
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
