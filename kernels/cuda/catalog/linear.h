// Which weights the streaming kernels serve: what decides how a weight is kept; and what their
// products need before the first step.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "config/foundation/status.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/linear/cost_calibration.h"
#include "kernels/cuda/linear/cost_table.h"
#include "kernels/cuda/linear/gemm.h"
#include "kernels/cuda/row_codes.h"
#include "kernels/dtype.h"
#include "kernels/ops/linear.h"

namespace tessera::kernels::cuda {

class CudaContext;

// "" when the kernels of few and of many rows both serve a [out, in] weight, else what they lack.
[[nodiscard]] std::string MissingStreamed(DType dtype, int64_t in, int64_t out);

// How the cost table names launches of an epilogue, and a block's group of weights.
[[nodiscard]] ProductForm FormOf(Epilogue epilogue);
[[nodiscard]] ProductGroup GroupOf(const LinearGroup& group);

// As what a product of `rows` rows, all of one launch, reads its x; none: as bf16. With
// codes by groups whoever writes x may leave them, too (CudaContext::left_codes).
[[nodiscard]] std::optional<CodeKind> CodesWanted(CudaContext& cuda, const ProductGroup& group,
                                                  int32_t rows);

// Launches a group the way that is given, on the context's stream; the error of a launch that
// fails, which the context then forgets.
[[nodiscard]] Status LaunchProducts(const TrialLaunch& launch, CudaContext& cuda);

// Whether decoding rows whose bits are fixed go to the library. It may not split the sum over `in`
// there, so it is fast where the channels alone, of all that runs together, keep the memory busy;
// and where it reads the weight as it is kept.
[[nodiscard]] bool FillsDevice(const ProductGroup& group, const DeviceInfo& device,
                               const GemmEngine& gemm);

// Readies a row-invariant engine for the products that go to it in steps of up to `max_rows` rows
// of prompts or `decode_rows` decoding ones. Errors of GemmEngine::Prepare.
struct RowInvariantRows {
  int32_t max_rows = 0;
  int32_t decode_rows = 0;
};
[[nodiscard]] Status PrepareRowInvariant(std::span<const LinearGroup> groups,
                                         const RowInvariantRows& rows, const DeviceInfo& device,
                                         GemmEngine& gemm);

}  // namespace tessera::kernels::cuda
