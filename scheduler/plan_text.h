// The plan of one step for a given set of sequences, as text: what `tessera plan` prints.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "blockzoo/chain.h"
#include "config/foundation/status.h"

namespace tessera::scheduler {

// A sequence as it stands before the step.
struct PlanSequence {
  std::string chain_name;
  std::shared_ptr<const blockzoo::Chain> chain;
  uint32_t prompt_tokens = 0;    // 1 or more
  uint32_t computed_tokens = 0;  // 0: the prompt is new; prompt_tokens: it decodes its next token
};

struct PlanTextOptions {
  uint64_t cache_bytes = 256ull << 20;
  uint32_t max_batch_tokens = 512;
  uint32_t max_running = 256;
};

// Runs the planner, not the kernels: segments and stages of the union graph, rows by sequence,
// pages reserved. INVALID_ARGUMENT when a sequence does not fit the cache or its chain's context.
[[nodiscard]] StatusOr<std::string> PlanText(std::span<const PlanSequence> sequences,
                                             const PlanTextOptions& options);

}  // namespace tessera::scheduler
