// Which weights the streaming kernels serve: what decides how a weight is kept.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/dtype.h"

namespace tessera::kernels::cuda {

// "" when the kernels of few and of many rows both serve a [out, in] weight, else what they lack.
[[nodiscard]] std::string MissingStreamed(DType dtype, int64_t in, int64_t out);

}  // namespace tessera::kernels::cuda
