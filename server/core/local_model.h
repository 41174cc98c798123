// A chain of a zoo in an engine of its own, for commands that measure without a daemon.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "blockzoo/chain.h"
#include "blockzoo/zoo.h"
#include "config/settings.h"
#include "config/snapshot.h"
#include "scheduler/engine.h"
#include "server/core/loaded_model.h"

namespace tessera::server {

// For one thread.
class LocalModel {
 public:
  // Loads `chain` as a daemon with these settings would. `zoo` outlives it. Errors as
  // ModelSource::Load and Engine::Create.
  [[nodiscard]] static StatusOr<std::unique_ptr<LocalModel>> Load(
      const std::shared_ptr<const Settings>& settings, blockzoo::Zoo* zoo,
      const std::string& chain);

  [[nodiscard]] const LoadedModel& model() const { return *model_; }
  // The log-probability of each of `ids` from index `from` (at least 1) on, given those before it.
  // INVALID_ARGUMENT when they do not fit the model's context or the cache.
  [[nodiscard]] StatusOr<std::vector<float>> Score(std::span<const TokenId> ids, uint32_t from);

  // So many streams at once, each of a random prompt and greedy outputs of that length.
  struct ProfileLoad {
    uint32_t streams = 1;
    uint32_t prompt_tokens = 128;
    uint32_t output_tokens = 64;
    uint64_t seed = 1;
  };
  // Steps of the prompts alone, and steps in which all streams decode.
  struct Phases {
    scheduler::EngineProfile prompt;
    scheduler::EngineProfile decode;
  };
  // INVALID_ARGUMENT when a stream does not fit the model's context or the cache, which streams
  // must that are made longer because none of their steps was counted.
  [[nodiscard]] StatusOr<Phases> Profile(const ProfileLoad& load);
  [[nodiscard]] const kernels::Backend& backend() const { return *backend_; }

 private:
  LocalModel() = default;

  std::shared_ptr<const kernels::Backend> backend_;
  std::unique_ptr<SettingsStore> settings_;
  std::unique_ptr<blockzoo::ChainBinder> binder_;
  std::unique_ptr<LoadedModel> model_;  // outlives the engine, which holds its chain
  std::unique_ptr<scheduler::Engine> engine_;
  uint64_t next_request_ = 1;
};

}  // namespace tessera::server
