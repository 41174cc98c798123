// tessera zoo: what is stored, and what can be done with it.
#include "blockzoo/zoo.h"

#include <cstdio>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "blockzoo/zoo_report.h"
#include "config/foundation/text.h"
#include "server/cli/commands.h"
#include "server/cli/console.h"
#include "server/cli/settings_flags.h"
#include "server/cli/zoo_json.h"
#include "server/cli/zoo_makers.h"
#include "server/text/chat_template.h"

namespace tessera::server::cli {
namespace {

using blockzoo::Zoo;
using blockzoo::ZooMode;

// What all of the subcommands read.
struct ZooOptions {
  SettingsFlags flags;
  bool json = false;
  std::string path;
  std::string name;
  std::string other;
  std::vector<std::string> names;
  bool replace = false;
  bool dry_run = false;
  bool derived = false;
};

template <typename Report>
void PrintReport(const ZooOptions& options, const Report& report) {
  Print(options.json ? ToJson(report) : blockzoo::Render(report));
}

// Before a zoo is made for it.
Status CheckSource(const std::string& path) {
  std::error_code code;
  if (std::filesystem::exists(path, code)) return absl::OkStatus();
  return Error(absl::StatusCode::kNotFound,
               {.what = absl::StrCat("there is nothing to import at ", Quoted(path)),
                .why = code ? code.message() : "no such file or directory",
                .fix = "give a GGUF file or a directory with config.json and safetensors files"});
}

blockzoo::ExistingChain ExistingOf(const ZooOptions& options) {
  return options.replace ? blockzoo::ExistingChain::kReplace : blockzoo::ExistingChain::kKeep;
}

// The chain is good for prompts all the same.
Status WarnOfChatTemplate(const Zoo& zoo, const std::string& name) {
  TESSERA_ASSIGN_OR_RETURN(const blockzoo::ChainManifest chain, zoo.Chain(name));
  const auto found = chain.assets.find("chat_template");
  if (found == chain.assets.end()) return absl::OkStatus();
  TESSERA_ASSIGN_OR_RETURN(const std::string text, zoo.Asset(found->second));
  const auto parsed = ChatTemplate::Parse(text);
  if (parsed.ok()) return absl::OkStatus();
  const ErrorParts parts = PartsOf(parsed.status());
  PrintError(absl::StrCat(
      "warning: the chat template cannot be used, chats will be refused; where: ", parts.where,
      "; why: ", parts.why, "; fix: name another in models[].chat_template\n"));
  return absl::OkStatus();
}

Status RunImport(const ZooOptions& options) {
  TESSERA_RETURN_IF_ERROR(CheckSource(options.path));
  TESSERA_RETURN_IF_ERROR(blockzoo::CheckChainName(options.name));
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<Zoo> zoo,
                           OpenFlaggedZoo(options.flags, ZooMode::kCreate));
  blockzoo::ImportOptions import;
  import.path = options.path;
  import.name = options.name;
  import.existing = ExistingOf(options);
  TESSERA_ASSIGN_OR_RETURN(const blockzoo::ImportReport report,
                           WithProgress("importing", [&](const blockzoo::ZooProgress& progress) {
                             import.progress = progress;
                             return zoo->Import(import);
                           }));
  PrintReport(options, report);
  return WarnOfChatTemplate(*zoo, options.name);
}

Status RunList(const ZooOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<Zoo> zoo,
                           OpenFlaggedZoo(options.flags, ZooMode::kReadOnly));
  TESSERA_ASSIGN_OR_RETURN(const blockzoo::ZooListing listing, zoo->List());
  PrintReport(options, listing);
  return absl::OkStatus();
}

Status RunShow(const ZooOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<Zoo> zoo,
                           OpenFlaggedZoo(options.flags, ZooMode::kReadOnly));
  TESSERA_ASSIGN_OR_RETURN(const blockzoo::ChainDetails details, zoo->Show(options.name));
  PrintReport(options, details);
  return absl::OkStatus();
}

