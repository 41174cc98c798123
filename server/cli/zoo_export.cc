// tessera zoo export: the files that a chain was imported from.
#include "absl/strings/str_cat.h"
#include "blockzoo/zoo_report.h"
#include "server/cli/console.h"
#include "server/cli/zoo_json.h"
#include "server/cli/zoo_makers.h"

namespace tessera::server::cli {
namespace {

using blockzoo::Zoo;
using blockzoo::ZooMode;

struct ExportFlags {
  std::shared_ptr<SettingsFlags> zoo;
  std::string chain;
  std::string format;
  std::string path;
  bool force = false;
  bool json = false;
};

Status RunExport(const ExportFlags& flags) {
  blockzoo::ExportOptions options;
  options.chain = flags.chain;
  options.format =
      flags.format == "gguf" ? blockzoo::ExportFormat::kGguf : blockzoo::ExportFormat::kHuggingFace;
  options.path = flags.path;
  if (flags.force) options.existing = blockzoo::ExistingFiles::kReplace;
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<Zoo> zoo,
                           OpenFlaggedZoo(*flags.zoo, ZooMode::kReadOnly));
  TESSERA_ASSIGN_OR_RETURN(const blockzoo::ExportReport report,
                           WithProgress("exporting", [&](const blockzoo::ZooProgress& progress) {
                             options.progress = progress;
                             return zoo->Export(options);
                           }));
  Print(flags.json ? ToJson(report) : blockzoo::Render(report));
  return absl::OkStatus();
}

}  // namespace

void AddExport(Command& zoo, const std::shared_ptr<SettingsFlags>& flags) {
  const auto options = std::make_shared<ExportFlags>();
  options->zoo = flags;
  Command command = zoo.Subcommand("export", "Give back the files that a chain was imported from");
  command.Argument("CHAIN", &options->chain, "the chain");
  command.Option("--format", &options->format, "what it was imported from");
  command.Required();
  command.OneOf({"gguf", "hf"});
  command.Option("-o,--out", &options->path, "the new file; a directory where there are several");
  command.Required();
  command.Flag("--force", &options->force, "replace a file or a model's directory that is there");
  command.Flag("--json", &options->json, "one JSON object instead of text");
  command.Examples(
      "  tessera zoo --zoo ~/zoo export smollm2 --format gguf --out smollm2.gguf\n"
      "  tessera zoo --zoo ~/zoo export llama --format hf --out ~/checkpoints/llama\n\n"
      "The files come back byte for byte, from the tensors that the zoo shares among chains. They\n"
      "appear at once when they are whole. Chains that were made in the zoo have no such files.");
  command.Run([options] { return RunExport(*options); });
}

}  // namespace tessera::server::cli
