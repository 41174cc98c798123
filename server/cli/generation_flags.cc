#include "server/cli/generation_flags.h"

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "config/foundation/text.h"

namespace tessera::server::cli {

void AddGenerationFlags(Command& command, GenerationFlags* flags) {
  GenerateCall* const call = &flags->call;
  SamplingValues* const sampling = &call->sampling;
  command.Option("-e,--endpoint", &flags->endpoint, "the daemon's gRPC address");
  command.Option("-m,--model", &call->model, "model; may be left out if there is only one");
  command.Option("-n,--max-tokens", &call->max_tokens,
                 "longest output; default: to the context's end");
  command.Option("--min-tokens", &call->min_tokens, "no end before this many");
  command.Option("-t,--temperature", &sampling->temperature, "0 is greedy");
  command.Option("--top-p", &sampling->top_p, "smallest set of this probability");
  command.Option("--top-k", &sampling->top_k, "this many likeliest; 0: all");
  command.Option("--min-p", &sampling->min_p, "at least this part of the best's probability");
  command.Option("--typical-p", &sampling->typical_p, "locally typical set of this probability");
  command.Option("--repetition-penalty", &sampling->repetition_penalty, "1 is none");
  command.Option("--presence-penalty", &sampling->presence_penalty, "-2 to 2");
  command.Option("--frequency-penalty", &sampling->frequency_penalty, "-2 to 2");
  command.Option("--seed", &sampling->seed, "same seed, same tokens, whatever else runs");
  command.Option("--stop", &call->stop, "end before this text; may be repeated");
  command.Flag("--ignore-eos", &flags->ignore_eos, "go on after end tokens");
  command.Flag("--no-prefix-cache", &flags->no_prefix_cache, "compute the whole prompt");
  command.Flag("--deterministic", &flags->deterministic,
               "tokens that do not depend on what else runs; slower on a device");
  command.Option("--timeout", &flags->timeout_s, "seconds until the request is given up; 0: none");
}

GenerateCall CallOf(const GenerationFlags& flags) {
  GenerateCall call = flags.call;
  if (flags.ignore_eos) {
    call.end_tokens = GenerateCall::EndTokens::kIgnore;
  }
  if (flags.no_prefix_cache) {
    call.prefix_cache = GenerateCall::PrefixCache::kBypass;
  }
  if (flags.deterministic) {
    call.numerics = GenerateCall::Numerics::kDeterministic;
  }
  if (flags.timeout_s > 0) {
    call.timeout =
        std::chrono::duration_cast<Duration>(std::chrono::duration<double>(flags.timeout_s));
  }
  return call;
}

StatusOr<std::vector<uint32_t>> ParseTokenIds(absl::string_view text) {
  std::vector<uint32_t> ids;
  for (const absl::string_view part :
       absl::StrSplit(text, absl::ByAnyChar(", "), absl::SkipEmpty())) {
    uint32_t id = 0;
    if (!absl::SimpleAtoi(part, &id)) {
      return Error(absl::StatusCode::kInvalidArgument,
                   {.what = absl::StrCat(Quoted(part), " is not a token id"),
                    .where = "--token-ids",
                    .fix = "give numbers with commas between them: 1,2,3"});
    }
    ids.push_back(id);
  }
  if (ids.empty()) {
    return Error(
        absl::StatusCode::kInvalidArgument,
        {.what = "there are no token ids", .where = "--token-ids", .fix = "give at least one"});
  }
  return ids;
}

}  // namespace tessera::server::cli
