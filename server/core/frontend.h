// The one way in: what every front door (gRPC, HTTP) calls to serve a request.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "config/foundation/metrics.h"
#include "config/snapshot.h"
#include "scheduler/engine.h"
#include "server/core/generation_spec.h"
#include "server/core/model_registry.h"
#include "server/core/request_handle.h"
#include "server/core/timer.h"
#include "server/core/work_pool.h"

namespace tessera::server {

// Thread-safe; no call waits.
class Frontend {
 public:
  struct Parts {
    scheduler::Engine* engine = nullptr;
    ModelRegistry* registry = nullptr;
    WorkPool* pool = nullptr;
    Timer* timer = nullptr;
    SettingsStore* settings = nullptr;
    ServerMetrics* metrics = nullptr;  // may be null
    const Clock* clock = nullptr;      // null: the machine's
  };
  // All parts outlive it.
  explicit Frontend(const Parts& parts);
  // Ends what is still open.
  ~Frontend();

  // What Start would refuse the request for before it reserves anything.
  [[nodiscard]] Status Check(const GenerationSpec& spec) const;

  // Validates the request, reserves its place in the queue and starts it; a model that is not
  // loaded is loaded meanwhile. An error here means that nothing happened and `sink` is not called.
  // The sink is told on a pool thread, never from inside this call, and no more once it has died.
  [[nodiscard]] StatusOr<std::shared_ptr<RequestHandle>> Start(GenerationSpec spec,
                                                               std::weak_ptr<EventSink> sink);

  // Runs `job` on the pool with the model, loading it first if need be; with an error (maybe at
  // once, on this thread) when there is no such model, it cannot be loaded, `deadline` comes first
  // or too much is waiting.
  void WithModel(const std::string& name, std::optional<TimePoint> deadline,
                 std::function<void(StatusOr<ModelPtr>)> job);

  // Ends requests by id as CANCELLED; returns those that were open.
  std::vector<std::string> CancelRequests(const std::vector<std::string>& request_ids);
  // Ends all requests of a chain (invalid id: all); returns how many.
  uint32_t EndRequests(ChainId chain, const Status& reason);

  // New requests are refused as draining, or taken again.
  enum class Intake : uint8_t { kOpen, kDraining };
  void SetIntake(Intake intake);
  [[nodiscard]] Intake intake() const;
  // Requests that have started and whose end has not been taken yet.
  [[nodiscard]] uint32_t open_requests() const;

  [[nodiscard]] ModelRegistry& registry() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace tessera::server
