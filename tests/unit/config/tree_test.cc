#include "config/tree.h"

#include <gtest/gtest.h>

#include <string>

namespace tessera {
namespace {

std::optional<Node> Yaml(absl::string_view text, std::vector<Problem>* problems) {
  return ReadTree(text, TextFormat::kYaml, "a.yaml", problems);
}
std::optional<Node> Json(absl::string_view text, std::vector<Problem>* problems) {
  return ReadTree(text, TextFormat::kJson, "a.json", problems);
}

std::string FirstProblem(absl::string_view text, TextFormat format) {
  std::vector<Problem> problems;
  const std::optional<Node> root = ReadTree(text, format, "f", &problems);
  EXPECT_FALSE(root.has_value()) << text;
  EXPECT_EQ(problems.size(), 1u) << text;
  return problems.empty() ? "" : problems[0].Text();
}

TEST(TreeTest, YamlAndJsonOfTheSameContentGiveTheSameTree) {
  std::vector<Problem> problems;
  const auto yaml = Yaml(
      "server:\n  name: \"gpu \\u00e9\\n\"\n  drain_timeout: 120s\n"
      "engine: {threads: 4, memory_fraction: 0.5, kv: {key_statistics: true}}\n"
      "models:\n  - name: a\n    chain:\n  - {name: 'b', tags: [x, \"1\", 2]}\nempty: []\nnone: "
      "{}\n",
      &problems);
  const auto json = Json(
      R"({"server": {"name": "gpu \u00e9\n", "drain_timeout": "120s"},
          "engine": {"threads": 4, "memory_fraction": 0.5, "kv": {"key_statistics": true}},
          "models": [{"name": "a", "chain": null}, {"name": "b", "tags": ["x", "1", 2]}],
          "empty": [], "none": {}})",
      &problems);
  ASSERT_TRUE(yaml && json) << ProblemsText(problems);
  EXPECT_TRUE(yaml->SameContent(*json));
  EXPECT_EQ(yaml->Find("server")->Find("name")->text, "gpu \xC3\xA9\n");
  const auto other = Json(R"({"server": {}})", &problems);
  EXPECT_FALSE(yaml->SameContent(*other));
}

TEST(TreeTest, NodesKnowTheirPlace) {
  std::vector<Problem> problems;
  const auto yaml = Yaml("a:\n  b: 1\n  \xC3\xA9: [x,\n   y]\n", &problems);
  ASSERT_TRUE(yaml);
  const MapEntry& b = yaml->Find("a")->entries[0];
  EXPECT_EQ(b.position, (Position{2, 3}));
  EXPECT_EQ(b.value.position, (Position{2, 6}));
  EXPECT_EQ(yaml->Find("a")->entries[1].value.items[1].position, (Position{4, 4}));
  const auto json = Json("{\n \"\xC3\xA9\": 1, \"b\":\n  [true]}", &problems);
  ASSERT_TRUE(json);
  EXPECT_EQ(json->entries[0].value.position, (Position{2, 7}));
  EXPECT_EQ(json->entries[1].position, (Position{2, 10}));
  EXPECT_EQ(json->entries[1].value.items[0].position, (Position{3, 4}));
}

TEST(TreeTest, YamlRefusals) {
  const auto problem = [](absl::string_view text) { return FirstProblem(text, TextFormat::kYaml); };
  EXPECT_EQ(problem("a: &x 1\nb: 2\n"), "f:1:4: has an anchor (`&name`) (write the value out)");
  EXPECT_NE(problem("a: *x\n").find("f:1:"), std::string::npos);
  EXPECT_NE(problem("a: 1\nb: 2\na: 3\n").find("f:3:1: repeats the key \"a\""), std::string::npos);
  EXPECT_NE(problem("a: 1\n---\nb: 2\n").find("more than one YAML document"), std::string::npos);
  EXPECT_NE(problem("a: !!int 1\n").find("has the tag"), std::string::npos);
  EXPECT_NE(problem("? [a]\n: 1\n").find("key that is not text"), std::string::npos);
  EXPECT_NE(problem("~: 1\n").find("empty key"), std::string::npos);
  EXPECT_NE(problem("a: [1\nb: }\n").find("is not YAML"), std::string::npos);
  EXPECT_NE(problem(std::string(33, '[') + std::string(33, ']')).find("32 levels"),
            std::string::npos);
  EXPECT_NE(problem(std::string(100'000, '[')).find("f:1:1"), std::string::npos);
}

TEST(TreeTest, JsonRefusals) {
  const auto problem = [](absl::string_view text) { return FirstProblem(text, TextFormat::kJson); };
  EXPECT_EQ(problem("{\"a\": 1,\n \"a\": 2}"), "f:2:2: repeats the key \"a\" (keep one of them)");
  EXPECT_EQ(problem("{\"a\": yes}"), "f:1:7: is not JSON: \"yes\" (put text in quotes)");
  EXPECT_NE(problem("{} {}").find("f:1:4: has text after"), std::string::npos);
  for (const char* bad : {"",
                          "{",
                          "[",
                          "[1,]",
                          "{\"a\"}",
                          "{\"a\":}",
                          "{a: 1}",
                          "{,}",
                          "\"a",
                          "\"\\x\"",
                          "\"\\ud800\"",
                          "\"\\ud800\\u0041\"",
                          "\"\\udc00\"",
                          "\"\\u12\"",
                          "01",
                          "1.",
                          ".5",
                          "1e",
                          "-",
                          "+1",
                          "NaN",
                          "\"a\nb\"",
                          "\"\\"}) {
    EXPECT_NE(problem(bad).find("is not JSON"), std::string::npos) << bad;
  }
  EXPECT_NE(problem(std::string(33, '[') + std::string(33, ']')).find("32 levels"),
            std::string::npos);
}

TEST(TreeTest, BothReadersAcceptTheirDeepestAndTheirBom) {
  std::vector<Problem> problems;
  const std::string deep = std::string(32, '[') + std::string(32, ']');
  EXPECT_TRUE(Yaml(deep, &problems)) << ProblemsText(problems);
  EXPECT_TRUE(Json(deep, &problems)) << ProblemsText(problems);
  EXPECT_TRUE(Json("\xEF\xBB\xBF{}", &problems));
  EXPECT_EQ(Yaml("# nothing\n", &problems)->kind, NodeKind::kMap);
  EXPECT_EQ(Json("\"\\ud83d\\ude00\"", &problems)->text, "\xF0\x9F\x98\x80");
  EXPECT_TRUE(problems.empty()) << ProblemsText(problems);
}

TEST(TreeTest, TextIsCheckedFirst) {
  EXPECT_NE(FirstProblem("a: \xFF", TextFormat::kYaml).find("f:1:4: is not UTF-8"),
            std::string::npos);
  EXPECT_NE(
      FirstProblem(absl::string_view("a: \0b", 5), TextFormat::kYaml).find("control character"),
      std::string::npos);
  EXPECT_NE(FirstProblem(std::string(kMaxTextBytes + 1, ' '), TextFormat::kJson).find("at most"),
            std::string::npos);
}

}  // namespace
}  // namespace tessera
