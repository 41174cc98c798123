// tessera bench: a bounded load test of a running daemon.
#include <atomic>
#include <chrono>
#include <mutex>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "config/foundation/text.h"
#include "server/cli/bench_profile.h"
#include "server/cli/bench_stats.h"
#include "server/cli/commands.h"
#include "server/cli/console.h"
#include "server/cli/generation_flags.h"
#include "server/cli/interrupt.h"

namespace tessera::server::cli {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

constexpr uint32_t kMaxConcurrency = 4096;
constexpr uint32_t kMaxTokens = 1 << 20;

// Text whose tokens, in random order, make the prompts.
constexpr char kSource[] =
    "The quick brown fox jumps over the lazy dog while seven wizards pack my box with five dozen "
    "jugs of water, and every number from 0 to 9, each sign (+, -, *, /) and a few names, Lily "
    "and Tom among them, come up once or twice in the story of that long and sunny day.";

struct BenchOptions {
  std::string endpoint = kDefaultEndpoint;
  std::string model;
  std::string concurrency = "1,4,16";
  uint32_t requests = 0;
  uint32_t prompt_tokens = 128;
  uint32_t shared_tokens = 0;
  uint32_t max_tokens = 64;
  double seconds = 30;
  uint64_t seed = 1;
  bool deterministic = false;
  bool json = false;
  bool profile = false;
  SettingsFlags settings;
};

Status Bad(absl::string_view what, absl::string_view where, absl::string_view fix) {
  return Error(absl::StatusCode::kInvalidArgument,
               {.what = std::string(what), .where = std::string(where), .fix = std::string(fix)});
}

StatusOr<std::vector<uint32_t>> ParseLevels(absl::string_view text) {
  std::vector<uint32_t> levels;
  for (const absl::string_view part : absl::StrSplit(text, ',', absl::SkipEmpty())) {
    uint32_t level = 0;
    if (!absl::SimpleAtoi(part, &level) || level == 0 || level > kMaxConcurrency) {
      return Bad(absl::StrCat(Quoted(part), " is not a number of clients"), "--concurrency",
                 absl::StrCat("give numbers from 1 to ", kMaxConcurrency, ": 1,4,16"));
    }
    levels.push_back(level);
  }
  if (levels.empty()) return Bad("no number of clients is given", "--concurrency", "give 1,4,16");
  return levels;
}

Status CheckOptions(const BenchOptions& options) {
  if (options.prompt_tokens == 0 || options.prompt_tokens > kMaxTokens) {
    return Bad("the prompt's length is out of range", "--prompt-tokens",
               absl::StrCat("give 1 to ", kMaxTokens));
  }
  if (options.shared_tokens > options.prompt_tokens) {
    return Bad("the shared start is longer than the prompt", "--shared-tokens",
               absl::StrCat("give at most --prompt-tokens, ", options.prompt_tokens));
  }
  if (options.max_tokens == 0 || options.max_tokens > kMaxTokens) {
    return Bad("the output's length is out of range", "--max-tokens",
               absl::StrCat("give 1 to ", kMaxTokens));
  }
  if (!(options.seconds > 0 && options.seconds <= 3600)) {
    return Bad("the time of a level is out of range", "--seconds", "give more than 0, up to 3600");
  }
  return absl::OkStatus();
}

// One load level: `concurrency` clients, each with one request at a time.
class Level {
 public:
  Level(const BenchOptions& options, std::string model, std::vector<uint32_t> alphabet,
        uint32_t concurrency)
      : options_(options),
        model_(std::move(model)),
        alphabet_(std::move(alphabet)),
        concurrency_(concurrency),
        requests_(options.requests > 0 ? options.requests : 4 * concurrency) {}

  BenchLevel Run() {
    begin_ = Clock::now();
    std::vector<std::thread> threads;
    for (uint32_t i = 0; i < std::min(concurrency_, requests_); ++i) {
      threads.emplace_back([this] { Work(); });
    }
    for (std::thread& thread : threads) thread.join();
    BenchLevel level = Summarize(concurrency_, samples_, Elapsed(begin_));
    level.failed = failed_;
    level.first_error = first_error_;
    return level;
  }

  // From another thread: no more requests, and those that run end.
  void Stop() {
    stopped_.store(true);
    cancel_.Cancel();
  }

 private:
  static double Elapsed(Clock::time_point since) {
    return std::chrono::duration<double>(Clock::now() - since).count();
  }

