#include "scheduler/plan_text.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kvcache/kv_cache.h"
#include "scheduler/live_chains.h"
#include "scheduler/step_planner.h"

namespace tessera::scheduler {
namespace {

using Requests = std::vector<std::unique_ptr<Request>>;

LiveChain* ChainOf(const LiveChains& chains, const PlanSequence& sequence) {
  for (const std::unique_ptr<LiveChain>& live : chains.chains()) {
    if (live->info.name == sequence.chain_name) return live.get();
  }
  return nullptr;
}

Status CheckSequence(const PlanSequence& sequence, const kvcache::KvCache& cache) {
  const blockzoo::Chain& chain = *sequence.chain;
  if (sequence.prompt_tokens == 0 || sequence.prompt_tokens >= chain.max_context()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a sequence of chain \"", sequence.chain_name, "\" has ", sequence.prompt_tokens,
        " tokens; it must have 1 to ", chain.max_context() - 1));
  }
  if (!cache.CanEverFit(*chain.cache_layout(), sequence.prompt_tokens + 1)) {
    return absl::InvalidArgumentError(absl::StrCat("a sequence of ", sequence.prompt_tokens,
                                                   " tokens of chain \"", sequence.chain_name,
                                                   "\" does not fit the cache"));
  }
  return absl::OkStatus();
}

std::unique_ptr<Request> MakeRequest(const PlanSequence& sequence, uint64_t id, LiveChain* chain) {
  GenerationRequest spec;
  spec.id = RequestId(id);
  spec.chain = chain->id;
  spec.prompt.assign(sequence.prompt_tokens, 0);
  spec.stopping.max_tokens = 1;
  return std::make_unique<Request>(std::move(spec), nullptr, chain);
}

// Plans until the sequences that decode have their prompts in the cache; nothing is computed.
Status AdvanceToDecode(StepPlanner& planner, kvcache::KvCache& cache, size_t count,
                       StepPlan& plan) {
  std::vector<Sequence*> admitted;
  std::vector<kvcache::KvCache::SealedPage> sealed;
  size_t ready = 0;
  while (ready < count) {
    planner.Plan(TimePoint(), plan, admitted);
    bool moved = false;
    for (const PlannedRows& planned : plan.sequences) {
      Sequence& sequence = *planned.sequence;
      // A sequence that is ready is planned again until the last one is; its row stays uncomputed.
      if (sequence.output_tokens() > 0) continue;
      moved = true;
      sequence.computed += planned.rows;
      cache.Commit(sequence.cache, std::span(sequence.tokens).first(sequence.computed), &sealed);
      if (sequence.uncomputed() > 0) continue;
      sequence.tokens.push_back(0);
      ++ready;
    }
    if (!moved || planner.preemptions() > 0) {
      return Error(absl::StatusCode::kInvalidArgument,
                   {.what = absl::StrCat(count, " sequences cannot decode together"),
                    .why = absl::StrCat("the cache or the limit of running sequences has room for ",
                                        ready, " of them"),
                    .fix = "plan for fewer, or raise engine.memory or engine.max_running"});
    }
  }
  return absl::OkStatus();
}

void RemoveAll(StepPlanner& planner, const Requests& requests) {
  for (const std::unique_ptr<Request>& request : requests) {
    planner.Remove(request->choices.front().get());
  }
}

}  // namespace

StatusOr<std::string> PlanText(std::span<const PlanSequence> sequences,
                               const PlanTextOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(
      std::unique_ptr<kvcache::KvCache> cache,
      kvcache::KvCache::Create({.arena_bytes = options.cache_bytes, .prefix_reuse = false}));
  LiveChains chains;
  for (const PlanSequence& sequence : sequences) {
    TESSERA_RETURN_IF_ERROR(CheckSequence(sequence, *cache));
    if (ChainOf(chains, sequence) != nullptr) continue;
    const ChainId id(static_cast<uint32_t>(chains.chains().size()));
    TESSERA_RETURN_IF_ERROR(
        chains.Add(id, {.name = sequence.chain_name, .chain = sequence.chain, .tokens = nullptr}));
  }
  Requests requests;
  size_t decoding = 0;
  StepPlanner planner({.max_batch_tokens = options.max_batch_tokens,
                       .max_running = options.max_running,
                       .prefix_reuse = false},
                      *cache, MakeFirstComePolicy());
  StepPlan plan;
  plan.Reserve(options.max_batch_tokens, options.max_running + 1, 0);
  for (const bool decodes : {true, false}) {
    for (const PlanSequence& sequence : sequences) {
      if ((sequence.computed_tokens > 0) != decodes) continue;
      requests.push_back(MakeRequest(sequence, requests.size() + 1, ChainOf(chains, sequence)));
      planner.AddWaiting(requests.back()->choices.front().get());
      decoding += decodes ? 1 : 0;
    }
    if (!decodes) continue;
    const Status ready = AdvanceToDecode(planner, *cache, decoding, plan);
    if (ready.ok()) continue;
    RemoveAll(planner, requests);
    return ready;
  }
  std::vector<Sequence*> admitted;
  planner.Plan(TimePoint(), plan, admitted);
  std::string text = Describe(plan, chains);
  const kvcache::CacheStats stats = cache->stats();
  absl::StrAppend(&text, "  cache: ", stats.used_bytes, " of ", stats.arena_bytes,
                  " bytes in pages of sequences\n");
  absl::StrAppend(&text, "  waiting: ", planner.waiting().size(), " sequences\n");
  RemoveAll(planner, requests);
  return text;
}

}  // namespace tessera::scheduler
