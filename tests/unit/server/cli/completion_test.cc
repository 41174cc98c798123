#include "server/cli/completion.h"

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/cli/commands.h"

namespace tessera::server::cli {
namespace {

std::vector<CommandWord> Tree() {
  CommandLine line("summary", "footer");
  for (auto* add : {AddServe, AddZoo, AddChat, AddGenerate, AddTokenize, AddBench, AddPlan,
                    AddCheckConfig, AddDoctor, AddAdminCommands, AddCompletion}) {
    add(line);
  }
  return line.Tree();
}

class CompletionTest : public ::testing::Test {
 protected:
  // What `shell` prints for a script; fails the test when it ends with an error.
  std::string Run(const std::string& shell, const std::string& script) {
    const auto path = std::filesystem::path(::testing::TempDir()) /
                      absl::StrCat("completion_",
                                   ::testing::UnitTest::GetInstance()->current_test_info()->name());
    std::ofstream(path, std::ios::binary) << script;
    std::FILE* const pipe = popen(absl::StrCat(shell, " ", path.string(), " 2>&1").c_str(), "r");
    std::string out;
    char buffer[4096];
    while (size_t got = std::fread(buffer, 1, sizeof(buffer), pipe)) out.append(buffer, got);
    const int status = pclose(pipe);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << out;
    std::filesystem::remove(path);
    return out;
  }

  // What bash would offer after `words`, of which the last is being typed.
  std::vector<std::string> BashOffers(const std::vector<std::string>& words) {
    std::string line;
    for (const std::string& word : words) absl::StrAppend(&line, " '", word, "'");
    const std::string script = absl::StrCat(BashCompletion(tree_), "COMP_WORDS=(tessera", line,
                                            ")\nCOMP_CWORD=", words.size(),
                                            "\n_tessera\nprintf '%s\\n' \"${COMPREPLY[@]}\"\n");
    return absl::StrSplit(Run("bash", script), '\n', absl::SkipEmpty());
  }

  const std::vector<CommandWord> tree_ = Tree();
};

bool Has(const std::vector<std::string>& words, const std::string& word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

TEST_F(CompletionTest, EveryScriptNamesEveryCommandAndOption) {
  const std::string scripts[] = {BashCompletion(tree_), ZshCompletion(tree_),
                                 FishCompletion(tree_)};
  for (const std::string& script : scripts) {
    for (const CommandWord& word : tree_) {
      EXPECT_NE(script.find(word.path), std::string::npos) << word.path;
      for (const OptionWord& option : word.options) {
        EXPECT_NE(script.find(option.name.substr(2)), std::string::npos) << option.name;
      }
    }
  }
}

TEST_F(CompletionTest, BashReadsTheScript) { EXPECT_EQ(Run("bash -n", BashCompletion(tree_)), ""); }

TEST_F(CompletionTest, BashOffersCommands) {
  const std::vector<std::string> all = BashOffers({""});
  for (const std::string& command : tree_.front().subcommands) EXPECT_TRUE(Has(all, command));
  EXPECT_EQ(BashOffers({"che"}), std::vector<std::string>{"check-config"});
  EXPECT_EQ(BashOffers({"zoo", "com"}), std::vector<std::string>{"compose"});
}

TEST_F(CompletionTest, BashOffersOptionsOfTheCommandAndOfThoseAround) {
  EXPECT_EQ(BashOffers({"generate", "--max"}), std::vector<std::string>{"--max-tokens"});
  const std::vector<std::string> import = BashOffers({"zoo", "import", "--"});
  EXPECT_TRUE(Has(import, "--name"));
  EXPECT_TRUE(Has(import, "--zoo"));
  EXPECT_FALSE(Has(import, "--dry-run"));
}

TEST_F(CompletionTest, AValueIsNotTakenForACommand) {
  EXPECT_EQ(BashOffers({"zoo", "--zoo", "import", "ver"}), std::vector<std::string>{"verify"});
  EXPECT_TRUE(BashOffers({"zoo", "--zoo", ""}).empty());
}

}  // namespace
}  // namespace tessera::server::cli
