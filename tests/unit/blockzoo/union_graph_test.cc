#include "blockzoo/union_graph.h"

#include <gtest/gtest.h>

#include "tests/support/engine_fixture.h"

namespace tessera::testing {
namespace {

using blockzoo::Segment;
using blockzoo::Stage;
using blockzoo::UnionGraph;

class UnionGraphTest : public EngineFixture {
 protected:
  std::vector<std::shared_ptr<const blockzoo::Chain>> Chains(
      const std::vector<std::vector<uint32_t>>& layers) {
    std::vector<std::shared_ptr<const blockzoo::Chain>> chains;
    for (const std::vector<uint32_t>& seeds : layers) {
      chains.push_back(Bind(tiny_.Make("c", {}, seeds, 9)));
    }
    return chains;
  }

  // Each chain's blocks, read back from stages in order.
  static std::vector<std::vector<Digest>> Walk(const UnionGraph& graph, size_t chains) {
    std::vector<std::vector<Digest>> walked(chains);
    for (const Stage& stage : graph.stages()) {
      for (uint32_t s : stage.segments) {
        const Segment& segment = graph.segments()[s];
        for (const Segment::Use& use : segment.uses) {
          EXPECT_EQ(use.first_block, walked[use.chain].size());
          for (const auto& block : segment.blocks) walked[use.chain].push_back(block->identity());
        }
      }
    }
    return walked;
  }
};

TEST_F(UnionGraphTest, OneChainIsOneSegment) {
  const auto chains = Chains({{1, 2, 3}});
  const UnionGraph graph = UnionGraph::Build(chains);
  ASSERT_EQ(graph.segments().size(), 1u);
  EXPECT_EQ(graph.segments()[0].blocks.size(), 8u);
}

TEST_F(UnionGraphTest, VariantsAreCutWhereTheyDivergeAndMeet) {
  const auto chains = Chains({{1, 2, 3, 4}, {1, 2, 5, 6}});
  const UnionGraph graph = UnionGraph::Build(chains);
  // Shared lower part, two private parts in one stage, shared head.
  ASSERT_EQ(graph.stages().size(), 3u);
  EXPECT_EQ(graph.stages()[0].segments.size(), 1u);
  EXPECT_EQ(graph.stages()[1].segments.size(), 2u);
  EXPECT_EQ(graph.stages()[2].segments.size(), 1u);
  EXPECT_EQ(graph.segments()[graph.stages()[0].segments[0]].blocks.size(), 5u);
  EXPECT_EQ(graph.segments()[graph.stages()[1].segments[0]].blocks.size(), 4u);
}

TEST_F(UnionGraphTest, EveryChainIsWalkedInItsOwnOrder) {
  std::mt19937 engine(11);
  for (int round = 0; round < 40; ++round) {
    std::vector<std::vector<uint32_t>> layers(2 + engine() % 4);
    for (std::vector<uint32_t>& seeds : layers) {
      seeds.resize(1 + engine() % 6);
      // Repeats and crossings of the same layers on purpose.
      for (uint32_t& seed : seeds) seed = 1 + engine() % 4;
    }
    const auto chains = Chains(layers);
    const UnionGraph graph = UnionGraph::Build(chains);
    const std::vector<std::vector<Digest>> walked = Walk(graph, chains.size());
    for (size_t c = 0; c < chains.size(); ++c) {
      std::vector<Digest> blocks;
      for (const auto& block : chains[c]->blocks()) blocks.push_back(block->identity());
      EXPECT_EQ(walked[c], blocks) << "round " << round << " chain " << c;
    }
    for (const Stage& stage : graph.stages()) {
      for (uint32_t s : stage.segments) {
        EXPECT_EQ(graph.segments()[s].blocks.size(),
                  graph.segments()[stage.segments[0]].blocks.size());
      }
    }
  }
}

TEST_F(UnionGraphTest, SharedBlocksAreBoundOnce) {
  const auto chains = Chains({{1, 2, 3}, {1, 2, 4}});
  EXPECT_EQ(chains[0]->blocks()[1].get(), chains[1]->blocks()[1].get());
  EXPECT_NE(chains[0]->blocks()[5].get(), chains[1]->blocks()[5].get());
}

TEST_F(UnionGraphTest, StateDigestsAgreeExactlyUpToTheDivergence) {
  const auto chains = Chains({{1, 2, 3}, {1, 2, 4}, {4, 2, 3}});
  const auto digest = [&](size_t chain, size_t table) {
    return chains[chain]->cache_layout()->tables[table].state_digest;
  };
  EXPECT_EQ(digest(0, 0), digest(1, 0));
  EXPECT_EQ(digest(0, 1), digest(1, 1));
  EXPECT_NE(digest(0, 2), digest(1, 2));
  for (size_t table = 0; table < 3; ++table) EXPECT_NE(digest(0, table), digest(2, table));
}

TEST_F(UnionGraphTest, ABlockAtTwoDepthsHasTwoStates) {
  const auto chains = Chains({{1, 1, 2}});
  EXPECT_EQ(chains[0]->blocks()[1].get(), chains[0]->blocks()[3].get());
  EXPECT_NE(chains[0]->cache_layout()->tables[0].state_digest,
            chains[0]->cache_layout()->tables[1].state_digest);
}

}  // namespace
}  // namespace tessera::testing
