// The chains that the engine serves now, and the union graphs over them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "blockzoo/union_graph.h"
#include "config/foundation/ids.h"
#include "config/foundation/status.h"
#include "scheduler/engine.h"

namespace tessera::scheduler {

// One chain inside the engine. `graph` and `slot` change when chains come and go, between steps.
struct LiveChain {
  ChainId id;
  EngineChain info;
  uint32_t graph = 0;      // which union graph
  uint32_t slot = 0;       // index of the chain in that graph
  uint32_t sequences = 0;  // requests that still refer to it
  // Of the step being committed, not yet in the metrics: output tokens, and the times between two
  // of a request.
  uint32_t new_tokens = 0;
  HistogramBatch token_gaps;
  bool removed = false;  // no new requests; dropped when sequences is 0
  std::function<void()> on_dropped;
};

// Owned by the engine thread.
class LiveChains {
 public:
  // ALREADY_EXISTS when the id is taken. Rebuilds the graphs.
  [[nodiscard]] Status Add(ChainId id, const EngineChain& info);
  // Null when unknown or removed.
  [[nodiscard]] LiveChain* Find(ChainId id) const;
  void Remove(ChainId id, std::function<void()> on_dropped);
  // Drops removed chains without sequences; true when there was one (the graphs are then rebuilt).
  bool DropUnused();

  // One graph for each width of residual stream; its chains in slot order.
  struct Graph {
    blockzoo::UnionGraph graph;
    std::vector<LiveChain*> chains;
    uint64_t width = 0;
    uint32_t index = 0;  // LiveChain::graph of its chains
  };
  [[nodiscard]] const std::vector<Graph>& graphs() const { return graphs_; }
  [[nodiscard]] const std::vector<std::unique_ptr<LiveChain>>& chains() const { return chains_; }
  // Changes with the graphs.
  [[nodiscard]] uint64_t generation() const { return generation_; }

 private:
  void Rebuild();

  std::vector<std::unique_ptr<LiveChain>> chains_;
  std::vector<Graph> graphs_;
  uint64_t generation_ = 0;
};

}  // namespace tessera::scheduler
