// The second way of running a product of few rows: units of 16 rows of weights (8 of gate and 8 of
// up where gated), each summed over all of `in` by one block. Nothing is added between blocks, so a
// launch costs its first and last bytes' latency and no more; x is read by every block, which
// limits the rows of x that it is good for.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <optional>

#include "kernels/cuda/linear/skinny_plan.h"
#include "kernels/dtype.h"

namespace tessera::kernels::cuda {

inline constexpr int kNarrowWarps = 8;
inline constexpr int64_t kNarrowMaxNormed = 8 * 4096;  // elements of the x tile
inline constexpr int kNarrowMaxPassUnits = 4;
inline constexpr int kNarrowMaxBlockUnits = 256;
// Two blocks and 2 KB that the device keeps share 228 KB; some of it is static.
inline constexpr int kNarrowSharedLimit = 112 * 1024;

// A block works through its units in passes of `pass_units`; its warps divide the slabs of columns
// of a pass, and each has a ring of `stages` slabs. Offsets are into shared memory.
struct NarrowPlan : SkinnyJob {
  int32_t pass_units;
  int32_t slabs;  // of `in`
  int32_t stages;
  uint32_t sums;  // float [warps, tokens, SumStride]
  uint32_t x_tile;
  uint32_t ring;
  uint32_t bytes;

  // Floats from a token's sums to the next's: bank conflicts need it to be 4 more than 16 n.
  TESSERA_HOST_DEVICE int SumStride() const { return 16 * pass_units + 4; }
  // Bytes from a row of the x tile to the next.
  TESSERA_HOST_DEVICE int TileStride(int pad) const { return in * 2 + pad; }
};

// How a job of so many units, with units for tiles, is run; `blocks` takes the number of blocks.
// nullopt where shapes do not fit.
[[nodiscard]] std::optional<NarrowPlan> PlanNarrow(const SkinnyJob& job, DType dtype, int64_t units,
                                                   int multiprocessors, int* blocks);
cudaError_t LaunchNarrow(const NarrowPlan& plan, DType dtype, int blocks, cudaStream_t stream);

// Bytes of a unit's slab in the ring.
TESSERA_HOST_DEVICE constexpr uint32_t NarrowUnitBytes(bool is_packed) {
  return is_packed ? 1152 : 1024;
}
// Bytes behind a row of the x tile that keep eight rows' reads in different banks.
TESSERA_HOST_DEVICE constexpr int NarrowTilePad(DType dtype) {
  return dtype == DType::kBF16 ? 64 : 16;
}

}  // namespace tessera::kernels::cuda
