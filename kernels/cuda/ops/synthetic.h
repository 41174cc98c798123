// Synthetic weights (kernels/synthetic.h) made where they are read.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "kernels/synthetic.h"

namespace tessera::kernels::cuda {

// Fills `out` [tensor.bytes rounded up to 4] on the device, bit for bit as the host would.
cudaError_t LaunchSynthetic(const SyntheticTensor& tensor, std::byte* out, cudaStream_t stream);

}  // namespace tessera::kernels::cuda
