// tessera plan: what one step would do for a given set of sequences. Nothing is computed.
#include <map>

#include "scheduler/plan_text.h"
#include "server/cli/commands.h"
#include "server/cli/console.h"
#include "server/cli/plan_sequences.h"
#include "server/cli/settings_flags.h"
#include "server/core/memory_plan.h"
#include "server/core/startup.h"

namespace tessera::server::cli {
namespace {

struct PlanOptions {
  SettingsFlags flags;
  std::vector<std::string> prefill;
  std::vector<std::string> decode;
};

StatusOr<std::vector<scheduler::PlanSequence>> BindSequences(
    const std::vector<SequenceGroup>& groups, blockzoo::Zoo& zoo, blockzoo::ChainBinder& binder) {
  std::vector<scheduler::PlanSequence> sequences;
  std::map<std::string, std::shared_ptr<const blockzoo::Chain>> chains;
  for (const SequenceGroup& group : groups) {
    std::shared_ptr<const blockzoo::Chain>& chain = chains[group.chain];
    if (chain == nullptr) {
      TESSERA_ASSIGN_OR_RETURN(const blockzoo::ChainManifest manifest, zoo.Chain(group.chain));
      TESSERA_ASSIGN_OR_RETURN(chain, binder.Bind(manifest, zoo));
    }
    const scheduler::PlanSequence sequence{
        .chain_name = group.chain,
        .chain = chain,
        .prompt_tokens = group.tokens,
        .computed_tokens = group.phase == SequenceGroup::Phase::kDecode ? group.tokens : 0};
    sequences.insert(sequences.end(), group.count, sequence);
  }
  return sequences;
}

Status RunPlan(const PlanOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(const std::vector<SequenceGroup> groups,
                           ParseSequenceGroups(options.decode, options.prefill));
  TESSERA_ASSIGN_OR_RETURN(const std::shared_ptr<const Settings> settings,
                           LoadFlaggedSettings(options.flags));
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<blockzoo::Zoo> zoo,
                           OpenZooToServe(settings->store));
  TESSERA_ASSIGN_OR_RETURN(const std::shared_ptr<const kernels::Backend> backend,
                           MakeBackend(settings->engine, settings->store));
  blockzoo::ChainBinder binder(backend, CacheChoiceOf(settings->engine.kv));
  TESSERA_ASSIGN_OR_RETURN(const std::vector<scheduler::PlanSequence> sequences,
                           BindSequences(groups, *zoo, binder));
  scheduler::PlanTextOptions plan;
  plan.cache_bytes = PlanMemory(settings->engine, FreeMemoryBytes(*backend)).cache_bytes;
  plan.max_batch_tokens = BatchTokensOf(settings->engine, *backend);
  plan.max_running = static_cast<uint32_t>(settings->engine.max_running);
  TESSERA_ASSIGN_OR_RETURN(const std::string text, scheduler::PlanText(sequences, plan));
  Print(text);
  return absl::OkStatus();
}

}  // namespace

void AddPlan(CommandLine& line) {
  const auto options = std::make_shared<PlanOptions>();
  Command command = line.Add("plan", "Print what one step would do for given sequences");
  command.Option("--decode", &options->decode,
                 "CHAIN=TOKENS[*COUNT]: sequences of so many tokens that decode their next one");
  command.Option("--prefill", &options->prefill,
                 "CHAIN=TOKENS[*COUNT]: sequences whose prompt of so many tokens is new");
  AddSettingsFlags(command, &options->flags);
  command.Examples(
      "  tessera plan --zoo ~/zoo --decode base=100*4 --decode tuned=80*4 --prefill base=700\n"
      "  tessera plan --zoo ~/zoo --prefill base=700 --set engine.max_batch_tokens=128\n\n"
      "It shows the rows of the step, the segments of the union graph with the chains that run\n"
      "them together, and the cache that the sequences hold. The planner is the daemon's own,\n"
      "with the same settings; the kernels do not run.");
  command.Run([options] { return RunPlan(*options); });
}

}  // namespace tessera::server::cli
