// The command line as this program uses it: a thin layer, so that one source alone includes the
// parser library.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "config/foundation/status.h"

namespace CLI {
class App;
}  // namespace CLI

namespace tessera::server::cli {

struct ChosenCommand;

// A command whose options are being declared. Values are written when the line is parsed and must
// live until the command has run. `names` are as "-m,--model".
class Command {
 public:
  Command(CLI::App* app, ChosenCommand* chosen) : app_(app), chosen_(chosen) {}

  void Option(absl::string_view names, std::string* value, absl::string_view help);
  void Option(absl::string_view names, std::optional<std::string>* value, absl::string_view help);
  // May be given several times.
  void Option(absl::string_view names, std::vector<std::string>* value, absl::string_view help);
  void Option(absl::string_view names, uint32_t* value, absl::string_view help);
  void Option(absl::string_view names, uint64_t* value, absl::string_view help);
  void Option(absl::string_view names, double* value, absl::string_view help);
  void Option(absl::string_view names, std::optional<uint32_t>* value, absl::string_view help);
  void Option(absl::string_view names, std::optional<uint64_t>* value, absl::string_view help);
  void Option(absl::string_view names, std::optional<double>* value, absl::string_view help);
  void Flag(absl::string_view names, bool* value, absl::string_view help);
  // The last declared option or argument must be given.
  void Required();
  // The last declared argument may be left out.
  void MayBeLeftOut();
  // The last declared option takes one of these words.
  void OneOf(const std::vector<std::string>& words);
  void Argument(absl::string_view name, std::string* value, absl::string_view help);
  void Arguments(absl::string_view name, std::vector<std::string>* value, absl::string_view help);

  // Options of this command may also be written after the subcommand's name.
  [[nodiscard]] Command Subcommand(absl::string_view name, absl::string_view summary);
  void RequireSubcommand();
  void Examples(absl::string_view text);
  // What the command does when it is the one on the line.
  void Run(std::function<Status()> run);

 private:
  CLI::App* app_;
  ChosenCommand* chosen_;
};

// What a parsed line asks for.
struct ParsedLine {
  std::function<Status()> run;  // set exactly if the line is valid and asks for a command
  std::string text;             // help, version or the complaint
  std::string fix;              // of a complaint: the nearest name, where help is
  enum class Kind : uint8_t { kRun, kText, kUsageError } kind = Kind::kRun;
};

struct OptionWord {
  std::string name;  // "--name"
  std::string help;
  enum class Value : uint8_t { kNone, kTaken } value = Value::kNone;
};

// One word of the command tree, for shell completion and tests.
struct CommandWord {
  std::string path;  // "zoo import"; empty for the program
  std::string summary;
  std::vector<OptionWord> options;
  std::vector<std::string> subcommands;
};

// The program's whole command line.
class CommandLine {
 public:
  CommandLine(absl::string_view summary, absl::string_view footer);
  ~CommandLine();
  CommandLine(const CommandLine&) = delete;
  CommandLine& operator=(const CommandLine&) = delete;

  [[nodiscard]] Command Add(absl::string_view name, absl::string_view summary);
  // `words` without the program's name.
  [[nodiscard]] ParsedLine Parse(const std::vector<std::string>& words);
  [[nodiscard]] std::vector<CommandWord> Tree() const;

 private:
  struct Impl;
  [[nodiscard]] ParsedLine Complaint(const std::vector<std::string>& words,
                                     absl::string_view problem) const;

  std::unique_ptr<Impl> impl_;
};

}  // namespace tessera::server::cli
