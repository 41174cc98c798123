// The union of all live chains, cut into segments: what a step runs, block by block.
//
// Chains are merged over block identity in chain order (a longest common subsequence with what is
// already there), so chains of any depth may share blocks and the order stays a topological one. A
// segment is a maximal path of blocks that the same set of chains shares. Segments of one depth
// level and equal signatures are parallel: one stage runs them together, grouped. Built when a
// chain is loaded or unloaded, never in a step.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "blockzoo/chain.h"

namespace tessera::blockzoo {

// Chains are named by their index in the list the graph was built from.
struct Segment {
  std::vector<std::shared_ptr<const BoundBlock>> blocks;
  struct Use {
    uint32_t chain;
    uint32_t first_block;  // index in that chain of blocks[0]
  };
  std::vector<Use> uses;  // ascending by chain
};

struct Stage {
  std::vector<uint32_t> segments;  // parallel: same number of blocks, pairwise equal signatures
};

class UnionGraph {
 public:
  // All chains must have one width. Order of stages is the order of a step.
  [[nodiscard]] static UnionGraph Build(std::span<const std::shared_ptr<const Chain>> chains);

  [[nodiscard]] const std::vector<Segment>& segments() const { return segments_; }
  [[nodiscard]] const std::vector<Stage>& stages() const { return stages_; }
  // Stages and segments with their chains and blocks, for `tessera plan`.
  [[nodiscard]] std::string Describe(std::span<const std::string> chain_names) const;

 private:
  std::vector<Segment> segments_;
  std::vector<Stage> stages_;
};

}  // namespace tessera::blockzoo
