// The step as a value: which rows of which sequences run, and which logits are wanted. It can be
// printed and tested; the executor runs it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "config/foundation/fetching.h"
#include "kernels/exec_context.h"
#include "kernels/ops/sample.h"
#include "scheduler/live_chains.h"
#include "scheduler/sequence.h"

namespace tessera::scheduler {

// Consecutive rows of one sequence: 1 for decode, a chunk for prefill.
struct PlannedRows {
  Sequence* sequence = nullptr;
  uint32_t first_row = 0;
  uint32_t rows = 0;
  uint32_t position = 0;  // of the first row
  uint32_t epoch = 0;     // Sequence::preemptions when it was planned
  // What the rows of a plan are sorted by: union graph and slot, request, choice.
  uint64_t chain_order = 0;
  uint64_t request = 0;
  uint32_t choice = 0;

  [[nodiscard]] uint32_t graph() const { return static_cast<uint32_t>(chain_order >> 32); }
  [[nodiscard]] uint32_t slot() const { return static_cast<uint32_t>(chain_order); }
};

// One use of a row's logits. Several may name one row (choices of one prompt).
struct PlannedSample {
  uint32_t row = 0;
  Sequence* sequence = nullptr;
  // Index of the prompt token whose log-probability is wanted; 0: draw the next token.
  uint32_t prompt_index = 0;
};

// Rows whose final hidden states are added to their sequence's sums.
struct PlannedPool {
  Sequence* sequence = nullptr;
  uint32_t row = 0;
  uint32_t rows = 0;
};

struct StepPlan {
  std::vector<PlannedRows> sequences;  // by graph, chain slot, then order of admission
  std::vector<TokenId> tokens;         // [rows], as far as they are known
  std::vector<int32_t> token_slots;    // [rows] slot of the draw that it is; -1: in `tokens`
  std::vector<uint32_t> positions;     // [rows]
  std::vector<PlannedSample> samples;  // ascending by row
  std::vector<kernels::SampleRow>
      sample_rows;                 // one for each of `samples`; logits set by the executor
  std::vector<PlannedPool> pools;  // ascending by row
  uint32_t decode_rows = 0;
  uint32_t prefill_rows = 0;
  kernels::Numerics numerics = kernels::Numerics::kFast;

  // What the executor fills, one for each of `samples`. Of the executor's memory, until the plan is
  // submitted again.
  std::span<const kernels::SampleResult> results;
  std::span<const kernels::TokenLogprob> top;  // [samples, top_stride]; empty when none asks
  uint32_t top_stride = 0;
  uint64_t mark = 0;  // ExecContext::Mark behind its last launch

  // Candidates that sample `index` has in `top`.
  [[nodiscard]] std::span<const kernels::TokenLogprob> TopOf(size_t index, size_t count) const {
    return count == 0 ? std::span<const kernels::TokenLogprob>()
                      : top.subspan(index * top_stride, count);
  }

  [[nodiscard]] uint32_t rows() const { return decode_rows + prefill_rows; }
  // Begins to bring the sample row near, to be written: the kernels' threads read it last.
  TESSERA_FETCHING void PrefetchSampleRow(size_t index) const {
    const auto* begin = reinterpret_cast<const std::byte*>(sample_rows.data() + index);
    for (size_t at = 0; at < sizeof(kernels::SampleRow); at += 64) {
      __builtin_prefetch(begin + at, 1);
    }
  }
  void Reserve(uint32_t max_rows, uint32_t max_sequences, uint32_t top_stride);
  void Clear();
};

// The plan as text: rows by chain, then each stage with its members and rows.
[[nodiscard]] std::string Describe(const StepPlan& plan, const LiveChains& chains);

}  // namespace tessera::scheduler
