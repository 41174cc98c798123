// Answers in each format, with the parts that they have.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace tessera::server {

struct AnswerExample {
  const char* format;
  std::string answer;
  std::string text;
  std::string reasoning;
  std::vector<std::pair<std::string, std::string>> calls;  // name, arguments
  std::string prompt;
  std::string chat_template = "</think>";  // what it mentions
};

inline std::vector<AnswerExample> HermesExamples() {
  return {
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
  };
}

inline std::vector<AnswerExample> HermesBrokenExamples() {
  return {
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
  };
}

inline std::vector<AnswerExample> TaggedExamples() {
  return {
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
  };
}

inline std::vector<AnswerExample> Llama3Examples() {
  return {
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
  };
}

inline std::vector<AnswerExample> MistralExamples() {
  return {
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
  };
}

inline std::vector<AnswerExample> DeepSeekExamples() {
  return {
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
  };
}

inline std::vector<AnswerExample> ListExamples() {
  return {
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
  };
}

inline std::vector<AnswerExample> ChannelExamples() {
  return {
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
}

inline const std::vector<AnswerExample>& AnswerExamples() {
  static const auto& examples = *[] {
    auto* const all = new std::vector<AnswerExample>();
    for (const auto some : {HermesExamples, HermesBrokenExamples, TaggedExamples, Llama3Examples,
                            MistralExamples, DeepSeekExamples, ListExamples, ChannelExamples}) {
      for (AnswerExample& example : some()) all->push_back(std::move(example));
    }
    return all;
  }();
  return examples;
}

}  // namespace tessera::server
