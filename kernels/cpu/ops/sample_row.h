// One row of logits to one token.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/micro.h"
#include "kernels/ops/sample.h"

namespace tessera::kernels::cpu {

// Scratch that SampleRowToToken needs for a vocabulary of this size.
[[nodiscard]] size_t SampleScratchBytes(uint64_t vocab);

// `top` has room for top_logprobs + logprob_ids entries of the row, or is null when it asks for
// none. No allocation. Filters keep at least one token. A row of nothing but -infinity gives the
// lowest allowed id.
void SampleRowToToken(const SampleKernels& micro, const SampleRow& row, int32_t vocab,
                      std::byte* scratch, SampleResult* result, TokenLogprob* top);

}  // namespace tessera::kernels::cpu
