// One weight in another element type, and what that loses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "blockzoo/manifest.h"
#include "blockzoo/zoo_mapping.h"
#include "config/foundation/status.h"
#include "kernels/dtype.h"

namespace tessera::blockzoo {

struct QuantizedTensor {
  std::shared_ptr<const MappedFile> bytes;  // canonical, in memory
  double relative_error = 0;  // |w' - w| / |w|, Euclidean norms over the tensor; 0 for zeros
};

// Takes a matrix of any weight type to `to` (kernels/weight_codec.h), on all usable processors; the
// result does not depend on their number. Beside the bytes it takes some rows of floats.
// INVALID_ARGUMENT when the shape does not fit `to`, or a weight is no finite number.
[[nodiscard]] StatusOr<QuantizedTensor> QuantizeTensor(const TensorRef& from,
                                                       std::span<const std::byte> canonical,
                                                       kernels::DType to);

}  // namespace tessera::blockzoo
