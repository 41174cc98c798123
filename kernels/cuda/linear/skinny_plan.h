// What the host decides of a skinny product and the kernel reads (skinny.h's inside).
//
// Up to 8 rows (skinny_few.cuh): outputs are cut into tiles of 16 rows of weights (16 of gate and
// 16 of up where gated), and blocks divide the tiles of all tasks, in order, into equal runs.
//
// More rows (skinny_tile.cuh): outputs are cut into tiles (`groups` consumer warpgroups times 128
// rows of weights; half of them gate and half up where gated), a tile along `in` into units of
// `unit_k` columns. Blocks divide the units of all tiles, in order, into equal runs: a run begins
// and ends inside a tile, so that a tile is the sum of up to a few blocks' pieces.
//
// bf16 weights and codes, where nearly all multiprocessors then have some (skinny_whole.cuh): a
// tile of `whole_channels` rows of weights is a pair of blocks', one of twice as many rows of gate
// and of up a block's; of int4 (skinny_i4_whole.cuh) of as many.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/kv_layout.h"
#include "kernels/cuda/linear/skinny.h"
#include "kernels/dtype.h"

namespace tessera::kernels::cuda {

inline constexpr int kSkinnyGroupRows = 128;  // rows of weights of one consumer warpgroup
inline constexpr int kSkinnyFewRows = 16;     // rows of weights of a tile of the kernel of few rows
inline constexpr int kSkinnyMostKept =
    16384;  // elements of x that its blocks keep in shared memory
inline constexpr int kSkinnyMaxMultiprocessors = 256;
// What kernels of whole rows are made for: WholeShape::kN of gate and up, and of the others.
inline constexpr int kSkinnyWholeGated[] = {32, 40, 48, 56, 64};
inline constexpr int kSkinnyWholePaired[] = {32, 40, 48, 56, 64, 72, 80, 96, 112, 128};
// Of int4 (skinny_i4_whole.cuh), the same of rows of weights of a tile.
inline constexpr int kSkinnyI4Gated[] = {80, 96, 112, 128};
inline constexpr int kSkinnyI4Paired[] = {32, 48, 64, 80, 96, 112, 128};

// Shared memory of a block, by its place.
inline constexpr size_t kSkinnyAloneBytes = 116 * 1024;
inline constexpr size_t kSkinnyBesideBytes = 110 * 1024;
// Of two blocks that share a multiprocessor: 228 KB, of which the device keeps 1 KB a block.
inline constexpr size_t kSkinnyPairBytes = 226 * 1024;
// What a block of more than 8 rows takes so that no two of them share one, but it and a smaller do.
inline constexpr size_t kSkinnyTileAloneBytes = kSkinnyPairBytes / 2 + 128;

// Of the ring that a block fills while others still read: what is asked for at first, and the rest
// when that begins to come. More on its way at once makes x late, which the kernel before waits for
// by then: all of it waits for the same memory.
inline constexpr uint32_t kSkinnyFirstBytes = 32 * 1024;

// How a weight type and number of rows are run.
struct SkinnyGeometry {
  int columns;   // rows of x, rounded up to what the kernels are made for: 8, 16, 32, 64
  int groups;    // consumer warpgroups
  int unit_k;    // columns of a unit
  int resident;  // blocks that share a multiprocessor: 2 lets the next kernel fill its ring
};
// `coded`: x is codes, of the weight's type.
constexpr SkinnyGeometry SkinnyGeometryOf(DType dtype, bool coded, int rows) {
  SkinnyGeometry geometry{rows <= 8 && !coded ? 8
                          : rows <= 16        ? 16
                          : rows <= 32        ? 32
                                              : 64,
                          2, 128, 2};
  if (dtype == DType::kBF16 || coded) {
    geometry.groups = 1;
    geometry.resident = geometry.columns == 64 ? 1 : 2;
    geometry.unit_k = coded ? 128 : 64;
  } else if (dtype == DType::kF8Block128 && geometry.columns <= 16) {
    // With its scales, half of the registers are too few.
    geometry.groups = 1;
  } else if (geometry.columns == 64) {
    geometry.resident = 1;
  } else if (geometry.columns == 32) {
    geometry.resident = dtype == DType::kF8Channel || dtype == DType::kI8Channel ? 2 : 1;
  }
  return geometry;
}

// Bytes of an element of y.
TESSERA_HOST_DEVICE constexpr int OutputBytes(SkinnyEpilogue epilogue) {
  return epilogue == SkinnyEpilogue::kResidual || epilogue == SkinnyEpilogue::kStoreFloat ? 4 : 2;
}

// A weight and, where gated, its `up` at index 1.
struct SkinnyPlanTask {
  const std::byte* weight[2];
  const float* scales[2];  // of the types that keep them apart
  const float* bias[2];
  const __nv_bfloat16* addend[2];
  int64_t addend_stride;
  void* y;
  int64_t y_stride;
  int32_t out;
  int32_t first_tile;
};

struct SkinnyPlan {
  CUtensorMap weight_maps[kSkinnyMaxTasks][2];  // bytes [out, row bytes]; unused for int4
  CUtensorMap x_map;                            // bytes [rows, row bytes]; unused without x
  CUtensorMap x_scale_map;                      // of codes by groups: bytes [units, rows * 4]
  SkinnyPlanTask tasks[kSkinnyMaxTasks];
  int32_t task_count;
  int32_t tile_units;   // units of a tile
  int32_t block_units;  // of each block; the first `extra_units` blocks have one more
  int32_t extra_units;
  int32_t in;
  int32_t rows;
  int32_t gated;
  SkinnyEpilogue epilogue;
  SkinnyPlace place;
  const __nv_bfloat16* x;
  const float* residual;
  const float* norm_weight;
  float epsilon;
  const int32_t* x_rows;
  const int32_t* y_rows;
  const float* x_scales;  // where x is codes
  // Of the kernel of few rows:
  int32_t few_tiles;  // that a block sums at a time
  int32_t few_teams;  // 2: its warps divide them in halves
  int32_t few_slots;  // of a warp's ring
  int32_t few_plain;  // 1: one row, that is row 0 of y, and no addends
  // Of the kernel of more rows:
  int32_t plain;  // 1: words of four outputs of y are aligned, its rows x's, and nothing is added
  // WholeShape::kN, of int4 rows of weights of a tile; 0: another kernel.
  int32_t whole_channels;
  int32_t x_box_rows;  // of x_map
  float* pieces;  // [blocks, 2, groups, columns / 8 + 1, 2, 128 threads, 4], zero between launches

