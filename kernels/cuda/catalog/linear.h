// Which weights the streaming kernels serve: what decides how a weight is kept; and what their
// products need before the first step.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "config/foundation/status.h"
#include "kernels/cuda/linear/cost_table.h"
#include "kernels/cuda/linear/gemm.h"
#include "kernels/dtype.h"
#include "kernels/ops/linear.h"

namespace tessera::kernels::cuda {

// "" when the kernels of few and of many rows both serve a [out, in] weight, else what they lack.
[[nodiscard]] std::string MissingStreamed(DType dtype, int64_t in, int64_t out);

// How the cost table names launches of an epilogue, and a block's group of weights.
[[nodiscard]] ProductForm FormOf(Epilogue epilogue);
[[nodiscard]] ProductGroup GroupOf(const LinearGroup& group);

// Readies a row-invariant engine for the products that go to it in steps of up to `max_rows`.
// Errors of GemmEngine::Prepare.
[[nodiscard]] Status PrepareRowInvariant(std::span<const LinearGroup> groups, int32_t max_rows,
                                         GemmEngine& gemm);

}  // namespace tessera::kernels::cuda
