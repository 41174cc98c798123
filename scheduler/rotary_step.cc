#include "scheduler/rotary_step.h"

#include <algorithm>

#include "config/foundation/check.h"

namespace tessera::scheduler {

Status RotaryStep::Prepare(const LiveChains& chains, const kernels::Backend& backend,
                           uint32_t max_rows) {
  angles_.clear();
  frequencies_.clear();
  indices_ = 0;
  for (const std::unique_ptr<LiveChain>& live : chains.chains()) {
    const std::vector<blockzoo::RotaryTable>& rotary = live->info.chain->rotary_tables();
    indices_ = std::max(indices_, rotary.size());
    for (size_t index = 0; index < rotary.size(); ++index) {
      TESSERA_RETURN_IF_ERROR(
          AddAngles(index, rotary[index].frequencies.size(), backend, max_rows));
      TESSERA_RETURN_IF_ERROR(AddFrequencies(rotary[index].frequencies, backend));
    }
  }
  rows_.reserve(indices_);
  return absl::OkStatus();
}

Status RotaryStep::AddAngles(size_t index, size_t pairs, const kernels::Backend& backend,
                             uint32_t max_rows) {
  const bool known = std::any_of(angles_.begin(), angles_.end(), [&](const Angles& angles) {
    return angles.index == index && angles.pairs == pairs;
  });
  if (known) return absl::OkStatus();
  const uint64_t bytes = pairs * max_rows * sizeof(float);
  Angles made{.index = index, .pairs = pairs, .cosine = nullptr, .sine = nullptr, .kernel = {}};
  TESSERA_ASSIGN_OR_RETURN(made.cosine, backend.memory().Allocate(bytes, "rotary angles"));
  TESSERA_ASSIGN_OR_RETURN(made.sine, backend.memory().Allocate(bytes, "rotary angles"));
  TESSERA_ASSIGN_OR_RETURN(made.kernel, backend.catalog().Find<kernels::RotaryAnglesOp>(
                                            {.pairs = static_cast<int64_t>(pairs)}));
  angles_.push_back(std::move(made));
  return absl::OkStatus();
}

Status RotaryStep::AddFrequencies(const std::vector<float>& values,
                                  const kernels::Backend& backend) {
  const bool known = std::any_of(frequencies_.begin(), frequencies_.end(),
                                 [&](const Frequencies& known) { return known.values == values; });
  if (known) return absl::OkStatus();
  TESSERA_ASSIGN_OR_RETURN(
      std::shared_ptr<kernels::Buffer> placed,
      backend.memory().Allocate(values.size() * sizeof(float), "rotary frequencies"));
  TESSERA_RETURN_IF_ERROR(backend.memory().Write(std::as_bytes(std::span(values)), placed->data()));
  frequencies_.push_back({.values = values, .placed = std::move(placed)});
  return absl::OkStatus();
}

RotaryStep::Angles& RotaryStep::AnglesOf(size_t index, size_t pairs) {
  const auto at = std::find_if(angles_.begin(), angles_.end(), [&](const Angles& angles) {
    return angles.index == index && angles.pairs == pairs;
  });
  TESSERA_CHECK(at != angles_.end());
  return *at;
}

const float* RotaryStep::Placed(const std::vector<float>& values) const {
  const auto at = std::find_if(frequencies_.begin(), frequencies_.end(),
                               [&](const Frequencies& known) { return known.values == values; });
  TESSERA_CHECK(at != frequencies_.end());
  return reinterpret_cast<const float*>(at->placed->data());
}

void RotaryStep::Run(kernels::ExecContext& context, const StepPlan& plan, const int32_t* positions,
                     uint32_t rows) {
  const auto chain_of = [&](size_t i) -> const blockzoo::Chain& {
    return *plan.sequences[i].sequence->chain->info.chain;
  };
  for (size_t begin = 0; begin < plan.sequences.size();) {
    // Neighbours of one chain, or of chains whose positions rotate alike.
    const blockzoo::Chain& chain = chain_of(begin);
    size_t end = begin + 1;
    while (end < plan.sequences.size() &&
           (&chain_of(end) == &chain || chain_of(end).rotary_tables() == chain.rotary_tables())) {
      ++end;
    }
    const uint32_t first = plan.sequences[begin].first_row;
    const uint32_t last = end < plan.sequences.size() ? plan.sequences[end].first_row : rows;
    for (size_t index = 0; index < chain.rotary_tables().size(); ++index) {
      const blockzoo::RotaryTable& table = chain.rotary_tables()[index];
      const size_t pairs = table.frequencies.size();
      Angles& angles = AnglesOf(index, pairs);
      angles.kernel(context,
                    {.positions = positions + first,
                     .frequencies = Placed(table.frequencies),
                     .cosine = reinterpret_cast<float*>(angles.cosine->data()) + first * pairs,
                     .sine = reinterpret_cast<float*>(angles.sine->data()) + first * pairs,
                     .rows = static_cast<int32_t>(last - first),
                     .pairs = static_cast<int32_t>(pairs),
                     .scale = table.scale});
    }
    begin = end;
  }
}

std::span<const blockzoo::RotaryRows> RotaryStep::Of(const blockzoo::Chain& chain) {
  rows_.clear();
  for (size_t index = 0; index < chain.rotary_tables().size(); ++index) {
    const Angles& angles = AnglesOf(index, chain.rotary_tables()[index].frequencies.size());
    rows_.push_back({.cosine = reinterpret_cast<const float*>(angles.cosine->data()),
                     .sine = reinterpret_cast<const float*>(angles.sine->data())});
  }
  return rows_;
}

}  // namespace tessera::scheduler
