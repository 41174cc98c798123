// Models out of the block zoo: chains bound to the backend and put into the engine.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "blockzoo/chain.h"
#include "blockzoo/zoo.h"
#include "config/foundation/metrics.h"
#include "config/snapshot.h"
#include "scheduler/engine.h"
#include "server/core/model_registry.h"
#include "server/core/work_pool.h"

namespace tessera::server {

// Serves every chain of the zoo under its name, and those that the settings name under theirs. A
// loaded model keeps a pin on its chain, so gc leaves its bytes.
class ZooModelSource final : public ModelSource {
 public:
  struct Parts {
    blockzoo::Zoo* zoo = nullptr;
    blockzoo::ChainBinder* binder = nullptr;
    scheduler::Engine* engine = nullptr;
    EngineMetrics* metrics = nullptr;
    SettingsStore* settings = nullptr;
    WorkPool* pool = nullptr;    // frees what was removed
    uint64_t weight_budget = 0;  // bytes that live chains may map together
  };
  // All parts outlive it and every model it gave.
  explicit ZooModelSource(const Parts& parts);

  [[nodiscard]] std::vector<std::string> Names() override;
  [[nodiscard]] StatusOr<ModelSummary> Describe(const std::string& name) override;
  [[nodiscard]] StatusOr<std::unique_ptr<LoadedModel>> Load(const std::string& name, ChainId id,
                                                            const Progress& progress) override;
  void Remove(std::unique_ptr<LoadedModel> model) override;

 private:
  // Models that were removed and whose weights are still mapped.
  struct Removals;

  // FAILED_PRECONDITION when the chain's weights alone are more than the budget, whatever else is
  // unloaded.
  [[nodiscard]] Status CheckSize(const std::string& name,
                                 const blockzoo::ChainManifest& chain) const;
  // OK when the live weights are within the budget, once those of removed models have gone.
  [[nodiscard]] Status CheckRoom(const std::string& name) const;

  const Parts parts_;
  const std::shared_ptr<Removals> removals_;
};

// The token table of a tokenizer for a model of `vocab` ids; ids that the tokenizer lacks write
// nothing.
[[nodiscard]] scheduler::TokenTable MakeTokenTable(const Tokenizer& tokenizer, uint64_t vocab);
// What a generation_config.json says, as defaults; fields that are missing or wrong are left unset.
[[nodiscard]] SamplingDefaults DefaultsOf(absl::string_view generation_config_json);
// `over` where it is set, otherwise `under`.
[[nodiscard]] SamplingDefaults Merge(const SamplingDefaults& over, const SamplingDefaults& under);

}  // namespace tessera::server
