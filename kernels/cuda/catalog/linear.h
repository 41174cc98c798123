// Which weights the streaming kernels serve: what decides how a weight is kept.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/cuda/linear/cost_table.h"
#include "kernels/dtype.h"
#include "kernels/ops/linear.h"

namespace tessera::kernels::cuda {

// "" when the kernels of few and of many rows both serve a [out, in] weight, else what they lack.
[[nodiscard]] std::string MissingStreamed(DType dtype, int64_t in, int64_t out);

// How the cost table names launches of an epilogue, and a block's group of weights.
[[nodiscard]] ProductForm FormOf(Epilogue epilogue);
[[nodiscard]] ProductGroup GroupOf(const LinearGroup& group);

}  // namespace tessera::kernels::cuda
