// Random requests through the planner, the kernels left out: budgets are kept, no page has two
// owners, every request ends, whatever is preempted or parked on the way.
#include <gtest/gtest.h>

#include <random>

#include "scheduler/step_planner.h"
#include "tests/support/engine_fixture.h"

namespace tessera::testing {
namespace {

using scheduler::Request;
using scheduler::Sequence;
using scheduler::StepPlan;
using scheduler::StepPlanner;

class PlannerProperty : public EngineFixture {};

struct World {
  scheduler::LiveChains chains;
  std::unique_ptr<kvcache::KvCache> cache;
  std::vector<std::unique_ptr<Request>> requests;
};

std::unique_ptr<Request> RandomRequest(std::mt19937& engine, uint64_t id,
                                       scheduler::LiveChain* chain) {
  scheduler::GenerationRequest spec;
  spec.id = RequestId(id);
  spec.chain = chain->id;
  spec.prompt.resize(1 + engine() % 150);
  for (TokenId& token : spec.prompt) token = engine() % 3;
  spec.stopping.max_tokens = 1 + engine() % 100;
  spec.deterministic = engine() % 4 == 0;
  return std::make_unique<Request>(std::move(spec), nullptr, chain);
}

// Rows of a deterministic sequence are computed as their positions ask, in whatever step.
void CheckRole(const StepPlan& plan, const scheduler::PlannedRows& planned) {
  const Sequence& sequence = *planned.sequence;
  if (plan.numerics == kernels::Numerics::kDecodeRows) {
    ASSERT_EQ(planned.rows, 1u);
  }
  if (!sequence.deterministic) return;
  const bool decodes = planned.position >= sequence.prompt_tokens();
  ASSERT_EQ(plan.numerics,
            decodes ? kernels::Numerics::kDecodeRows : kernels::Numerics::kPromptRows);
  ASSERT_TRUE(decodes || planned.position + planned.rows <= sequence.prompt_tokens());
}

void CheckPlan(const StepPlan& plan, uint32_t budget) {
  ASSERT_LE(plan.rows(), budget);
  ASSERT_EQ(plan.tokens.size(), plan.rows());
  uint32_t row = 0;
  for (const scheduler::PlannedRows& planned : plan.sequences) {
    ASSERT_EQ(planned.first_row, row);
    ASSERT_GT(planned.rows, 0u);
    ASSERT_EQ(planned.position, planned.sequence->computed);
    ASSERT_NO_FATAL_FAILURE(CheckRole(plan, planned));
    ASSERT_GE(planned.sequence->cache.page_count() * 64, planned.position + planned.rows);
    row += planned.rows;
  }
  ASSERT_EQ(row, plan.rows());
  for (size_t i = 1; i < plan.samples.size(); ++i) {
    ASSERT_LE(plan.samples[i - 1].row, plan.samples[i].row);
  }
}

TEST_F(PlannerProperty, EveryRequestEndsWithinBudgets) {
  const auto a = Bind(tiny_.Make("a", {}, {1, 2, 3}, 9));
  const auto b = Bind(tiny_.Make("b", {}, {1, 2, 4}, 9));
  for (uint32_t seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 engine(seed);
    World world;
    ASSERT_TRUE(world.chains.Add(ChainId(1), {.name = "a", .chain = a}).ok());
    ASSERT_TRUE(world.chains.Add(ChainId(2), {.name = "b", .chain = b}).ok());
    const uint64_t one = a->cache_layout()->BytesFor(256);
    world.cache = std::move(*kvcache::KvCache::Create(
        {.arena_bytes = one * (1 + engine() % 4), .slab_bytes = 1 << 16}));
    const auto budget = static_cast<uint32_t>(8 + engine() % 120);
    StepPlanner planner(
        {.max_batch_tokens = budget, .max_running = static_cast<uint32_t>(1 + engine() % 6)},
        *world.cache, scheduler::MakeFirstComePolicy());
    StepPlan plan;
    plan.Reserve(budget, 8, 0);
    for (uint64_t id = 1; id <= 12; ++id) {
      world.requests.push_back(RandomRequest(
          engine, id, world.chains.Find(ChainId(static_cast<uint32_t>(1 + engine() % 2)))));
      planner.AddWaiting(world.requests.back()->choices.front().get());
    }
    size_t ended = 0;
    for (int step = 0; step < 20000 && ended < world.requests.size(); ++step) {
      std::vector<Sequence*> admitted;
      planner.Plan(TimePoint(), plan, admitted);
      ASSERT_NO_FATAL_FAILURE(CheckPlan(plan, budget));
      std::vector<const kvcache::SequenceCache*> open;
      for (const Sequence* sequence : planner.running()) open.push_back(&sequence->cache);
      const Status valid = world.cache->CheckInvariants(open);
      ASSERT_TRUE(valid.ok()) << valid;
      for (const scheduler::PlannedRows& planned : plan.sequences) {
        Sequence& sequence = *planned.sequence;
        sequence.computed += planned.rows;
        std::vector<kvcache::KvCache::SealedPage> sealed;
        world.cache->Commit(sequence.cache, std::span(sequence.tokens).first(sequence.computed),
                            &sealed);
        if (sequence.uncomputed() > 0) continue;
        sequence.tokens.push_back(engine() % 3);
        if (sequence.output_tokens() < sequence.request->spec.stopping.max_tokens) continue;
        planner.Remove(&sequence);
        ++ended;
      }
      for (Sequence* sequence : planner.running()) {
        if (engine() % 50 == 0 && !sequence->parked_since) planner.Park(sequence, TimePoint());
      }
      for (const std::unique_ptr<Request>& request : world.requests) {
        Sequence* sequence = request->choices.front().get();
        if (sequence->parked_since && engine() % 4 == 0) planner.Unpark(sequence);
      }
    }
    ASSERT_EQ(ended, world.requests.size());
    EXPECT_EQ(world.cache->stats().used_bytes, 0u);
  }
}

}  // namespace
}  // namespace tessera::testing
