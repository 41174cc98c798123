#include "scheduler/live_chains.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace tessera::scheduler {

Status LiveChains::Add(ChainId id, const EngineChain& info) {
  for (const std::unique_ptr<LiveChain>& chain : chains_) {
    if (chain->id == id) {
      return absl::AlreadyExistsError(absl::StrCat("chain id ", id.value, " is in use"));
    }
  }
  auto chain = std::make_unique<LiveChain>();
  chain->id = id;
  chain->info = info;
  chain->token_gaps = HistogramBatch(info.metrics.itl_seconds);
  chains_.push_back(std::move(chain));
  Rebuild();
  return absl::OkStatus();
}

LiveChain* LiveChains::Find(ChainId id) const {
  for (const std::unique_ptr<LiveChain>& chain : chains_) {
    if (chain->id == id && !chain->removed) return chain.get();
  }
  return nullptr;
}

void LiveChains::Remove(ChainId id, std::function<void()> on_dropped) {
  for (const std::unique_ptr<LiveChain>& chain : chains_) {
    if (chain->id != id || chain->removed) continue;
    chain->removed = true;
    chain->on_dropped = std::move(on_dropped);
    return;
  }
  if (on_dropped) on_dropped();
}

bool LiveChains::DropUnused() {
  std::vector<std::unique_ptr<LiveChain>> dropped;
  for (std::unique_ptr<LiveChain>& chain : chains_) {
    if (chain->removed && chain->sequences == 0) dropped.push_back(std::move(chain));
  }
  if (dropped.empty()) return false;
  std::erase(chains_, nullptr);
  Rebuild();
  for (std::unique_ptr<LiveChain>& chain : dropped) {
    std::function<void()> on_dropped = std::move(chain->on_dropped);
    chain.reset();
    if (on_dropped) on_dropped();
  }
  return true;
}

void LiveChains::Rebuild() {
  ++generation_;
  graphs_.clear();
  for (const std::unique_ptr<LiveChain>& chain : chains_) {
    const uint64_t width = chain->info.chain->width();
    auto graph = std::find_if(graphs_.begin(), graphs_.end(),
                              [&](const Graph& g) { return g.width == width; });
    if (graph == graphs_.end()) {
      const auto index = static_cast<uint32_t>(graphs_.size());
      graph = graphs_.insert(graph, Graph{.width = width, .index = index});
    }
    chain->graph = graph->index;
    chain->slot = static_cast<uint32_t>(graph->chains.size());
    graph->chains.push_back(chain.get());
  }
  for (Graph& graph : graphs_) {
    std::vector<std::shared_ptr<const blockzoo::Chain>> chains;
    for (const LiveChain* chain : graph.chains) chains.push_back(chain->info.chain);
    graph.graph = blockzoo::UnionGraph::Build(chains);
  }
}

}  // namespace tessera::scheduler
