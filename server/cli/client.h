// The daemon as commands see it: plain values over gRPC.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "config/foundation/clock.h"
#include "config/foundation/status.h"

namespace tessera::server::cli {

struct ChatTurn {
  std::string role;
  std::string content;
};

struct SamplingValues {
  std::optional<double> temperature, top_p, min_p, typical_p;
  std::optional<double> repetition_penalty, presence_penalty, frequency_penalty;
  std::optional<uint32_t> top_k;
  std::optional<uint64_t> seed;
};

// One generation. Exactly one of `messages`, `token_ids` and `prompt` is used, in this order.
struct GenerateCall {
  std::string model;
  std::vector<ChatTurn> messages;
  std::vector<uint32_t> token_ids;
  std::string prompt;
  SamplingValues sampling;
  std::optional<uint32_t> max_tokens;
  uint32_t min_tokens = 0;
  std::vector<std::string> stop;
  enum class EndTokens : uint8_t { kStop, kIgnore } end_tokens = EndTokens::kStop;
  std::optional<uint32_t> logprobs;
  std::optional<uint32_t> prompt_logprobs;
  enum class Tokens : uint8_t { kTextOnly, kWithIds } tokens = Tokens::kTextOnly;
  enum class PrefixCache : uint8_t { kUse, kBypass } prefix_cache = PrefixCache::kUse;
  enum class Numerics : uint8_t { kFast, kDeterministic } numerics = Numerics::kFast;
  Duration timeout{};  // zero: none
};

struct ScoredToken {
  uint32_t id = 0;
  std::optional<float> logprob;
  uint32_t rank = 0;
  std::string raw;
  std::vector<std::pair<uint32_t, float>> top;
};

struct GenerateStarted {
  uint32_t prompt_tokens = 0;
  uint32_t cached_tokens = 0;
  std::string revision;
};

struct GenerateToolCall {
  std::string name;  // empty: goes on with the call before
  std::string arguments;
};

struct GenerateDelta {
  std::string text;
  std::string reasoning;                // of a chat
  std::vector<GenerateToolCall> calls;  // the same
  std::vector<ScoredToken> tokens;
};

struct GenerateFinished {
  std::string reason;  // "eos", "stop", "max_tokens", "context_full", "time_limit", "cancelled"
  uint32_t prompt_tokens = 0;
  uint32_t cached_tokens = 0;
  uint32_t completion_tokens = 0;
  double queue_s = 0;
  double prefill_s = 0;
  double decode_s = 0;
  uint32_t preemptions = 0;
};

// Called from the thread that called Generate. Members may be empty. Tokens of the prompt, when
// their log-probabilities were asked for, come in a delta without text before the first of the
// output.
struct GenerateSink {
  std::function<void(const GenerateStarted&)> started;
  std::function<void(uint32_t done, uint32_t total)> progress;
  std::function<void(const GenerateDelta&)> delta;
  std::function<void(const GenerateFinished&)> finished;
};

struct RemoteModel {
  std::string name;
  std::string revision;
  std::string state;
  uint64_t max_context = 0;
  // Of the admin view only.
  uint32_t blocks = 0;
  uint64_t weight_bytes = 0;
  uint32_t running = 0;
  std::string error;
};

// Cancels calls from another thread or a signal's watcher. Copies share one switch.
class CancelSwitch {
 public:
  CancelSwitch();
  void Cancel();

 private:
  friend class Client;
  struct State;
  std::shared_ptr<State> state_;
};

// Thread-safe. Errors carry the server's code; UNAVAILABLE with a fix when nothing answers.
class Client {
 public:
  // `endpoint`: HOST:PORT or unix:PATH. Connects on the first call.
  explicit Client(const std::string& endpoint);
  ~Client();

  [[nodiscard]] Status Generate(const GenerateCall& call, const GenerateSink& sink,
                                CancelSwitch cancel = CancelSwitch());
  struct Tokens {
    std::vector<ScoredToken> tokens;
    uint32_t max_context = 0;
  };
  enum class SpecialTokens : uint8_t { kAdd, kLeaveOut };
  [[nodiscard]] StatusOr<Tokens> Tokenize(absl::string_view model, absl::string_view text,
                                          SpecialTokens special);
  [[nodiscard]] StatusOr<std::string> Detokenize(absl::string_view model,
                                                 const std::vector<uint32_t>& ids);
  // The log-probability of each of `continuation`, given the context and those before it.
  [[nodiscard]] StatusOr<std::vector<float>> Score(absl::string_view model,
                                                   std::span<const uint32_t> context,
                                                   std::span<const uint32_t> continuation);
  [[nodiscard]] StatusOr<std::vector<RemoteModel>> ListModels();
  // `model`, or the only model there is when it is empty.
  [[nodiscard]] StatusOr<std::string> ChooseModel(const std::string& model);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

struct ConfigLine {
  std::string path;
  std::string from;
  std::string to;
};

struct ReloadResult {
  enum class Outcome : uint8_t { kApplied, kValid, kRefused } outcome = Outcome::kRefused;
  uint64_t generation = 0;
  std::vector<ConfigLine> changes;
  std::vector<std::string> problems;
};

struct DaemonStats {
  uint32_t running = 0, waiting = 0, parked = 0, open_requests = 0;
  uint64_t steps = 0, rows = 0, step_ns = 0, kernel_ns = 0;
  uint64_t preemptions = 0, computed_prompt_tokens = 0, output_tokens = 0;
  uint64_t weight_bytes = 0, config_generation = 0;
  double uptime_s = 0;
  enum class State : uint8_t { kServing, kDraining } state = State::kServing;
};

// The admin socket.
class AdminClient {
 public:
  explicit AdminClient(const std::string& endpoint);
  ~AdminClient();

  using LoadProgress = std::function<void(uint32_t done, uint32_t total)>;
  [[nodiscard]] StatusOr<RemoteModel> Load(const std::string& name, const LoadProgress& progress);
  // Returns how many requests were ended.
  [[nodiscard]] StatusOr<uint32_t> Unload(const std::string& name, Duration grace);
  [[nodiscard]] StatusOr<std::vector<RemoteModel>> ListModels();
  [[nodiscard]] StatusOr<DaemonStats> Stats();
  // OK when nothing runs any more; DEADLINE_EXCEEDED otherwise. Zero: the configured time.
  [[nodiscard]] Status Drain(Duration timeout, const std::function<void(uint32_t open)>& progress);
  [[nodiscard]] Status Resume();
  enum class ReloadMode : uint8_t { kApply, kDryRun };
  [[nodiscard]] StatusOr<ReloadResult> Reload(ReloadMode mode);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tessera::server::cli