  void Work() {
    Client client(options_.endpoint);
    while (!stopped_.load() && Elapsed(begin_) < options_.seconds) {
      const uint32_t number = next_.fetch_add(1);
      if (number >= requests_) return;
      BenchSample sample;
      const Status status = One(client, number, sample);
      const std::scoped_lock lock(mutex_);
      if (status.ok()) {
        samples_.push_back(sample);
      } else if (!stopped_.load()) {
        if (failed_++ == 0) first_error_ = std::string(status.message());
      }
    }
  }

  [[nodiscard]] std::vector<uint32_t> Prompt(uint32_t number) const {
    std::vector<uint32_t> ids;
    std::mt19937_64 shared(options_.seed);
    std::mt19937_64 own(options_.seed * 1'000'003 + number + 1);
    while (ids.size() < options_.prompt_tokens) {
      std::mt19937_64& source = ids.size() < options_.shared_tokens ? shared : own;
      ids.push_back(alphabet_[source() % alphabet_.size()]);
    }
    return ids;
  }

  Status One(Client& client, uint32_t number, BenchSample& sample) {
    GenerateCall call;
    call.model = model_;
    call.token_ids = Prompt(number);
    call.max_tokens = options_.max_tokens;
    call.sampling.temperature = 0;
    call.end_tokens = GenerateCall::EndTokens::kIgnore;
    call.tokens = GenerateCall::Tokens::kWithIds;
    if (options_.shared_tokens == 0) call.prefix_cache = GenerateCall::PrefixCache::kBypass;
    if (options_.deterministic) call.numerics = GenerateCall::Numerics::kDeterministic;
    const Clock::time_point begin = Clock::now();
    GenerateSink sink;
    sink.delta = [&](const GenerateDelta& delta) {
      if (sample.first_token_s == 0 && !delta.tokens.empty()) sample.first_token_s = Elapsed(begin);
    };
    sink.finished = [&](const GenerateFinished& finished) {
      sample.prompt_tokens = finished.prompt_tokens;
      sample.output_tokens = finished.completion_tokens;
    };
    const Status status = client.Generate(call, sink, cancel_);
    sample.total_s = Elapsed(begin);
    return status;
  }

