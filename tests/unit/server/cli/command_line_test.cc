#include "server/cli/command_line.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "server/cli/commands.h"
#include "server/cli/exit_code.h"
#include "server/cli/generation_flags.h"

namespace tessera::server::cli {
namespace {

using Kind = ParsedLine::Kind;

// Every command of the program.
void AddAll(CommandLine& line) {
  for (auto* add : {AddServe, AddZoo, AddChat, AddGenerate, AddTokenize, AddPerplexity, AddBench,
                    AddPlan, AddCheckConfig, AddDoctor, AddAdminCommands, AddCompletion}) {
    add(line);
  }
}

const CommandWord* Find(const std::vector<CommandWord>& tree, const std::string& path) {
  const auto at = std::find_if(tree.begin(), tree.end(),
                               [&](const CommandWord& word) { return word.path == path; });
  return at == tree.end() ? nullptr : &*at;
}

TEST(CommandLineTest, TreeHasEveryCommandWithASummaryAndHelp) {
  CommandLine line("summary", "footer");
  AddAll(line);
  const std::vector<CommandWord> tree = line.Tree();
  for (const char* path : {"serve",        "zoo",      "zoo import",  "zoo ls",     "zoo show",
                           "zoo verify",   "zoo diff", "zoo compose", "zoo rm",     "zoo gc",
                           "chat",         "generate", "tokenize",    "bench",      "plan",
                           "check-config", "doctor",   "load",        "unload",     "ps",
                           "drain",        "resume",   "reload",      "completion", "perplexity"}) {
    const CommandWord* const word = Find(tree, path);
    ASSERT_NE(word, nullptr) << path;
    EXPECT_GT(word->summary.size(), 10U) << path;
  }
  for (const CommandWord& word : tree) {
    for (const OptionWord& option : word.options) {
      EXPECT_FALSE(option.help.empty()) << word.path << " " << option.name;
    }
  }
}

TEST(CommandLineTest, TreeTellsOptionsWithValuesFromFlags) {
  CommandLine line("summary", "footer");
  AddAll(line);
  const std::vector<CommandWord> tree = line.Tree();
  const CommandWord* const word = Find(tree, "zoo import");
  ASSERT_NE(word, nullptr);
  std::vector<std::string> valued;
  std::vector<std::string> flags;
  for (const OptionWord& option : word->options) {
    (option.value == OptionWord::Value::kTaken ? valued : flags).push_back(option.name);
  }
  EXPECT_EQ(valued, std::vector<std::string>{"--name"});
  EXPECT_EQ(std::count(flags.begin(), flags.end(), "--json"), 1);
  EXPECT_EQ(std::count(flags.begin(), flags.end(), "--help"), 1);
}

TEST(CommandLineTest, HelpOfEveryCommandIsTextWithAnExampleOrOptions) {
  CommandLine tree_line("summary", "footer");
  AddAll(tree_line);
  for (const CommandWord& word : tree_line.Tree()) {
    CommandLine line("summary", "footer");
    AddAll(line);
    std::vector<std::string> words;
    std::string part;
    for (const char c : word.path + " ") {
      if (c != ' ') {
        part.push_back(c);
      } else if (!part.empty()) {
        words.push_back(std::exchange(part, ""));
      }
    }
    words.emplace_back("--help");
    const ParsedLine parsed = line.Parse(words);
    EXPECT_EQ(parsed.kind, Kind::kText) << word.path;
    EXPECT_NE(parsed.text.find(word.summary), std::string::npos) << parsed.text << parsed.fix;
    EXPECT_GT(std::count(parsed.text.begin(), parsed.text.end(), '\n'), 3)
        << parsed.text << parsed.fix;
  }
}

struct Bad {
  std::vector<std::string> words;
  std::string says;
};

TEST(CommandLineTest, WrongUsageSaysWhatIsWrongAndWhereHelpIs) {
  const std::vector<Bad> cases = {
      {{}, "subcommand"},
      {{"nonsense"}, "nonsense"},
      {{"--nonsense"}, "--nonsense"},
      {{"generate", "--max-tokens", "many"}, "many"},
      {{"zoo"}, "subcommand"},
      {{"zoo", "import", "file"}, "--name"},
      {{"zoo", "show"}, "CHAIN"},
      {{"completion", "tcsh"}, "tcsh"},
      {{"serve", "--listen"}, "--listen"},
  };
  for (const Bad& bad : cases) {
    CommandLine line("summary", "footer");
    AddAll(line);
    const ParsedLine parsed = line.Parse(bad.words);
    EXPECT_EQ(parsed.kind, Kind::kUsageError) << bad.says;
    EXPECT_NE(parsed.text.find(bad.says), std::string::npos) << parsed.text << parsed.fix;
    EXPECT_NE(parsed.fix.find("--help"), std::string::npos) << parsed.fix;
  }
}

TEST(CommandLineTest, AMisspelledOptionOrCommandGetsTheNearestName) {
  const std::vector<Bad> cases = {
      {{"generate", "--max-token", "3"}, "--max-tokens"},
      {{"zoo", "import", "f", "--nam", "x"}, "--name"},
      {{"sevre"}, "serve"},
      {{"zoo", "verifi"}, "verify"},
  };
  for (const Bad& bad : cases) {
    CommandLine line("summary", "footer");
    AddAll(line);
    const ParsedLine parsed = line.Parse(bad.words);
    EXPECT_EQ(parsed.kind, Kind::kUsageError);
    EXPECT_NE(parsed.fix.find("did you mean " + bad.says + "?"), std::string::npos)
        << parsed.text << parsed.fix;
  }
}

TEST(CommandLineTest, OptionsOfACommandMayFollowItsSubcommand) {
  std::string folder;
  std::string name;
  bool ran = false;
  CommandLine line("summary", "footer");
  Command zoo = line.Add("zoo", "the zoo");
  zoo.Option("--zoo", &folder, "folder");
  Command show = zoo.Subcommand("show", "shows");
  show.Argument("CHAIN", &name, "chain");
  show.Run([&ran] {
    ran = true;
    return absl::OkStatus();
  });
  const ParsedLine parsed = line.Parse({"zoo", "show", "mine", "--zoo", "/a"});
  ASSERT_EQ(parsed.kind, Kind::kRun) << parsed.text << parsed.fix;
  EXPECT_TRUE(parsed.run().ok());
  EXPECT_TRUE(ran);
  EXPECT_EQ(folder, "/a");
  EXPECT_EQ(name, "mine");
}

TEST(CommandLineTest, RepeatedOptionsKeepTheirOrderAndTakeOneWordEach) {
  std::vector<std::string> values;
  std::vector<std::string> rest;
  CommandLine line("summary", "footer");
  Command command = line.Add("c", "a command");
  command.Option("--set", &values, "value");
  command.Arguments("REST", &rest, "others");
  command.Run([] { return absl::OkStatus(); });
  ASSERT_EQ(line.Parse({"c", "--set", "a=1", "x", "--set", "b=[2, 3]", "y"}).kind, Kind::kRun);
  EXPECT_EQ(values, (std::vector<std::string>{"a=1", "b=[2, 3]"}));
  EXPECT_EQ(rest, (std::vector<std::string>{"x", "y"}));
}

TEST(CommandLineTest, VersionIsText) {
  CommandLine line("summary", "footer");
  AddAll(line);
  const ParsedLine parsed = line.Parse({"--version"});
  EXPECT_EQ(parsed.kind, Kind::kText);
  EXPECT_EQ(parsed.text.rfind("tessera ", 0), 0U) << parsed.text << parsed.fix;
}

TEST(ExitCodeTest, NumbersAreStable) {
  EXPECT_EQ(static_cast<int>(ExitCodeOf(absl::StatusCode::kOk)), 0);
  EXPECT_EQ(static_cast<int>(ExitCodeOf(absl::StatusCode::kInternal)), 1);
  EXPECT_EQ(static_cast<int>(ExitCodeOf(absl::StatusCode::kAlreadyExists)), 1);
  EXPECT_EQ(static_cast<int>(ExitCodeOf(absl::StatusCode::kInvalidArgument)), 2);
  EXPECT_EQ(static_cast<int>(ExitCodeOf(absl::StatusCode::kUnavailable)), 3);
  EXPECT_EQ(static_cast<int>(ExitCodeOf(absl::StatusCode::kNotFound)), 4);
  EXPECT_EQ(static_cast<int>(ExitCodeOf(absl::StatusCode::kDataLoss)), 5);
  EXPECT_EQ(static_cast<int>(ExitCodeOf(absl::StatusCode::kDeadlineExceeded)), 6);
  EXPECT_EQ(static_cast<int>(ExitCodeOf(absl::StatusCode::kCancelled)), 130);
}

// Parses `words` as those of a command with the generation flags.
ParsedLine ParseGeneration(GenerationFlags* flags, const std::vector<std::string>& words) {
  CommandLine line("summary", "footer");
  Command command = line.Add("g", "generates");
  AddGenerationFlags(command, flags);
  command.Run([] { return absl::OkStatus(); });
  std::vector<std::string> all = {"g"};
  all.insert(all.end(), words.begin(), words.end());
  return line.Parse(all);
}

TEST(GenerationFlagsTest, WhatIsNotGivenStaysUnset) {
  GenerationFlags flags;
  ASSERT_EQ(ParseGeneration(&flags, {}).kind, Kind::kRun);
  const GenerateCall call = CallOf(flags);
  EXPECT_FALSE(call.sampling.temperature.has_value());
  EXPECT_FALSE(call.sampling.seed.has_value());
  EXPECT_FALSE(call.max_tokens.has_value());
  EXPECT_EQ(call.end_tokens, GenerateCall::EndTokens::kStop);
  EXPECT_EQ(call.prefix_cache, GenerateCall::PrefixCache::kUse);
  EXPECT_EQ(call.numerics, GenerateCall::Numerics::kFast);
  EXPECT_EQ(call.timeout, Duration::zero());
  EXPECT_EQ(flags.endpoint, kDefaultEndpoint);
}

TEST(GenerationFlagsTest, ValuesReachTheCall) {
  GenerationFlags flags;
  const ParsedLine parsed = ParseGeneration(&flags, {"-m",
                                                     "tiny",
                                                     "-n",
                                                     "7",
                                                     "--temperature",
                                                     "0",
                                                     "--top-k",
                                                     "5",
                                                     "--seed",
                                                     "18446744073709551615",
                                                     "--stop",
                                                     "a b",
                                                     "--stop",
                                                     "c",
                                                     "--ignore-eos",
                                                     "--no-prefix-cache",
                                                     "--deterministic",
                                                     "--timeout",
                                                     "1.5",
                                                     "--presence-penalty",
                                                     "-0.5"});
  ASSERT_EQ(parsed.kind, Kind::kRun) << parsed.text << parsed.fix;
  const GenerateCall call = CallOf(flags);
  EXPECT_EQ(call.model, "tiny");
  EXPECT_EQ(call.max_tokens, 7U);
  EXPECT_EQ(call.sampling.temperature, 0.0);
  EXPECT_EQ(call.sampling.top_k, 5U);
  EXPECT_EQ(call.sampling.seed, UINT64_MAX);
  EXPECT_EQ(call.sampling.presence_penalty, -0.5);
  EXPECT_EQ(call.stop, (std::vector<std::string>{"a b", "c"}));
  EXPECT_EQ(call.end_tokens, GenerateCall::EndTokens::kIgnore);
  EXPECT_EQ(call.prefix_cache, GenerateCall::PrefixCache::kBypass);
  EXPECT_EQ(call.numerics, GenerateCall::Numerics::kDeterministic);
  EXPECT_EQ(call.timeout, std::chrono::milliseconds(1500));
}

TEST(GenerationFlagsTest, TokenIdsAreNumbersWithCommas) {
  EXPECT_EQ(*ParseTokenIds("1,403, 407"), (std::vector<uint32_t>{1, 403, 407}));
  for (const char* bad : {"", ",", "1,x", "-1", "4294967296", "1.5"}) {
    const auto parsed = ParseTokenIds(bad);
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_EQ(PartsOf(parsed.status()).where, "--token-ids");
  }
  EXPECT_NE(ParseTokenIds("1,x,2").status().message().find("\"x\""), absl::string_view::npos);
}

}  // namespace
}  // namespace tessera::server::cli