Status RunDiff(const ZooOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<Zoo> zoo,
                           OpenFlaggedZoo(options.flags, ZooMode::kReadOnly));
  TESSERA_ASSIGN_OR_RETURN(const blockzoo::ChainDiff diff, zoo->Diff(options.name, options.other));
  PrintReport(options, diff);
  return absl::OkStatus();
}

Status RunVerify(const ZooOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<Zoo> zoo,
                           OpenFlaggedZoo(options.flags, ZooMode::kReadOnly));
  TESSERA_ASSIGN_OR_RETURN(const blockzoo::VerifyReport report,
                           WithProgress("verifying", [&](const blockzoo::ZooProgress& progress) {
                             return zoo->Verify(progress);
                           }));
  PrintReport(options, report);
  // The report has named every problem.
  return report.problems.empty() ? absl::OkStatus() : Status(absl::StatusCode::kDataLoss, "");
}

Status RunCompose(const ZooOptions& options) {
  blockzoo::ComposeSpec spec;
  spec.name = options.name;
  spec.existing = ExistingOf(options);
  for (const std::string& text : options.names) {
    TESSERA_ASSIGN_OR_RETURN(blockzoo::ComposePiece piece, blockzoo::ParseComposePiece(text));
    spec.pieces.push_back(std::move(piece));
  }
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<Zoo> zoo,
                           OpenFlaggedZoo(options.flags, ZooMode::kReadWrite));
  TESSERA_ASSIGN_OR_RETURN(const blockzoo::ChainManifest chain, zoo->Compose(spec));
  Print(options.json
            ? ToJson(chain)
            : absl::StrCat("composed ", chain.name, ": ", chain.blocks.size(), " blocks, revision ",
                           blockzoo::RevisionOf(chain).Short(), "\n"));
  return absl::OkStatus();
}

Status RunRemove(const ZooOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<Zoo> zoo,
                           OpenFlaggedZoo(options.flags, ZooMode::kReadWrite));
  for (const std::string& name : options.names) {
    TESSERA_RETURN_IF_ERROR(zoo->Remove(name));
    Print(absl::StrCat("removed ", name, "\n"));
  }
  Print("`tessera zoo gc` frees what no chain uses any more\n");
  return absl::OkStatus();
}

Status RunGc(const ZooOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<Zoo> zoo,
                           OpenFlaggedZoo(options.flags, ZooMode::kReadWrite));
  blockzoo::GcOptions gc;
  if (options.derived) gc.derived = blockzoo::DerivedFiles::kDropAll;
  if (options.dry_run) gc.effect = blockzoo::GcEffect::kDryRun;
  TESSERA_ASSIGN_OR_RETURN(const blockzoo::GcReport report, zoo->Gc(gc));
  Print(options.json ? ToJson(report)
                     : blockzoo::Render(report, options.dry_run ? blockzoo::GcTense::kPlanned
                                                                : blockzoo::GcTense::kDone));
  return absl::OkStatus();
}

using ZooOptionsPtr = std::shared_ptr<ZooOptions>;

void AddJson(Command& command, const ZooOptionsPtr& options) {
  command.Flag("--json", &options->json, "one JSON object instead of text");
}

