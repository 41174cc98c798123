// tessera zoo quantize: a chain with its matrices in another element type.
#include "absl/strings/str_cat.h"
#include "blockzoo/zoo_report.h"
#include "kernels/weight_codec.h"
#include "server/cli/console.h"
#include "server/cli/dtype_words.h"
#include "server/cli/text_perplexity.h"
#include "server/cli/zoo_json.h"
#include "server/cli/zoo_makers.h"

namespace tessera::server::cli {
namespace {

using blockzoo::QuantizedHead;
using blockzoo::Zoo;
using blockzoo::ZooMode;

struct QuantizeFlags {
  std::shared_ptr<SettingsFlags> zoo;
  std::string source;
  std::string to;
  std::string name;
  bool keep_head = false;
  bool quantize_head = false;
  bool replace = false;
  bool json = false;
  TextPerplexity text;  // without a file: not measured
};

StatusOr<QuantizedHead> HeadOf(const QuantizeFlags& flags) {
  if (flags.keep_head && flags.quantize_head) {
    return Error(absl::StatusCode::kInvalidArgument,
                 {.what = "the lm_head cannot be both kept and quantized",
                  .where = "--keep-head and --quantize-head",
                  .fix = "give one of them"});
  }
  if (flags.keep_head) return QuantizedHead::kKeep;
  return flags.quantize_head ? QuantizedHead::kQuantized : QuantizedHead::kBF16;
}

// The perplexity of the source and of the new chain; nullopt when nobody asked.
StatusOr<std::optional<PerplexityCost>> MeasureCost(const QuantizeFlags& flags, Zoo* zoo,
                                                    const std::string& made) {
  if (flags.text.file.empty()) return std::nullopt;
  TESSERA_ASSIGN_OR_RETURN(const std::shared_ptr<const Settings> settings,
                           LoadFlaggedSettings(*flags.zoo));
  PerplexityCost cost{.context = flags.text.context, .source = {}, .made = {}};
  TESSERA_ASSIGN_OR_RETURN(cost.source, MeasureInZoo(settings, zoo, flags.source, flags.text));
  TESSERA_ASSIGN_OR_RETURN(cost.made, MeasureInZoo(settings, zoo, made, flags.text));
  return cost;
}

Status RunQuantize(const QuantizeFlags& flags) {
  blockzoo::QuantizeOptions quantize;
  quantize.source = flags.source;
  quantize.name = flags.name.empty() ? absl::StrCat(flags.source, "-", flags.to) : flags.name;
  TESSERA_ASSIGN_OR_RETURN(quantize.to, DTypeOfWord("--to", flags.to, kernels::HasEncoder));
  TESSERA_ASSIGN_OR_RETURN(quantize.head, HeadOf(flags));
  if (flags.replace) quantize.existing = blockzoo::ExistingChain::kReplace;
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<Zoo> zoo,
                           OpenFlaggedZoo(*flags.zoo, ZooMode::kReadWrite));
  TESSERA_ASSIGN_OR_RETURN(const blockzoo::QuantizeReport report,
                           WithProgress("quantizing", [&](const blockzoo::ZooProgress& progress) {
                             quantize.progress = progress;
                             return zoo->Quantize(quantize);
                           }));
  TESSERA_ASSIGN_OR_RETURN(const std::optional<PerplexityCost> cost,
                           MeasureCost(flags, zoo.get(), quantize.name));
  Print(flags.json ? ToJson(report, cost)
                   : blockzoo::Render(report) + (cost ? Render(*cost) : std::string()));
  return absl::OkStatus();
}

}  // namespace

void AddQuantize(Command& zoo, const std::shared_ptr<SettingsFlags>& flags) {
  const auto options = std::make_shared<QuantizeFlags>();
  options->zoo = flags;
  options->text.max_tokens = 20480;
  Command quantize =
      zoo.Subcommand("quantize", "Make a chain with another chain's weights in a smaller type");
  quantize.Argument("CHAIN", &options->source, "the chain to read");
  quantize.Option("--to", &options->to, "type of the layers' matrices");
  quantize.Required();
  quantize.OneOf(DTypeWords(kernels::HasEncoder));
  quantize.Option("--as", &options->name, "what the new chain is called; CHAIN-TYPE");
  quantize.Flag("--keep-head", &options->keep_head,
                "leave the embedding and the lm_head in the source's type; they become bf16");
  quantize.Flag("--quantize-head", &options->quantize_head,
                "give the lm_head the type of the layers too");
  quantize.Flag("--replace", &options->replace, "take the name from a chain with other content");
  quantize.Option("--perplexity", &options->text.file,
                  "a text: also measure what both chains make of it");
  quantize.Option("--perplexity-tokens", &options->text.max_tokens,
                  "tokens of the text from its start; 0: all; 20480");
  quantize.Flag("--json", &options->json, "one JSON object instead of text");
  quantize.Examples(
      "  tessera zoo --zoo ~/zoo quantize llama --to f8-channel\n"
      "  tessera zoo --zoo ~/zoo quantize llama --to i4-g128 --as llama-int4\n"
      "  tessera zoo --zoo ~/zoo quantize llama --to q4_k --quantize-head\n"
      "  tessera zoo --zoo ~/zoo quantize llama --to q8_0 --perplexity wiki.test.raw\n\n"
      "The new chain says what it lost: the relative L2 error of its tensors, on the mean and of\n"
      "the worst one, here and in `tessera zoo show`. Norms and biases stay as they are. GGUF's\n"
      "types (q8_0 ... mxfp4) run on a processor; those with blocks of 256 take one with blocks\n"
      "of 32 where a matrix has rows that are no multiple of 256, and say so. Chains\n"
      "that share blocks share them afterwards, and a second run writes nothing.");
  quantize.Run([options] { return RunQuantize(*options); });
}

}  // namespace tessera::server::cli
