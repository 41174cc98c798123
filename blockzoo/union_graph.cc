#include "blockzoo/union_graph.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"

namespace tessera::blockzoo {
namespace {

struct Node {
  std::shared_ptr<const BoundBlock> block;
  std::vector<Segment::Use> uses;
};

using Blocks = std::vector<std::shared_ptr<const BoundBlock>>;

// Which node each block of a chain meets, -1 for none: a longest common subsequence by identity.
std::vector<int> Align(const std::vector<Node>& nodes, const Blocks& blocks) {
  const size_t n = nodes.size();
  const size_t m = blocks.size();
  std::vector<std::vector<uint32_t>> longest(n + 1, std::vector<uint32_t>(m + 1, 0));
  const auto equal = [&](size_t i, size_t j) {
    return nodes[i].block->identity() == blocks[j]->identity();
  };
  for (size_t i = n; i-- > 0;) {
    for (size_t j = m; j-- > 0;) {
      longest[i][j] =
          equal(i, j) ? longest[i + 1][j + 1] + 1 : std::max(longest[i + 1][j], longest[i][j + 1]);
    }
  }
  std::vector<int> met(m, -1);
  for (size_t i = 0, j = 0; i < n && j < m;) {
    if (equal(i, j)) {
      met[j++] = static_cast<int>(i++);
    } else if (longest[i + 1][j] >= longest[i][j + 1]) {
      ++i;
    } else {
      ++j;
    }
  }
  return met;
}

void Merge(std::vector<Node>& nodes, uint32_t chain, const Blocks& blocks) {
  const std::vector<int> met = Align(nodes, blocks);
  std::vector<Node> merged;
  merged.reserve(nodes.size() + blocks.size());
  size_t next_node = 0;
  for (uint32_t j = 0; j < blocks.size(); ++j) {
    if (met[j] < 0) {
      // A run of new blocks goes in front of the node where the chain meets the others again.
      size_t meets = nodes.size();
      for (size_t later = j; later < blocks.size(); ++later) {
        if (met[later] >= 0) {
          meets = met[later];
          break;
        }
      }
      for (; next_node < meets; ++next_node) merged.push_back(std::move(nodes[next_node]));
      merged.push_back({.block = blocks[j], .uses = {{.chain = chain, .first_block = j}}});
      continue;
    }
    for (; next_node < static_cast<size_t>(met[j]); ++next_node) {
      merged.push_back(std::move(nodes[next_node]));
    }
    nodes[next_node].uses.push_back({.chain = chain, .first_block = j});
    merged.push_back(std::move(nodes[next_node++]));
  }
  for (; next_node < nodes.size(); ++next_node) merged.push_back(std::move(nodes[next_node]));
  nodes = std::move(merged);
}

// Whether `node` is the next block of `segment` in every chain that uses either.
bool Continues(const Segment& segment, const Node& node) {
  if (segment.uses.size() != node.uses.size()) return false;
  for (size_t i = 0; i < node.uses.size(); ++i) {
    if (segment.uses[i].chain != node.uses[i].chain ||
        segment.uses[i].first_block + segment.blocks.size() != node.uses[i].first_block) {
      return false;
    }
  }
  return true;
}

bool SameSignatures(const Segment& a, const Segment& b) {
  return std::equal(a.blocks.begin(), a.blocks.end(), b.blocks.begin(), b.blocks.end(),
                    [](const auto& x, const auto& y) { return x->signature() == y->signature(); });
}

// Depth of each segment: one more than the deepest segment before it in any of its chains. Segments
// are in topological order.
std::vector<uint32_t> Levels(const std::vector<Segment>& segments) {
  std::map<uint32_t, uint32_t> reached;  // by chain
  std::vector<uint32_t> levels;
  for (const Segment& segment : segments) {
    uint32_t level = 0;
    for (const Segment::Use& use : segment.uses) level = std::max(level, reached[use.chain]);
    for (const Segment::Use& use : segment.uses) reached[use.chain] = level + 1;
    levels.push_back(level);
  }
  return levels;
}

}  // namespace

UnionGraph UnionGraph::Build(std::span<const std::shared_ptr<const Chain>> chains) {
  std::vector<Node> nodes;
  for (uint32_t c = 0; c < chains.size(); ++c) Merge(nodes, c, chains[c]->blocks());

  UnionGraph graph;
  for (Node& node : nodes) {
    Segment* open = nullptr;
    for (Segment& segment : graph.segments_) {
      if (Continues(segment, node)) open = &segment;
    }
    if (open == nullptr) {
      graph.segments_.push_back({.blocks = {}, .uses = node.uses});
      open = &graph.segments_.back();
    }
    open->blocks.push_back(std::move(node.block));
  }

  const std::vector<uint32_t> levels = Levels(graph.segments_);
  const uint32_t depth = levels.empty() ? 0 : *std::max_element(levels.begin(), levels.end()) + 1;
  for (uint32_t level = 0; level < depth; ++level) {
    const size_t first_stage = graph.stages_.size();
    for (uint32_t s = 0; s < graph.segments_.size(); ++s) {
      if (levels[s] != level) continue;
      Stage* stage = nullptr;
      for (size_t i = first_stage; i < graph.stages_.size() && stage == nullptr; ++i) {
        const uint32_t other = graph.stages_[i].segments.front();
        if (SameSignatures(graph.segments_[other], graph.segments_[s])) stage = &graph.stages_[i];
      }
      if (stage == nullptr) stage = &graph.stages_.emplace_back();
      stage->segments.push_back(s);
    }
  }
  return graph;
}

std::string UnionGraph::Describe(std::span<const std::string> chain_names) const {
  std::string text;
  for (size_t i = 0; i < stages_.size(); ++i) {
    for (uint32_t s : stages_[i].segments) {
      const Segment& segment = segments_[s];
      absl::StrAppend(&text, "stage ", i, " segment ", s, ": ", segment.blocks.size(), " blocks ",
                      segment.blocks.front()->type(), " ",
                      segment.blocks.front()->identity().Short(), " .. ",
                      segment.blocks.back()->type(), " ", segment.blocks.back()->identity().Short(),
                      ", chains");
      for (const Segment::Use& use : segment.uses) {
        absl::StrAppend(&text, " ", chain_names[use.chain], "[", use.first_block, "..",
                        use.first_block + segment.blocks.size() - 1, "]");
      }
      absl::StrAppend(&text, "\n");
    }
  }
  return text;
}

}  // namespace tessera::blockzoo
