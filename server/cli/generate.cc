// tessera generate: one request, its text or everything about it as JSON.
#include <chrono>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "server/cli/commands.h"
#include "server/cli/console.h"
#include "server/cli/generation_flags.h"

namespace tessera::server::cli {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

struct GenerateOptions {
  GenerationFlags flags;
  std::optional<std::string> prompt;
  std::optional<std::string> token_ids;
  bool json = false;
};

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Best first: the candidates that were asked for, or the token itself when none were.
Json PairsOf(const ScoredToken& token) {
  Json pairs = Json::array();
  for (const auto& [id, logprob] : token.top) {
    pairs.push_back(Json::array({id, logprob}));
  }
  if (pairs.empty() && token.logprob) {
    pairs.push_back(Json::array({token.id, *token.logprob}));
  }
  return pairs;
}

// What a run has gathered.
struct Gathered {
  std::string text;
  std::vector<ScoredToken> prompt_tokens;
  std::vector<ScoredToken> tokens;
  GenerateStarted started;
  GenerateFinished finished;
  double first_token_s = 0;
  double total_s = 0;
};

Json GenerationJson(const Gathered& run, const GenerateCall& call) {
  Json out;
  out["token_ids"] = Json::array();
  for (const ScoredToken& token : run.tokens) {
    out["token_ids"].push_back(token.id);
  }
  out["text"] = run.text;
  if (call.logprobs) {
    out["logprobs"] = Json::array();
    for (const ScoredToken& token : run.tokens) {
      out["logprobs"].push_back(PairsOf(token));
    }
  }
  if (call.prompt_logprobs) {
    out["prompt_logprobs"] = Json::array();
    for (const ScoredToken& token : run.prompt_tokens) {
      out["prompt_logprobs"].push_back(
          Json{{"id", token.id},
               {"logprob", token.logprob ? Json(*token.logprob) : Json(nullptr)},
               {"top", PairsOf(token)}});
    }
  }
  out["finish_reason"] = run.finished.reason;
  out["prompt_tokens"] = run.started.prompt_tokens;
  out["cached_tokens"] = run.started.cached_tokens;
  out["completion_tokens"] = run.finished.completion_tokens;
  out["timings"] = Json{{"queue_s", run.finished.queue_s},
                        {"prefill_s", run.finished.prefill_s},
                        {"decode_s", run.finished.decode_s},
                        {"first_token_s", run.first_token_s},
                        {"total_s", run.total_s},
                        {"preemptions", run.finished.preemptions}};
  out["model_revision"] = run.started.revision;
  return out;
}

Status RunGenerate(const GenerateOptions& options) {
  Client client(options.flags.endpoint);
  GenerateCall call = CallOf(options.flags);
  if (options.prompt.has_value() == options.token_ids.has_value()) {
    return Error(absl::StatusCode::kInvalidArgument,
                 {.what = options.prompt ? "two inputs are given" : "no input is given",
                  .fix = "give either --prompt TEXT or --token-ids 1,2,3"});
  }
  if (options.token_ids) {
    TESSERA_ASSIGN_OR_RETURN(call.token_ids, ParseTokenIds(*options.token_ids));
  } else {
    call.prompt = *options.prompt;
  }
  TESSERA_ASSIGN_OR_RETURN(call.model, client.ChooseModel(call.model));
  if (options.json) {
    call.tokens = GenerateCall::Tokens::kWithIds;
  }
  Gathered run;
  const Clock::time_point begin = Clock::now();
  GenerateSink sink;
  sink.started = [&](const GenerateStarted& started) { run.started = started; };
  sink.delta = [&](const GenerateDelta& delta) {
    const size_t prompt_tokens =
        call.prompt_logprobs && run.started.prompt_tokens > 0 ? run.started.prompt_tokens - 1 : 0;
    for (const ScoredToken& token : delta.tokens) {
      (run.prompt_tokens.size() < prompt_tokens ? run.prompt_tokens : run.tokens).push_back(token);
    }
    if (run.first_token_s == 0 && (!delta.text.empty() || !run.tokens.empty())) {
      run.first_token_s = SecondsSince(begin);
    }
    run.text += delta.text;
    if (!options.json) {
      Print(ForTerminal(delta.text));
    }
  };
  sink.finished = [&](const GenerateFinished& finished) { run.finished = finished; };
  const Status status = client.Generate(call, sink);
  run.total_s = SecondsSince(begin);
  if (!options.json) {
    Print("\n");
    return status;
  }
  TESSERA_RETURN_IF_ERROR(status);
  Print(GenerationJson(run, call).dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
  return absl::OkStatus();
}

}  // namespace

void AddGenerate(CommandLine& line) {
  const auto options = std::make_shared<GenerateOptions>();
  Command command = line.Add("generate", "Continue a prompt; text as it comes, or one JSON object");
  command.Option("-p,--prompt", &options->prompt, "text to continue");
  command.Option("--token-ids", &options->token_ids, "token ids to continue, with commas between");
  AddGenerationFlags(command, &options->flags);
  command.Option("--logprobs", &options->flags.call.logprobs,
                 "log-probabilities of this many best tokens a step");
  command.Option("--prompt-logprobs", &options->flags.call.prompt_logprobs,
                 "the same for the prompt's tokens");
  command.Flag("--json", &options->json, "one JSON object at the end instead of text");
  command.Examples(
      "  tessera generate --model m --prompt \"Once upon a time\" --max-tokens 64 --temperature 0\n"
      "  tessera generate --model m --token-ids 1,403,407 --logprobs 5 --ignore-eos --json\n"
      "JSON: token_ids, text, logprobs (a list of [id, value] pairs for each step), "
      "finish_reason,\n"
      "prompt_tokens, cached_tokens, completion_tokens, timings (seconds).");
  command.Run([options] { return RunGenerate(*options); });
}

}  // namespace tessera::server::cli
