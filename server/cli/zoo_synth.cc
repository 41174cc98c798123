// tessera zoo synth: chains of a known model's shape, with weights from a seed.
#include "absl/strings/str_cat.h"
#include "blockzoo/synthetic_models.h"
#include "blockzoo/zoo_report.h"
#include "server/cli/console.h"
#include "server/cli/dtype_words.h"
#include "server/cli/zoo_json.h"
#include "server/cli/zoo_makers.h"

namespace tessera::server::cli {
namespace {

using blockzoo::Zoo;
using blockzoo::ZooMode;

struct SynthFlags {
  std::shared_ptr<SettingsFlags> zoo;
  std::string like;
  std::string name;
  std::string dtype = "bf16";
  uint64_t seed = 0;
  uint64_t variants = 1;
  std::optional<uint64_t> share;
  bool materialise = false;
  bool replace = false;
  bool json = false;
};

bool CanMake(kernels::DType dtype) { return kernels::SyntheticDeviation(dtype) > 0; }

Status RunSynth(const SynthFlags& flags) {
  blockzoo::SynthOptions synth;
  synth.like = flags.like;
  synth.name = flags.name.empty() ? absl::StrCat("synth-", flags.like) : flags.name;
  synth.seed = flags.seed;
  TESSERA_ASSIGN_OR_RETURN(synth.dtype, DTypeOfWord("--dtype", flags.dtype, CanMake));
  synth.variants = flags.variants;
  synth.shared_layers = flags.share.value_or(0);
  if (flags.materialise) synth.storage = blockzoo::SyntheticStorage::kBytes;
  if (flags.replace) synth.existing = blockzoo::ExistingChain::kReplace;
  TESSERA_RETURN_IF_ERROR(blockzoo::FindSyntheticModel(flags.like).status());
  TESSERA_RETURN_IF_ERROR(blockzoo::CheckChainName(synth.name));
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<Zoo> zoo,
                           OpenFlaggedZoo(*flags.zoo, ZooMode::kCreate));
  TESSERA_ASSIGN_OR_RETURN(const blockzoo::SynthReport report,
                           WithProgress("making", [&](const blockzoo::ZooProgress& progress) {
                             synth.progress = progress;
                             return zoo->Synthesise(synth);
                           }));
  Print(flags.json ? ToJson(report) : blockzoo::Render(report));
  return absl::OkStatus();
}

}  // namespace

void AddSynth(Command& zoo, const std::shared_ptr<SettingsFlags>& flags) {
  const auto options = std::make_shared<SynthFlags>();
  options->zoo = flags;
  Command synth = zoo.Subcommand("synth", "Make chains of a model's shape, with random weights");
  synth.Option("--like", &options->like, "the model whose shape they have");
  synth.Required();
  synth.OneOf(blockzoo::SyntheticModelNames());
  synth.Option("--seed", &options->seed, "what all weights follow from; 0");
  synth.Option("--dtype", &options->dtype,
               "type of the layers' matrices; bf16. The embedding and the lm_head have bf16");
  synth.OneOf(DTypeWords(CanMake));
  synth.Option("--as", &options->name, "what the chain is called; synth-MODEL");
  synth.Option("--variants", &options->variants,
               "so many chains, called NAME-1 and so on, that differ above the shared layers");
  synth.Option("--share", &options->share,
               "leading layers that the variants share, beside the embedding and the lm_head; 0");
  synth.Flag("--materialise", &options->materialise,
             "store the weights' bytes instead of their recipes");
  synth.Flag("--replace", &options->replace, "take names from chains with other content");
  synth.Flag("--json", &options->json, "one JSON object instead of text");
  synth.Examples(
      "  tessera zoo --zoo ~/zoo synth --like tiny --seed 7\n"
      "  tessera zoo --zoo ~/zoo synth --like llama-3-8b --dtype f8-channel --as big\n"
      "  tessera zoo --zoo ~/zoo synth --like llama-3-8b --variants 8 --share 16 --as tenant\n\n"
      "What is stored is a recipe of some hundred bytes a tensor; the weights are made from it\n"
      "when the chain is loaded, and take the memory that the model's own would. A byte of text\n"
      "is a token, and no token ends an answer: they run to their limit.");
  synth.Run([options] { return RunSynth(*options); });
}

}  // namespace tessera::server::cli
