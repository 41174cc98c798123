// Fills a CostTable on the current device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "config/foundation/status.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/linear/cost_table.h"
#include "kernels/cuda/linear/gemm.h"
#include "kernels/memory.h"

namespace tessera::kernels::cuda {

[[nodiscard]] CostKey CostKeyOf(const DeviceInfo& device, const GemmEngine& gemm);

// What products run with; nothing of it may be in use meanwhile.
struct ProductTools {
  GemmEngine& gemm;                       // GemmNumerics::kFast
  std::byte* skinny_workspace = nullptr;  // skinny.h; null: the library alone is measured
  Memory& memory;                         // of the device, for the trials' operands
};

// Brings `gemm` and `table` to where products of `groups` with 1..max_rows rows are known: gives
// the engine the table's algorithms, has it find those that are missing, measures groups that the
// table lacks, and takes the engine's algorithms into the table. With all of them known it takes a
// millisecond or so and no device memory; else one or two seconds for an 8B model, and memory for
// weights of 256 MB (or the largest group's, if more), twice while algorithms are sought, and for
// up to 512 rows of inputs and outputs. Waits for the device.
//
// A measurement is some launches of the group with weights that are not in the cache, as one graph;
// the best of five runs. The library's way has the passes that it alone needs: making rows e4m3
// (where no norm in front does that), gating. Once the streaming kernels take half as long again as
// the library they are not tried with more rows.
//
// RESOURCE_EXHAUSTED where memory is short: the table is as good as before. Groups that the library
// does not take (MissingGemm) are left out.
[[nodiscard]] Status CalibrateCosts(std::span<const ProductGroup> groups, int32_t max_rows,
                                    const ProductTools& tools, CostTable& table);

}  // namespace tessera::kernels::cuda
