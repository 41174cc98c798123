// The step path allocates nothing: counts calls of operator new on the engine thread while
// sequences decode.
#include <gtest/gtest.h>

#include "scheduler/engine_loop.h"
#include "tests/support/engine_fixture.h"
#include "tests/support/varied_chain.h"
#include "tests/unit/scheduler/allocation_counter.h"

namespace tessera::testing {
namespace {

class SteadyStepTest : public EngineFixture {
 protected:
  void ExpectNoAllocation(const blockzoo::ChainManifest& first,
                          const blockzoo::ChainManifest& second);
};

void SteadyStepTest::ExpectNoAllocation(const blockzoo::ChainManifest& first,
                                        const blockzoo::ChainManifest& second) {
  scheduler::EngineOptions options;
  options.park_above_tokens = 1 << 20;
  kernels::ThreadPool pool({.threads = 2});
  auto cache = kvcache::KvCache::Create({.arena_bytes = 64 << 20, .memory = &backend_->memory()});
  ASSERT_TRUE(cache.ok());
  scheduler::Inbox inbox({});
  scheduler::EngineLoop loop(options, *backend_, pool, **cache, inbox, nullptr);
  const auto a = Bind(first);
  const auto b = Bind(second);
  ASSERT_TRUE(loop.AddChain(ChainId(1), {.name = "a", .chain = a}).ok());
  ASSERT_TRUE(loop.AddChain(ChainId(2), {.name = "b", .chain = b}).ok());
  std::vector<std::shared_ptr<scheduler::StreamMailbox>> mailboxes;
  for (uint32_t i = 0; i < 8; ++i) {
    scheduler::GenerationRequest request = Ask(ChainId(1 + i % 2), Prompt(i, 10 + i, 60), 400);
    request.sampling.temperature = i % 3 == 0 ? 0.0f : 0.8f;
    request.sampling.repetition_penalty = i % 4 == 0 ? 1.2f : 1.0f;
    mailboxes.push_back(std::make_shared<scheduler::StreamMailbox>(
        scheduler::StreamMailbox::Options{.reserve_tokens = 512}));
    ASSERT_TRUE(inbox.Reserve().ok());
    ASSERT_TRUE(inbox.Submit({.request = std::move(request), .mailbox = mailboxes.back()}).ok());
  }
  loop.TakeMessages(TimePoint());
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(loop.Step());
  // Pages are sealed and published on the way: every 64th token of a sequence makes index nodes,
  // which is not the step path of the others. Count the steps of a page without its end.
  StartCountingAllocations();
  for (int i = 0; i < 38; ++i) {
    loop.TakeMessages(TimePoint());
    loop.Step();
  }
  EXPECT_EQ(StopCountingAllocations(), 0u);
  scheduler::MailboxBatch batch;
  ASSERT_TRUE(mailboxes[0]->Drain(batch));
  // On a device the last step is still in flight.
  EXPECT_EQ(batch.tokens.size(), backend_->memory().host_addressable() ? 43u : 42u);
}

TEST_F(SteadyStepTest, DecodeStepsAllocateNothing) {
  ExpectNoAllocation(tiny_.Make("a", {}, {1, 2, 3}, 9), tiny_.Make("b", {}, {1, 2, 4}, 9));
}

// Nor do the launches that only some families have.
TEST_F(SteadyStepTest, DecodeStepsOfRicherBlocksAllocateNothing) {
  if (!backend_->memory().host_addressable()) GTEST_SKIP() << "a device lacks such kernels";
  const ChainVariant variant{.name = "a",
                             .norm = "layer",
                             .norm_bias = true,
                             .post_norm = true,
                             .parallel = true,
                             .qk_norm = "head",
                             .window = 8,
                             .softcap = 4,
                             .sinks = true,
                             .positions = true,
                             .embedding_norm = true,
                             .head_softcap = 8};
  VariedChains varied(weights_);
  ExpectNoAllocation(varied.Make(variant, 1), varied.Make(variant, 2));
}

TEST_F(SteadyStepTest, DecodeStepsOfMixturesAndLatentsAllocateNothing) {
  if (!backend_->memory().host_addressable()) GTEST_SKIP() << "a device lacks such kernels";
  TinyShape shape;
  shape.experts = 9;
  shape.latent_rank = 32;
  ExpectNoAllocation(tiny_.Make("a", shape, {1, 2, 3}, 9), tiny_.Make("b", shape, {1, 2, 4}, 9));
}

}  // namespace
}  // namespace tessera::testing