void AddMakers(Command& zoo, const ZooOptionsPtr& options) {
  Command import = zoo.Subcommand("import", "Put a checkpoint into the zoo, as a chain");
  import.Argument("PATH", &options->path, "GGUF file, or directory of Hugging Face files");
  import.Option("-n,--name", &options->name, "what the chain is called");
  import.Required();
  import.Flag("--replace", &options->replace, "take the name from a chain with other content");
  AddJson(import, options);
  import.Examples(
      "  tessera zoo --zoo ~/zoo import SmolLM2-135M-Instruct.Q4_1.gguf --name smollm2\n"
      "  tessera zoo --zoo ~/zoo import ~/checkpoints/Llama-3.2-1B --name llama\n\n"
      "Only tensors that the zoo does not have are written. An import that was cut short leaves\n"
      "nothing half done: run it again, and it writes what is missing.");
  import.Run([options] { return RunImport(*options);
});

Command compose = zoo.Subcommand("compose", "Make a chain from blocks of other chains");
compose.Option("-n,--name", &options->name, "what the new chain is called");
compose.Required();
compose.Arguments("PIECE", &options->names,
                  "CHAIN or CHAIN[BEGIN:END]: blocks from 0, END excluded");
compose.Flag("--replace", &options->replace, "take the name from a chain with other content");
AddJson(compose, options);
compose.Examples(
    "  tessera zoo compose --name mixed 'base[0:41]' 'tuned[41:]'\n\n"
    "Block 0 is the embedding, layer i of a Llama is the blocks 2i + 1 (attention) and 2i + 2\n"
    "(ffn), the last block is the lm_head: `tessera zoo show CHAIN` lists them. So this takes\n"
    "the lower 20 layers of `base` and the upper ones of `tuned`. The first piece gives the\n"
    "tokenizer and the chat template. No weights are copied.");
compose.Run([options] { return RunCompose(*options); });
}  // namespace

void AddViews(Command& zoo, const ZooOptionsPtr& options) {
  Command list = zoo.Subcommand("ls", "List the chains: sizes, and what they share");
  AddJson(list, options);
  list.Run([options] { return RunList(*options); });

  Command show = zoo.Subcommand("show", "Everything about one chain, block by block");
  show.Argument("CHAIN", &options->name, "the chain");
  AddJson(show, options);
  show.Run([options] { return RunShow(*options); });

  Command diff = zoo.Subcommand("diff", "Blocks, tensors and settings in which two chains differ");
  diff.Argument("A", &options->name, "a chain");
  diff.Argument("B", &options->other, "another chain");
  AddJson(diff, options);
  diff.Run([options] { return RunDiff(*options); });

  Command verify = zoo.Subcommand("verify", "Hash everything again; exit code 5 on damage");
  AddJson(verify, options);
  verify.Run([options] { return RunVerify(*options); });
}

void AddRemovers(Command& zoo, const ZooOptionsPtr& options) {
  Command remove = zoo.Subcommand("rm", "Remove chains; their bytes stay until gc");
  remove.Arguments("CHAIN", &options->names, "chains to remove");
  remove.Run([options] { return RunRemove(*options); });

  Command gc = zoo.Subcommand("gc", "Free what no chain and no running daemon uses");
  gc.Flag("--dry-run", &options->dry_run, "say what would be removed");
  gc.Flag("--derived", &options->derived,
          "remove all repacked weights too; they are made again on the next load");
  AddJson(gc, options);
  gc.Run([options] { return RunGc(*options); });
}

}  // namespace tessera::server::cli

void AddZoo(CommandLine& line) {
  const auto options = std::make_shared<ZooOptions>();
  Command zoo =
      line.Add("zoo", "Look after a block zoo: import, export, quantize, ls, show, verify…");
  AddZooFlags(zoo, &options->flags);
  AddMakers(zoo, options);
  AddExport(zoo, {options, &options->flags});
  AddQuantize(zoo, {options, &options->flags});
  AddSynth(zoo, {options, &options->flags});
  AddViews(zoo, options);
  AddRemovers(zoo, options);
  zoo.RequireSubcommand();
  zoo.Examples(
      "  tessera zoo --zoo ~/zoo import model.gguf --name mine\n"
      "  tessera zoo --zoo ~/zoo ls\n"
      "  tessera zoo --zoo ~/zoo diff mine tuned\n"
      "  tessera zoo --zoo ~/zoo rm mine && tessera zoo --zoo ~/zoo gc\n\n"
      "Every tensor is stored once, whoever uses it. A running daemon may go on serving\n"
      "meanwhile: it sees new chains at once and keeps what it has loaded.");
}

}  // namespace tessera::server::cli
