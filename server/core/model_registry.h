// Which models there are and which are loaded: loading on first use, reloading under running
// streams, unloading.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "config/foundation/clock.h"
#include "config/foundation/status.h"
#include "server/core/loaded_model.h"

namespace tessera::server {

enum class ModelState : uint8_t { kUnloaded, kLoading, kReady, kDraining, kFailed };
[[nodiscard]] const char* NameOf(ModelState state);

// What is known of a model without loading it.
struct ModelSummary {
  std::string revision;
  uint64_t max_context = 0;
  uint32_t blocks = 0;
  enum class Chat : uint8_t { kNo, kYes } chat = Chat::kNo;
  enum class Embeddings : uint8_t { kNo, kYes } embeddings = Embeddings::kNo;
};

// Where models come from and go to. Thread-safe.
class ModelSource {
 public:
  virtual ~ModelSource() = default;
  // Names that can be loaded now, sorted.
  [[nodiscard]] virtual std::vector<std::string> Names() = 0;
  [[nodiscard]] virtual StatusOr<ModelSummary> Describe(const std::string& name) = 0;
  // Takes as long as it takes; called on a loader thread. `id` is new. RESOURCE_EXHAUSTED when
  // other models must go first.
  using Progress = std::function<void(uint32_t blocks_done, uint32_t blocks_total)>;
  [[nodiscard]] virtual StatusOr<std::unique_ptr<LoadedModel>> Load(const std::string& name,
                                                                    ChainId id,
                                                                    const Progress& progress) = 0;
  // No request uses the model any more. Must not block; `model` may live on until it is gone.
  virtual void Remove(std::unique_ptr<LoadedModel> model) = 0;
};

// For people and lists.
struct ModelInfo {
  std::string name;
  ModelState state = ModelState::kUnloaded;
  ModelPtr model;  // when ready or draining
  ModelSummary summary;
  Status error;  // when failed, or when the last reload did
  uint32_t blocks_done = 0;
  uint32_t blocks_total = 0;
  uint32_t users = 0;     // requests that hold the current chain
  uint32_t retiring = 0;  // older chains of the name that streams still use
};

// Thread-safe; no call waits for a load.
class ModelRegistry {
 public:
  struct Options {
    const Clock* clock = nullptr;  // null: the machine's
    Duration retry_failed_after = std::chrono::seconds(10);
  };
  // `source` must outlive every model it gave.
  ModelRegistry(ModelSource* source, const Options& options);
  // Fails what waits, ends after the load under way.
  ~ModelRegistry();

  using Ready = std::function<void(StatusOr<ModelPtr>)>;
  using Progress = ModelSource::Progress;
  // Calls `ready` exactly once: at once on this thread when the model is ready, unknown, draining
  // or has failed; later on the loader thread when it is being loaded, which this starts if need
  // be. Must not block there. `progress` (may be empty) is called while it loads. A load that fails
  // is told without its reason: FAILED_PRECONDITION, or UNAVAILABLE when there was no room.
  void Acquire(const std::string& name, Progress progress, Ready ready);
  // NOT_FOUND for a name that neither is loaded nor could be.
  [[nodiscard]] Status Check(const std::string& name);

  // Loads the model, or loads it anew when it is ready: new requests then get the new chain.
  // `ready` as for Acquire, but a failure comes whole: for operators. Also the way back from a
  // failure.
  void Reload(const std::string& name, Progress progress, Ready ready);
  // Requests are refused from now on; `done` is called when the model is gone (at once when it was
  // not loaded). Returns the chain whose requests may be ended to hurry it. NOT_FOUND, or
  // FAILED_PRECONDITION while it loads.
  [[nodiscard]] StatusOr<std::optional<ChainId>> Unload(const std::string& name,
                                                        std::function<void()> done);

  // All models by name: what the source lists, and what is loaded.
  [[nodiscard]] std::vector<ModelInfo> List();

  // Called at each change of a model's state, on any thread; must be short and not call back.
  using Listener = std::function<void(const std::string& name, ModelState state)>;
  void SetListener(Listener listener);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace tessera::server