  // First unit of `block`.
  TESSERA_HOST_DEVICE int UnitBegin(int block) const {
    return block * block_units + (block < extra_units ? block : extra_units);
  }
  // The block that has `unit`.
  TESSERA_HOST_DEVICE int BlockOf(int unit) const {
    const int longer = extra_units * (block_units + 1);
    return unit < longer ? unit / (block_units + 1) : extra_units + (unit - longer) / block_units;
  }
  TESSERA_HOST_DEVICE const SkinnyPlanTask& TaskOf(int tile, int* index) const {
    int task = 0;
    while (task + 1 < task_count && tile >= tasks[task + 1].first_tile) ++task;
    *index = task;
    return tasks[task];
  }
};

// Launchers of the kernels of a family of types, with `blocks` blocks.
cudaError_t LaunchSkinnyBf16(const SkinnyPlan& plan, int columns, int blocks, cudaStream_t stream);
cudaError_t LaunchSkinnyF8(const SkinnyPlan& plan, DType dtype, int columns, int blocks,
                           cudaStream_t stream);
cudaError_t LaunchSkinnyI8(const SkinnyPlan& plan, int columns, int blocks, cudaStream_t stream);
cudaError_t LaunchSkinnyI4(const SkinnyPlan& plan, DType dtype, int columns, int blocks,
                           cudaStream_t stream);
cudaError_t LaunchSkinnyI4Whole(const SkinnyPlan& plan, DType dtype, int columns, int blocks,
                                cudaStream_t stream);

}  // namespace tessera::kernels::cuda
