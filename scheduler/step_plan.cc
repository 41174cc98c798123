#include "scheduler/step_plan.h"

#include "absl/strings/str_cat.h"

namespace tessera::scheduler {
namespace {

uint32_t RowsOfChain(const StepPlan& plan, const LiveChain* chain) {
  uint32_t rows = 0;
  for (const PlannedRows& planned : plan.sequences) {
    if (planned.sequence->chain == chain) rows += planned.rows;
  }
  return rows;
}

std::string DescribeSegment(const StepPlan& plan, const LiveChains::Graph& graph,
                            const blockzoo::Segment& segment) {
  uint32_t rows = 0;
  std::string names;
  for (const blockzoo::Segment::Use& use : segment.uses) {
    const LiveChain* chain = graph.chains[use.chain];
    const uint32_t chain_rows = RowsOfChain(plan, chain);
    rows += chain_rows;
    if (chain_rows == 0) continue;
    absl::StrAppend(&names, " ", chain->info.name, "[", use.first_block, "..",
                    use.first_block + segment.blocks.size() - 1, "]x", chain_rows);
  }
  if (rows == 0) return "";
  return absl::StrCat("    ", segment.blocks.size(), " blocks ", segment.blocks.front()->type(),
                      "..", segment.blocks.back()->type(), " rows ", rows, ":", names, "\n");
}

}  // namespace

void StepPlan::Reserve(uint32_t max_rows, uint32_t max_sequences, uint32_t stride) {
  sequences.reserve(max_sequences);
  tokens.reserve(max_rows);
  token_slots.reserve(max_rows);
  positions.reserve(max_rows);
  const size_t max_samples = size_t{max_rows} + max_sequences;
  samples.reserve(max_samples);
  sample_rows.reserve(max_samples);
  pools.reserve(max_sequences);
  top_stride = stride;
}

void StepPlan::Clear() {
  sequences.clear();
  tokens.clear();
  token_slots.clear();
  positions.clear();
  samples.clear();
  sample_rows.clear();
  pools.clear();
  decode_rows = 0;
  prefill_rows = 0;
  numerics = kernels::Numerics::kFast;
}

std::string Describe(const StepPlan& plan, const LiveChains& chains) {
  std::string text = absl::StrCat(
      "step: ", plan.rows(), " rows (", plan.decode_rows, " decode, ", plan.prefill_rows,
      " prefill", plan.numerics == kernels::Numerics::kFast ? "" : ", deterministic", "), ",
      plan.sequences.size(), " sequences, ", plan.samples.size(), " logits uses\n");
  for (const PlannedRows& planned : plan.sequences) {
    const Request& request = *planned.sequence->request;
    absl::StrAppend(&text, "  rows ", planned.first_row, "..", planned.first_row + planned.rows - 1,
                    ": ", request.chain->info.name, " request ", request.spec.id.value, " choice ",
                    planned.sequence->choice, " positions ", planned.position, "..",
                    planned.position + planned.rows - 1, "\n");
  }
  for (const PlannedPool& pool : plan.pools) {
    absl::StrAppend(&text, "  pooled rows ", pool.row, "..", pool.row + pool.rows - 1, "\n");
  }
  for (const LiveChains::Graph& graph : chains.graphs()) {
    uint32_t number = 0;
    for (const blockzoo::Stage& stage : graph.graph.stages()) {
      std::string members;
      uint32_t count = 0;
      for (uint32_t s : stage.segments) {
        const std::string line = DescribeSegment(plan, graph, graph.graph.segments()[s]);
        count += line.empty() ? 0 : 1;
        members += line;
      }
      if (count == 0) continue;
      absl::StrAppend(&text, "  stage ", number++, count > 1 ? " grouped" : "", " width ",
                      graph.width, "\n", members);
    }
  }
  return text;
}

}  // namespace tessera::scheduler
