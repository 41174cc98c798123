// tessera perplexity: how well a model predicts a text.
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/cli/commands.h"
#include "server/cli/console.h"
#include "server/cli/generation_flags.h"
#include "server/cli/settings_flags.h"
#include "server/cli/text_perplexity.h"
#include "server/core/startup.h"

namespace tessera::server::cli {
namespace {

struct PerplexityFlags {
  SettingsFlags settings;
  TextPerplexity text;
  std::string model;
  std::optional<std::string> endpoint;
  bool json = false;
};

StatusOr<Perplexity> MeasureAsAsked(const PerplexityFlags& flags) {
  if (flags.endpoint) {
    Client client(*flags.endpoint);
    TESSERA_ASSIGN_OR_RETURN(const std::string model, client.ChooseModel(flags.model));
    return MeasureByDaemon(client, model, flags.text);
  }
  if (flags.model.empty()) {
    return Error(absl::StatusCode::kInvalidArgument,
                 {.what = "no chain is named", .fix = "give --model CHAIN"});
  }
  TESSERA_ASSIGN_OR_RETURN(const std::shared_ptr<const Settings> settings,
                           LoadFlaggedSettings(flags.settings));
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<blockzoo::Zoo> zoo,
                           OpenZooToServe(settings->store));
  return MeasureInZoo(settings, zoo.get(), flags.model, flags.text);
}

Status RunPerplexity(const PerplexityFlags& flags) {
  TESSERA_ASSIGN_OR_RETURN(const Perplexity measured, MeasureAsAsked(flags));
  if (flags.json) {
    const nlohmann::ordered_json out{{"perplexity", measured.value},
                                     {"deviation", measured.deviation},
                                     {"context", flags.text.context},
                                     {"tokens", measured.tokens},
                                     {"scored", measured.scored}};
    Print(out.dump() + "\n");
  } else {
    Print(absl::StrFormat("perplexity %.4f +/- %.4f over %d of %d tokens, contexts of %d\n",
                          measured.value, measured.deviation, measured.scored, measured.tokens,
                          flags.text.context));
  }
  return absl::OkStatus();
}

}  // namespace

void AddPerplexity(CommandLine& line) {
  const auto flags = std::make_shared<PerplexityFlags>();
  Command command = line.Add("perplexity", "Measure how well a model predicts a text");
  command.Option("-f,--file", &flags->text.file, "the text, of which up to 8 MiB are read");
  command.Required();
  command.Option("-m,--model", &flags->model, "a chain of the zoo; with -e, a model of the daemon");
  command.Option("-e,--endpoint", &flags->endpoint,
                 "measure by the daemon at this gRPC address, not in this process");
  command.Option("--tokens", &flags->text.max_tokens, "only so many tokens from the start; 0: all");
  command.Option("--context", &flags->text.context, "tokens of a piece; 512");
  command.Flag("--json", &flags->json, "one JSON object instead of text");
  AddSettingsFlags(command, &flags->settings);
  command.Examples(
      "  tessera perplexity --zoo ~/zoo --model llama --file wiki.test.raw --tokens 20000\n"
      "  tessera perplexity -e 127.0.0.1:50051 --model llama --file wiki.test.raw\n\n"
      "The text is cut into pieces of one context, each is computed alone, and the tokens of its\n"
      "second half count: what llama-perplexity of llama.cpp does, so that figures compare.");
  command.Run([flags] { return RunPerplexity(*flags); });
}

}  // namespace tessera::server::cli
