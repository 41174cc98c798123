#include "server/cli/cli.h"

#include <csignal>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/cli/command_line.h"
#include "server/cli/commands.h"
#include "server/cli/console.h"
#include "server/cli/exit_code.h"

namespace tessera::server::cli {
namespace {

constexpr char kSummary[] =
    "tessera: serves many language models that share their parts, from one daemon.";

constexpr char kFirstSteps[] =
    "First steps:\n"
    "  tessera zoo --zoo ~/zoo import model.gguf --name m   put a checkpoint into a block zoo\n"
    "  tessera serve --zoo ~/zoo                            serve every chain of it\n"
    "  tessera chat                                         talk to it\n"
    "  tessera doctor --zoo ~/zoo                           find what is wrong, with its fix\n\n";

void AddCommands(CommandLine& line) {
  AddServe(line);
  AddZoo(line);
  AddChat(line);
  AddGenerate(line);
  AddTokenize(line);
  AddPerplexity(line);
  AddBench(line);
  AddPlan(line);
  AddCheckConfig(line);
  AddDoctor(line);
  AddAdminCommands(line);
  AddCompletion(line);
}

}  // namespace

int Main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);  // a closed pipe is an error of the write, not of the process
  CommandLine line(kSummary, absl::StrCat(kFirstSteps, kExitCodesHelp));
  AddCommands(line);
  const ParsedLine parsed =
      line.Parse(std::vector<std::string>(argv + (argc > 0 ? 1 : 0), argv + argc));
  switch (parsed.kind) {
    case ParsedLine::Kind::kText:
      Print(parsed.text);
      return static_cast<int>(ExitCode::kOk);
    case ParsedLine::Kind::kUsageError:
      PrintStatus(
          Error(absl::StatusCode::kInvalidArgument, {.what = parsed.text, .fix = parsed.fix}));
      return static_cast<int>(ExitCode::kUsage);
    case ParsedLine::Kind::kRun:
      break;
  }
  const Status status = parsed.run();
  // An empty message means that the command has said everything itself.
  if (!status.ok() && !status.message().empty()) {
    PrintStatus(status);
  }
  return static_cast<int>(ExitCodeOf(status.code()));
}

}  // namespace tessera::server::cli
