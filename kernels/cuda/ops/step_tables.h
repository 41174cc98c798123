// The tokens and page tables of a step (kernels/ops/step_tables.h) on the device.
#pragma once

#include <cuda_runtime.h>

#include "kernels/ops/step_tables.h"

namespace tessera::kernels::cuda {

// Ends before anything launched after it begins: kernels may read tables ahead of the kernels
// before them, so these must not be among what they run ahead of.
cudaError_t LaunchStepTables(const StepTablesOp::Params& params, cudaStream_t stream);

}  // namespace tessera::kernels::cuda
