// tessera tokenize: text to tokens and back, as a model does it.
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "config/foundation/text.h"
#include "server/cli/commands.h"
#include "server/cli/console.h"
#include "server/cli/generation_flags.h"

namespace tessera::server::cli {
namespace {

using Json = nlohmann::ordered_json;

struct TokenizeOptions {
  std::string endpoint = kDefaultEndpoint;
  std::string model;
  std::optional<std::string> prompt;
  std::optional<std::string> token_ids;
  bool no_special = false;
  bool ids = false;
  bool json = false;
};

std::string TokensText(const TokenizeOptions& options, const Client::Tokens& tokens) {
  std::vector<uint32_t> ids;
  std::vector<std::vector<std::string>> rows;
  Json list = Json::array();
  for (const ScoredToken& token : tokens.tokens) {
    ids.push_back(token.id);
    rows.push_back({absl::StrCat(rows.size()), absl::StrCat(token.id), Quoted(token.raw)});
    list.push_back({{"id", token.id}, {"text", token.raw}});
  }
  if (options.ids) return absl::StrCat(absl::StrJoin(ids, ","), "\n");
  if (options.json) {
    const Json out{{"token_ids", ids}, {"tokens", list}, {"max_context", tokens.max_context}};
    return out.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  }
  return absl::StrCat(Table({">#", ">ID", "TOKEN"}, rows), ids.size(), " tokens of a context of ",
                      tokens.max_context, "\n");
}

Status RunTokenize(const TokenizeOptions& options) {
  if (options.prompt && options.token_ids) {
    return Error(
        absl::StatusCode::kInvalidArgument,
        {.what = "two inputs are given", .fix = "give --prompt TEXT or --token-ids 1,2,3"});
  }
  Client client(options.endpoint);
  TESSERA_ASSIGN_OR_RETURN(const std::string model, client.ChooseModel(options.model));
  if (options.token_ids) {
    TESSERA_ASSIGN_OR_RETURN(const std::vector<uint32_t> ids, ParseTokenIds(*options.token_ids));
    TESSERA_ASSIGN_OR_RETURN(const std::string text, client.Detokenize(model, ids));
    Print(options.json ? Json{{"text", text}}.dump() + "\n" : ForTerminal(text) + "\n");
    return absl::OkStatus();
  }
  const std::string text =
      options.prompt ? *options.prompt : std::string(std::istreambuf_iterator<char>(std::cin), {});
  TESSERA_ASSIGN_OR_RETURN(const Client::Tokens tokens,
                           client.Tokenize(model, text,
                                           options.no_special ? Client::SpecialTokens::kLeaveOut
                                                              : Client::SpecialTokens::kAdd));
  Print(TokensText(options, tokens));
  return absl::OkStatus();
}

}  // namespace

void AddTokenize(CommandLine& line) {
  const auto options = std::make_shared<TokenizeOptions>();
  Command command = line.Add("tokenize", "Text to tokens, or token ids back to text");
  command.Option("-p,--prompt", &options->prompt, "the text; without it, standard input");
  command.Option("--token-ids", &options->token_ids, "ids to turn into text, with commas between");
  command.Option("-e,--endpoint", &options->endpoint, "the daemon's gRPC address");
  command.Option("-m,--model", &options->model, "model; may be left out if there is only one");
  command.Flag("--no-special-tokens", &options->no_special,
               "leave out what the model puts around every prompt");
  command.Flag("--ids", &options->ids, "only the ids, as `generate --token-ids` takes them");
  command.Flag("--json", &options->json, "one JSON object instead of a table");
  command.Examples(
      "  tessera tokenize --model m --prompt \"Once upon a time\"\n"
      "  tessera tokenize --model m --token-ids 1,403,407\n"
      "  tessera tokenize --model m --ids < story.txt");
  command.Run([options] { return RunTokenize(*options); });
}

}  // namespace tessera::server::cli
