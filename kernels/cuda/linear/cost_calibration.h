// Fills a CostTable on the current device.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include "config/foundation/status.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/linear/cost_table.h"
#include "kernels/cuda/linear/gemm.h"
#include "kernels/memory.h"
#include "kernels/ops/linear.h"

namespace tessera::kernels::cuda {

[[nodiscard]] CostKey CostKeyOf(const DeviceInfo& device, const GemmEngine& gemm);

// A group's launch as a step makes it, all tasks with the same rows.
struct TrialLaunch {
  const LinearOp::Params& params;
  DType dtype = DType::kBF16;
  // Nothing: as the table says, behind whatever product was launched before.
  std::optional<ProductWay> way;
  // With a way: the product before left x as codes, too.
  bool coded = false;
};

// What products run with; nothing of it may be in use meanwhile.
struct ProductTools {
  GemmEngine& gemm;  // GemmNumerics::kFast
  Memory& memory;    // of the device, for the trials' operands
  cudaStream_t stream = nullptr;
  // Launches on `stream`, with `gemm`.
  std::function<Status(const TrialLaunch&)> launch;
  // Whether the streaming kernels run on the device; else the library alone is measured.
  bool streams = false;
};

// Brings `gemm` and `table` to where products of `groups` with 1..max_rows rows are known: gives
// the engine the table's algorithms, has it find those that are missing, measures groups that the
// table lacks, each alone (ProductTrial) and then those of a layer together (MeasureLayers), and
// takes the engine's algorithms into the table. With all of them known it takes a millisecond or so
// and no device memory; else two or three seconds for an 8B model, and memory for weights of 256 MB
// (or 128 MB and the largest group's, if more), twice while algorithms are sought, and for up to
// 512 rows of inputs and outputs. Waits for the device.
//
// All is in a group's cost that it costs a step: the norm in front (of all but residual products),
// making rows e4m3, gating. Once the streaming kernels take half as long again as the library they
// are not tried with more rows.
//
// RESOURCE_EXHAUSTED where memory is short: the table is as good as before. Groups that the library
// does not take (MissingGemm) are left out.
[[nodiscard]] Status CalibrateCosts(std::span<const ProductGroup> groups, int32_t max_rows,
                                    const ProductTools& tools, CostTable& table);

}  // namespace tessera::kernels::cuda
