// The engine: one thread that owns every sequence, the planner and the cache, and runs steps while
// there is work.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "blockzoo/chain.h"
#include "config/foundation/clock.h"
#include "config/foundation/ids.h"
#include "config/foundation/metrics.h"
#include "config/foundation/status.h"
#include "kernels/backend.h"
#include "kvcache/kv_cache.h"
#include "scheduler/inbox.h"
#include "scheduler/stream_mailbox.h"

namespace tessera::scheduler {

// The bytes of every token of a chain, for stop strings: offsets [vocab + 1] into bytes.
struct TokenTable {
  std::vector<uint32_t> offsets;
  std::string bytes;

  [[nodiscard]] absl::string_view Of(TokenId token) const {
    return absl::string_view(bytes).substr(offsets[token], offsets[token + 1] - offsets[token]);
  }
};

// Whose tokens must not depend on what else runs. On a device that costs memory, time when a chain
// is added, and speed of the steps that such requests are in; where no row ever depends on its
// batch (the processor) it costs nothing, and every request has it.
enum class Determinism : uint8_t {
  kOff,        // nobody's: requests that ask are refused
  kOnRequest,  // GenerationRequest::deterministic
  kAlways,     // everybody's: a chain for which the device cannot give it is refused
};

struct EngineOptions {
  int threads = 0;  // CPU backend: 0 takes one a usable core
  uint64_t cache_bytes = 256ull << 20;
  bool prefix_reuse = true;
  uint32_t max_batch_tokens = 512;  // rows a step
  uint32_t max_running = 256;       // sequences
  Determinism determinism = Determinism::kOff;
  Inbox::Limits inbox;
  uint32_t park_above_tokens = 2048;               // backlog of a mailbox that parks its sequences
  Duration park_limit = std::chrono::seconds(30);  // then ABORTED
  const Clock* clock = nullptr;                    // null: the machine's
  // Tells the readers of these mailboxes (StreamMailbox::Tell), all that a turn of the engine has
  // filled; engine thread, must not wait, may move them out. Null: the engine thread tells them.
  std::function<void(std::vector<std::shared_ptr<StreamMailbox>>& ready)> tell;
  // The device is gone, and every request has ended or will end with UNAVAILABLE; once, engine
  // thread.
  std::function<void(const Status&)> on_device_lost;
};

// A chain as the engine runs it.
struct EngineChain {
  std::string name;  // label of logs and metrics
  std::shared_ptr<const blockzoo::Chain> chain;
  std::shared_ptr<const TokenTable> tokens;
  ModelMetrics metrics;  // detached handles count nothing
};

struct EngineStats {
  uint32_t running = 0;
  uint32_t waiting = 0;
  uint32_t parked = 0;
  uint64_t steps = 0;
  uint64_t rows = 0;
  uint64_t step_ns = 0;    // wall time of steps
  uint64_t kernel_ns = 0;  // part of it inside kernels
  // The engine thread's own time outside kernels: planning, gathering and answering in processor
  // time, the few instructions between two kernels in wall time.
  uint64_t overhead_ns = 0;
  uint64_t device_idle_ns = 0;  // that a device waited for the host between two steps
  uint64_t preemptions = 0;
  uint64_t computed_prompt_tokens = 0;
  uint64_t output_tokens = 0;
  kvcache::CacheStats cache;
};

// What a spell of steps spent its time on.
struct EngineProfile {
  std::vector<kernels::OpProfile::Line> ops;  // most time first
  uint64_t own_ns = 0;                        // of counting, inside step_ns and kernel_ns
  uint64_t steps = 0;                         // these as in EngineStats
  uint64_t rows = 0;
  uint64_t step_ns = 0;
  uint64_t kernel_ns = 0;
  uint64_t overhead_ns = 0;
};

class Engine {
 public:
  // `metrics` may be null. RESOURCE_EXHAUSTED when the memory plan does not fit.
  [[nodiscard]] static StatusOr<std::unique_ptr<Engine>> Create(
      const EngineOptions& options, std::shared_ptr<const kernels::Backend> backend,
      EngineMetrics* metrics);
  // Stops the thread; requests still inside end with UNAVAILABLE.
  ~Engine();

  // Requests enter here; see Inbox.
  [[nodiscard]] Inbox& inbox();

  // Adds a bound chain under an id of the caller's choosing (unique for the engine's life) and
  // grows the workspace for it. Returns when the engine has it. Thread-safe.
  [[nodiscard]] Status AddChain(ChainId id, const EngineChain& chain);
  // No new requests for the chain; `done` is called on the engine thread when its last sequence has
  // retired and the engine has dropped it. Thread-safe.
  void RemoveChain(ChainId id, std::function<void()> done);

  // OK when prompt + max_tokens fit an empty cache and the context; else INVALID_ARGUMENT with the
  // figures. Thread-safe for a chain the caller holds.
  [[nodiscard]] Status CheckFits(const blockzoo::Chain& chain, uint64_t prompt_tokens,
                                 uint64_t max_tokens) const;
  // Most tokens (prompt and output) that one sequence of the chain can hold here.
  [[nodiscard]] uint64_t MaxSequenceTokens(const blockzoo::Chain& chain) const;

  // As of now, between two steps: waits for the one that runs. Thread-safe.
  [[nodiscard]] EngineStats Stats() const;
  // Counts every launch of the processor's kernels until TakeProfile, which gives what was counted
  // since. Both wait for the step that runs. Thread-safe; one profile at a time.
  void StartProfile();
  [[nodiscard]] EngineProfile TakeProfile();
  // The next step's plan as text, or that of an empty step when nothing runs. Thread-safe; waits
  // for the step.
  [[nodiscard]] std::string DescribeNextPlan();
  // The memory plan, for people.
  [[nodiscard]] std::string DescribeMemory() const;
  // Time of the last finished step or idle wake-up, for a watchdog. Thread-safe.
  [[nodiscard]] TimePoint last_progress() const;

  // No new submissions; returns when every accepted request has ended or at `until` (then the rest
  // is ended with UNAVAILABLE). Thread-safe.
  [[nodiscard]] Status Drain(TimePoint until);

 private:
  struct Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tessera::scheduler
