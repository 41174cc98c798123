// The rotary angles of a step's rows, for every rotary index and head size of the live chains.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "blockzoo/block_type.h"
#include "config/foundation/status.h"
#include "kernels/backend.h"
#include "kernels/exec_context.h"
#include "scheduler/live_chains.h"
#include "scheduler/step_plan.h"

namespace tessera::scheduler {

// Engine thread.
class RotaryStep {
 public:
  // RESOURCE_EXHAUSTED when memory is short.
  [[nodiscard]] Status Prepare(const LiveChains& chains, const kernels::Backend& backend,
                               uint32_t max_rows);
  // Launches the angles of every row: positions [rows] in kernels' memory. Rows past the plan's, up
  // to `rows`, get those of the last chain.
  void Run(kernels::ExecContext& context, const StepPlan& plan, const int32_t* positions,
           uint32_t rows);
  // What blocks of `chain` read, by rotary index; until the next call.
  [[nodiscard]] std::span<const blockzoo::RotaryRows> Of(const blockzoo::Chain& chain);

 private:
  // Angles [max_rows, pairs] for one rotary index and head size. Only rows of chains that have it
  // are filled.
  struct Angles {
    size_t index;
    size_t pairs;
    std::shared_ptr<kernels::Buffer> cosine, sine;
    kernels::Kernel<kernels::RotaryAnglesOp> kernel;
  };
  // Chains of equal frequencies share them, so that their rows are one launch.
  struct Frequencies {
    std::vector<float> values;
    std::shared_ptr<kernels::Buffer> placed;
  };

  Status AddAngles(size_t index, size_t pairs, const kernels::Backend& backend, uint32_t max_rows);
  Status AddFrequencies(const std::vector<float>& values, const kernels::Backend& backend);
  [[nodiscard]] Angles& AnglesOf(size_t index, size_t pairs);
  [[nodiscard]] const float* Placed(const std::vector<float>& values) const;

  std::vector<Angles> angles_;
  std::vector<Frequencies> frequencies_;
  std::vector<blockzoo::RotaryRows> rows_;
  size_t indices_ = 0;
};

}  // namespace tessera::scheduler