  const BenchOptions& options_;
  const std::string model_;
  const std::vector<uint32_t> alphabet_;
  const uint32_t concurrency_;
  const uint32_t requests_;
  CancelSwitch cancel_;
  Clock::time_point begin_;
  std::atomic<uint32_t> next_{0};
  std::atomic<bool> stopped_{false};
  std::mutex mutex_;
  std::vector<BenchSample> samples_;  // guarded by mutex_, as is what follows
  uint32_t failed_ = 0;
  std::string first_error_;
};

Json PercentilesJson(const Percentiles& p) {
  return {{"p50", p.p50}, {"p95", p.p95}, {"p99", p.p99}};
}

Json LevelJson(const BenchLevel& level) {
  Json out{{"concurrency", level.concurrency},
           {"finished", level.finished},
           {"failed", level.failed},
           {"wall_s", level.wall_s},
           {"output_tokens_per_s", level.output_tokens_per_s},
           {"requests_per_s", level.requests_per_s},
           {"first_token_s", PercentilesJson(level.first_token_s)},
           {"time_per_output_token_s", PercentilesJson(level.time_per_output_token_s)}};
  if (level.failed > 0) out["first_error"] = level.first_error;
  return out;
}

std::string ReportJson(const BenchOptions& options, const std::string& model,
                       const std::vector<BenchLevel>& levels) {
  Json out{{"model", model},
           {"endpoint", options.endpoint},
           {"prompt_tokens", options.prompt_tokens},
           {"shared_tokens", options.shared_tokens},
           {"max_tokens", options.max_tokens},
           {"seed", options.seed},
           {"deterministic", options.deterministic},
           {"levels", Json::array()}};
  for (const BenchLevel& level : levels) out["levels"].push_back(LevelJson(level));
  return out.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string ReportTable(const std::vector<BenchLevel>& levels) {
  std::vector<std::vector<std::string>> rows;
  std::string errors;
  for (const BenchLevel& level : levels) {
    rows.push_back({absl::StrCat(level.concurrency), absl::StrCat(level.finished),
                    absl::StrCat(level.failed), absl::StrFormat("%.1f", level.output_tokens_per_s),
                    absl::StrFormat("%.2f", level.requests_per_s),
                    HumanSeconds(level.first_token_s.p50), HumanSeconds(level.first_token_s.p95),
                    HumanSeconds(level.time_per_output_token_s.p50),
                    HumanSeconds(level.time_per_output_token_s.p95)});
    if (level.failed == 0) continue;
    absl::StrAppend(&errors, level.failed, " failed with ", level.concurrency,
                    " clients, first: ", level.first_error, "\n");
  }
  return Table({">CLIENTS", ">DONE", ">FAILED", ">TOKENS/S", ">REQUESTS/S", ">TTFT P50",
                ">TTFT P95", ">TPOT P50", ">TPOT P95"},
               rows) +
         errors;
}

// Distinct ids of the model's own, for prompts.
StatusOr<std::vector<uint32_t>> AlphabetOf(Client& client, const std::string& model) {
  TESSERA_ASSIGN_OR_RETURN(const Client::Tokens tokens,
                           client.Tokenize(model, kSource, Client::SpecialTokens::kLeaveOut));
  std::vector<uint32_t> ids;
  for (const ScoredToken& token : tokens.tokens) ids.push_back(token.id);
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  if (ids.empty()) {
    return Error(absl::StatusCode::kFailedPrecondition,
                 {.what = absl::StrCat("model \"", model, "\" gave no tokens for a text")});
  }
  return ids;
}

Status RunBench(const BenchOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(const std::vector<uint32_t> concurrencies,
                           ParseLevels(options.concurrency));
  TESSERA_RETURN_IF_ERROR(CheckOptions(options));
  if (options.profile) {
    return ProfileInZoo(options.settings, options.model, concurrencies,
                        {.prompt_tokens = options.prompt_tokens,
                         .output_tokens = options.max_tokens,
                         .seed = options.seed},
                        options.json ? ProfileForm::kJson : ProfileForm::kTable);
  }
  std::mutex mutex;
  Level* running = nullptr;
  bool interrupted = false;
  const InterruptWatcher watcher([&] {
    const std::scoped_lock lock(mutex);
    interrupted = true;
    if (running != nullptr) running->Stop();
  });
  Client client(options.endpoint);
  TESSERA_ASSIGN_OR_RETURN(const std::string model, client.ChooseModel(options.model));
  TESSERA_ASSIGN_OR_RETURN(const std::vector<uint32_t> alphabet, AlphabetOf(client, model));
  std::vector<BenchLevel> levels;
  uint32_t failed = 0;
  for (const uint32_t concurrency : concurrencies) {
    Level level(options, model, alphabet, concurrency);
    {
      const std::scoped_lock lock(mutex);
      if (interrupted) break;
      running = &level;
    }
    if (!options.json) PrintError(absl::StrCat(concurrency, " clients...\n"));
    levels.push_back(level.Run());
    failed += levels.back().failed;
    const std::scoped_lock lock(mutex);
    running = nullptr;
  }
  Print(options.json ? ReportJson(options, model, levels) : ReportTable(levels));
  if (interrupted) return absl::CancelledError("");
  // The table has said why.
  return failed == 0 ? absl::OkStatus() : Status(absl::StatusCode::kInternal, "");
}

}  // namespace

void AddBench(CommandLine& line) {
  const auto options = std::make_shared<BenchOptions>();
  Command command = line.Add("bench", "Measure a running daemon under load");
  command.Option("-e,--endpoint", &options->endpoint, "the daemon's gRPC address");
  command.Option("-m,--model", &options->model, "model; may be left out if there is only one");
  command.Option("--concurrency", &options->concurrency,
                 "clients at once; one level after another, with commas between");
  command.Option("--requests", &options->requests, "requests a level; 0: four for each client");
  command.Option("--prompt-tokens", &options->prompt_tokens, "length of each prompt");
  command.Option("--shared-tokens", &options->shared_tokens,
                 "equal start of all prompts; with 0 the prefix cache is passed by");
  command.Option("-n,--max-tokens", &options->max_tokens, "length of each output");
  command.Option("--seconds", &options->seconds,
                 "no request of a level begins after this; those that run end");
  command.Option("--seed", &options->seed, "of the prompts");
  command.Flag("--deterministic", &options->deterministic,
               "tokens that do not depend on what else runs; without it, what they cost shows");
  command.Flag(
      "--profile", &options->profile,
      "no daemon: where a step's time goes, by op, for a chain of the zoo on the processor");
  AddSettingsFlags(command, &options->settings);
  command.Flag("--json", &options->json, "one JSON object instead of a table");
  command.Examples(
      "  tessera bench --model m\n"
      "  tessera bench --model m --concurrency 1,8,64 --prompt-tokens 512 --max-tokens 128 "
      "--json\n"
      "  tessera bench --profile --zoo ~/zoo --model llama --concurrency 1,8\n\n"
      "Prompts are random tokens of the model, outputs have their full length. TTFT is the time\n"
      "to the first token, TPOT a request's time per output token after it; P50 and P95 are\n"
      "percentiles over the requests. TOKENS/S counts output tokens of all clients.");
  command.Run([options] { return RunBench(*options); });
}

}  // namespace tessera::server::cli
