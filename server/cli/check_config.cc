// tessera check-config: every problem of a settings file at once.
#include "absl/strings/str_cat.h"
#include "server/cli/commands.h"
#include "server/cli/console.h"
#include "server/cli/settings_flags.h"

namespace tessera::server::cli {
namespace {

struct CheckConfigOptions {
  SettingsFlags flags;
  bool print = false;
  bool reference = false;
};

Status RunCheck(const CheckConfigOptions& options) {
  if (options.reference) {
    Print(SettingsReference());
    return absl::OkStatus();
  }
  if (options.flags.config.empty()) {
    return Error(absl::StatusCode::kInvalidArgument,
                 {.what = "no settings file is given",
                  .fix = "name one: tessera check-config tessera.yaml"});
  }
  const LoadOutcome outcome = LoadSettings(options.flags.config, OverridesOf(options.flags));
  TESSERA_RETURN_IF_ERROR(outcome.status());
  if (options.print) {
    Print(Dump(*outcome.settings, outcome.origins));
  } else {
    Print(absl::StrCat(options.flags.config, ": in order\n"));
  }
  return absl::OkStatus();
}

}  // namespace

void AddCheckConfig(CommandLine& line) {
  const auto options = std::make_shared<CheckConfigOptions>();
  Command command = line.Add("check-config", "Check a settings file; every problem at once");
  command.Argument("FILE", &options->flags.config, "YAML, or JSON if it is named *.json");
  command.MayBeLeftOut();
  command.Option("--set", &options->flags.set, "check it together with NAME=VALUE");
  command.Flag("--print", &options->print, "print every setting in force with its origin");
  command.Flag("--reference", &options->reference, "print a page of all settings (markdown)");
  command.Examples(
      "  tessera check-config tessera.yaml\n"
      "  tessera check-config tessera.yaml --set engine.threads=2 --print\n"
      "  tessera check-config --reference\n\n"
      "A problem is FILE:LINE:COLUMN, the setting, what is wrong, and the nearest name where one\n"
      "was probably meant. The environment (TESSERA_…__…) counts, as it does for `serve`.");
  command.Run([options] { return RunCheck(*options); });
}

}  // namespace tessera::server::cli
