// The kernel of skinny_narrow.h. A warp copies its own slabs into its own ring, so that the stream
// of weights needs no barrier of the block; those meet once a pass, to add the warps' sums in
// order.
//
// A slab is 64 bytes of each row of weights: 32 columns of bfloat16, 64 of a byte each, or a record
// of 128 packed int4. Lane t of a quad has a quarter of them, neighbours, of weights and of x
// alike.
#pragma once

#include <atomic>
#include <cstdint>

#include "kernels/cuda/linear/skinny_epilogue.cuh"
#include "kernels/cuda/linear/skinny_format.cuh"
#include "kernels/cuda/linear/skinny_launch.h"
#include "kernels/cuda/linear/skinny_narrow.h"
#include "kernels/cuda/ptx.cuh"

namespace tessera::kernels::cuda {

// Where a unit's weights begin: rows 0..7 and 8..15 of its fragments.
struct NarrowUnit {
  const std::byte* part[2];  // row-major: the first of the rows; packed: the panel's first record
  int32_t row;               // first row of the task
  int16_t left[2];           // rows from there to the end of the weight
  uint8_t task;
  uint8_t panel_row;  // packed, of rows 0..7; rows 8..15 of the weight are 8 further
  uint8_t panel_rows[2];
};
static_assert(sizeof(NarrowUnit) == 32);

template <typename Format_, int kOctets_>
struct NarrowTile {
  using Format = Format_;
  static constexpr int kOctets = kOctets_;  // groups of 8 tokens
  static constexpr int kThreads = 32 * kNarrowWarps;
  static constexpr bool kPacked = Format::kPacked;
  static constexpr int kSlabColumns = kPacked ? 128 : Format::kDType == DType::kBF16 ? 32 : 64;
  static constexpr int kSteps = kSlabColumns / 16;  // products of 16 columns
  static constexpr int kWords = kSlabColumns / 32;  // of 16 bytes of x, a lane and octet
  static constexpr uint32_t kUnitBytes = NarrowUnitBytes(kPacked);
  static constexpr bool kGrouped =
      Format::kScale == SkinnyScale::kBlock || Format::kScale == SkinnyScale::kGroup;
};

template <typename Tile>
struct NarrowWarp {
  using Format = typename Tile::Format;
  static constexpr int kUnits = kNarrowMaxPassUnits;

  const NarrowPlan& plan;
  uint8_t* const memory;
  const NarrowUnit* const units = reinterpret_cast<const NarrowUnit*>(memory);
  const int unit_count = plan.UnitBegin(blockIdx.x + 1) - plan.UnitBegin(blockIdx.x);
  const int warp = static_cast<int>(threadIdx.x >> 5);
  const int lane = LaneId();
  // Of a lane's 16 bytes in a slab of row-major weights.
  const int64_t row_bytes = int64_t{plan.in} * (Format::kDType == DType::kBF16 ? 2 : 1);
  const int64_t lane_offset = (lane >> 2) * row_bytes + (lane & 3) * 16;
  const uint64_t policy = EvictFirstPolicy();
  float acc[kUnits][Tile::kOctets][4] = {};
  float block_scale[2][kUnits][2] = {};  // of this pass and the next, lane j for the j-th slab

  __device__ __forceinline__ uint8_t* Slot(int stage, int unit) const {
    return memory + plan.ring +
           ((stage * kNarrowWarps + warp) * plan.pass_units + unit) * Tile::kUnitBytes;
  }

  // A place in the sequence of this warp's slabs.
  struct Cursor {
    int first_unit = 0;
    int slab;
    int stage = 0;
  };
  __device__ __forceinline__ void Advance(Cursor& cursor) const {
    cursor.slab += kNarrowWarps;
    if (cursor.slab >= plan.slabs) {
      cursor.slab = warp;
      cursor.first_unit += plan.pass_units;
    }
    cursor.stage = cursor.stage + 1 == plan.stages ? 0 : cursor.stage + 1;
  }

  __device__ __forceinline__ void CopyRows(const NarrowUnit& unit, int slab, uint8_t* to) const {
    const int64_t offset = lane_offset + slab * 64;
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const bool inside = (lane >> 2) < unit.left[part];
      CopyAsync16(to + part * 512 + lane * 16, unit.part[part] + (inside ? offset : 0), inside,
                  policy);
    }
  }
  // Codes of two halves of 64 columns, [16 rows, 32 bytes] each; f16 scales [groups, 16] at 1024;
  // zero points [groups, 16] at 1088.
  __device__ __forceinline__ void CopyRecord(const NarrowUnit& unit, int slab, uint8_t* to) const {
    constexpr int kGroups = 128 / Format::kGroup;
    const auto source = [&](int part, Int4Record* record) {
      *record = Int4RecordOf(unit.panel_rows[part], Format::kGroup, Format::kZeros);
      return unit.part[part] + int64_t{slab} * record->bytes;
    };
    const auto row = [&](int part) { return unit.panel_row + (plan.gated ? 0 : 8 * part); };
    Int4Record record;
    const int part = lane >> 4;
    const std::byte* from = source(part, &record) + row(part) * 32 + (lane & 15) * 16;
    CopyAsync16(to + lane * 16, from, true, policy);
    CopyAsync16(to + 512 + lane * 16, from + record.rows * 32, true, policy);
    if (lane < 2 * kGroups) {
      const int group = lane >> 1;
      const std::byte* scales = source(lane & 1, &record) + record.scales;
      CopyAsync16(to + 1024 + group * 32 + (lane & 1) * 16,
                  scales + (group * record.rows + row(lane & 1)) * 2, true, policy);
      if constexpr (Format::kZeros) {
        const std::byte* zeros = source(lane & 1, &record) + record.zeros;
        CopyAsync8(to + 1088 + group * 16 + (lane & 1) * 8,
                   zeros + group * record.rows + row(lane & 1));
      }
    }
  }
  // Starts the copies of a slab: one group, also where there is nothing left.
  __device__ __forceinline__ void Issue(const Cursor& cursor) const {
    if (cursor.slab < plan.slabs) {
#pragma unroll
      for (int u = 0; u < kUnits; ++u) {
        if (u >= plan.pass_units || cursor.first_unit + u >= unit_count) break;
        const NarrowUnit& unit = units[cursor.first_unit + u];
        if constexpr (Tile::kPacked) {
          CopyRecord(unit, cursor.slab, Slot(cursor.stage, u));
        } else {
          CopyRows(unit, cursor.slab, Slot(cursor.stage, u));
        }
      }
    }
    CopyAsyncCommit();
  }
  // Until at most `stages` - 1 groups are under way.
  __device__ __forceinline__ void Wait() const {
    switch (plan.stages) {
      case 2:
        return CopyAsyncWait<1>();
      case 3:
        return CopyAsyncWait<2>();
      case 4:
        return CopyAsyncWait<3>();
      case 5:
        return CopyAsyncWait<4>();
      case 6:
        return CopyAsyncWait<5>();
      case 7:
        return CopyAsyncWait<6>();
      default:
        return CopyAsyncWait<7>();
    }
  }

  using Columns = uint4[Tile::kOctets][Tile::kWords];
  // This lane's columns of a slab of x.
  __device__ __forceinline__ void LoadColumns(int slab, Columns& columns) const {
#pragma unroll
    for (int o = 0; o < Tile::kOctets; ++o) {
      const int token = 8 * o + (lane >> 2);
#pragma unroll
      for (int w = 0; w < Tile::kWords; ++w) {
        columns[o][w] = make_uint4(0, 0, 0, 0);
        // Quarters of 32 columns of bfloat16, of 64, or of both halves of 128.
        const int column =
            slab * Tile::kSlabColumns +
            (Tile::kWords == 1 ? (lane & 3) * 8 : (w >> 1) * 64 + (lane & 3) * 16 + (w & 1) * 8);
        // Only packed records reach past the row.
        if (token >= plan.rows || (Tile::kPacked && column >= plan.in)) continue;
        if (plan.x != nullptr) {
          columns[o][w] =
              __ldcg(reinterpret_cast<const uint4*>(plan.x + int64_t{token} * plan.in + column));
        } else {
          columns[o][w] = *reinterpret_cast<const uint4*>(
              memory + plan.x_tile + token * plan.TileStride(NarrowTilePad(Format::kDType)) +
              column * 2);
        }
      }
    }
  }

  __device__ __forceinline__ void LoadBlockScales(int pass_unit, int from_slab,
                                                  float (&scale)[kUnits][2]) const {
    if constexpr (Format::kScale == SkinnyScale::kBlock) {
      const int count = (plan.in + 127) / 128;
      const int index = (from_slab + kNarrowWarps * lane) >> 1;
#pragma unroll
      for (int u = 0; u < kUnits; ++u) {
        if (u >= plan.pass_units || pass_unit + u >= unit_count || index >= count) break;
        const NarrowUnit& unit = units[pass_unit + u];
        const SkinnyPlanTask& task = plan.tasks[unit.task];
#pragma unroll
        for (int part = 0; part < 2; ++part) {
          const float* row = task.scales[plan.gated ? part : 0] + int64_t{unit.row / 128} * count;
          asm volatile("ld.global.nc.f32 %0, [%1];" : "=f"(scale[u][part]) : "l"(row + index));
        }
      }
    }
  }

  __device__ __forceinline__ typename Format::Codes LoadPacked(const uint8_t* slot,
                                                               int half) const {
    typename Format::Codes codes;
    const int row = lane >> 2, group = Format::kGroup == 64 ? half * 16 : 0;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      codes.row[r] =
          *reinterpret_cast<const uint2*>(slot + half * 512 + (row + 8 * r) * 32 + (lane & 3) * 8);
      codes.scale[r] =
          __half2float(*reinterpret_cast<const __half*>(slot + 1024 + (group + row + 8 * r) * 2));
      codes.zero[r] = 0x43084308u;
      if constexpr (Format::kZeros) {
        codes.zero[r] = 0x43004300u | slot[1088 + group + row + 8 * r] * 0x00010001u;
      }
    }
    return codes;
  }

  // acc += one unit's slab times x. `turn`: how many slabs of the pass came before.
  __device__ __forceinline__ void Multiply(const uint8_t* slot, int turn, int u,
                                           const Columns& columns) {
    if constexpr (Tile::kPacked) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const typename Format::Codes codes = LoadPacked(slot, half);
        float part[Tile::kOctets][4] = {};
        MultiplyCodes(codes, 2 * half, columns, part);
        AddScaled(codes.scale, part, acc[u]);
      }
    } else if constexpr (Format::kRegisters) {
      const typename Format::Codes codes{{*reinterpret_cast<const uint4*>(slot + lane * 16),
                                          *reinterpret_cast<const uint4*>(slot + 512 + lane * 16)}};
      if constexpr (Tile::kGrouped) {
        float part[Tile::kOctets][4] = {};
        MultiplyCodes(codes, 0, columns, part);
        const float scale[2] = {__shfl_sync(0xffffffffu, block_scale[0][u][0], turn & 31),
                                __shfl_sync(0xffffffffu, block_scale[0][u][1], turn & 31)};
        AddScaled(scale, part, acc[u]);
      } else {
        MultiplyCodes(codes, 0, columns, acc[u]);
      }
    } else {
      const uint4 low = *reinterpret_cast<const uint4*>(slot + lane * 16);
      const uint4 high = *reinterpret_cast<const uint4*>(slot + 512 + lane * 16);
      const uint32_t a[2][4] = {{low.x, high.x, low.y, high.y}, {low.z, high.z, low.w, high.w}};
#pragma unroll
      for (int o = 0; o < Tile::kOctets; ++o) {
        MmaBf16(acc[u][o], a[0], columns[o][0].x, columns[o][0].y);
        MmaBf16(acc[u][o], a[1], columns[o][0].z, columns[o][0].w);
      }
    }
  }
  __device__ __forceinline__ void MultiplyCodes(const typename Format::Codes& codes, int word,
                                                const Columns& columns,
                                                float (&to)[Tile::kOctets][4]) {
    if constexpr (Format::kRegisters) {
#pragma unroll
      for (int pair = 0; pair < 2; ++pair) {
        uint32_t a[2][4];
        Format::Convert(codes, pair, a);
#pragma unroll
        for (int o = 0; o < Tile::kOctets; ++o) {
          const uint4& b = columns[o][word + pair];
          MmaBf16(to[o], a[0], b.x, b.y);
          MmaBf16(to[o], a[1], b.z, b.w);
        }
      }
    }
  }
  static __device__ __forceinline__ void AddScaled(const float (&scale)[2],
                                                   const float (&part)[Tile::kOctets][4],
                                                   float (&to)[Tile::kOctets][4]) {
#pragma unroll
    for (int o = 0; o < Tile::kOctets; ++o) {
#pragma unroll
      for (int i = 0; i < 4; ++i) to[o][i] = fmaf(scale[i >> 1], part[o][i], to[o][i]);
    }
  }

  __device__ __forceinline__ float* Sums(int of_warp) const {
    return reinterpret_cast<float*>(memory + plan.sums) +
           of_warp * 8 * Tile::kOctets * plan.SumStride();
  }
  // Gives this warp's sums to the block, and clears them.
  __device__ __forceinline__ void WriteSums() {
    float* const to = Sums(warp);
    const int stride = plan.SumStride();
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
#pragma unroll
      for (int o = 0; o < Tile::kOctets; ++o) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int token = 8 * o + 2 * (lane & 3) + (i & 1);
          const int row = 16 * u + (lane >> 2) + 8 * (i >> 1);
          if (u < plan.pass_units) to[token * stride + row] = acc[u][o][i];
          acc[u][o][i] = 0;
        }
      }
    }
  }
};

// Channel scales and biases of the row of a pass that a thread writes.
struct NarrowRow {
  float scale[2] = {1, 1};
  float bias[2] = {0, 0};
};

// How threads divide a pass's outputs: a row each, some tokens.
template <typename Tile>
struct NarrowWriter {
  const NarrowPlan& plan;
  const NarrowUnit* units;
  const int unit_count;
  const int unit_rows = plan.gated ? 8 : 16;
  const int pass_rows = plan.pass_units * unit_rows;
  const int threads_a_row = Tile::kThreads / pass_rows;
  const int first_token = static_cast<int>(threadIdx.x) / pass_rows;
  const int pass_row = static_cast<int>(threadIdx.x) % pass_rows;

  // This thread's unit in the pass of `first_unit`, or null where it has nothing to write.
  __device__ __forceinline__ const NarrowUnit* UnitOf(int first_unit) const {
    const int unit = first_unit + pass_row / unit_rows;
    if (first_token >= threads_a_row || unit >= unit_count) return nullptr;
    const NarrowUnit* found = units + unit;
    return found->row + pass_row % unit_rows < plan.tasks[found->task].out ? found : nullptr;
  }
  // Constants, so early that the sums need not wait for them.
  __device__ __forceinline__ NarrowRow LoadRow(int first_unit) const {
    NarrowRow row;
    const NarrowUnit* unit = UnitOf(first_unit);
    if (unit == nullptr) return row;
    const SkinnyPlanTask& task = plan.tasks[unit->task];
    const int at = unit->row + pass_row % unit_rows;
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      if (part == 1 && !plan.gated) break;
      if constexpr (Tile::Format::kScale == SkinnyScale::kChannel) {
        asm volatile("ld.global.nc.f32 %0, [%1];"
                     : "=f"(row.scale[part])
                     : "l"(task.scales[part] + at));
      }
      if (task.bias[part] != nullptr) {
        asm volatile("ld.global.nc.f32 %0, [%1];"
                     : "=f"(row.bias[part])
                     : "l"(task.bias[part] + at));
      }
    }
    return row;
  }
  __device__ __forceinline__ float Total(const float* sums, int token, int at) const {
    const int stride = plan.SumStride();
    float total = 0;
#pragma unroll
    for (int w = 0; w < kNarrowWarps; ++w) {
      total += sums[(w * 8 * Tile::kOctets + token) * stride + at];
    }
    return total;
  }
  __device__ __forceinline__ void Write(int first_unit, const NarrowRow& row, const float* sums,
                                        const float* squares) const {
    const NarrowUnit* unit = UnitOf(first_unit);
    if (unit == nullptr) return;
    const SkinnyPlanTask& task = plan.tasks[unit->task];
    const int at = unit->row + pass_row % unit_rows;
    const int sum_at = pass_row / unit_rows * 16 + pass_row % unit_rows;
    for (int token = first_token; token < plan.rows; token += threads_a_row) {
      float factor = 1.0f;
      if (plan.x == nullptr) {
        float sum = 0;
        for (int w = 0; w < kNarrowWarps; ++w) sum += squares[token * kNarrowWarps + w];
        factor = rsqrtf(sum / static_cast<float>(plan.in) + plan.epsilon);
      }
      float values[2] = {0, 0};
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        if (part == 1 && !plan.gated) break;
        values[part] = Total(sums, token, sum_at + 8 * part) * (factor * row.scale[part]);
        float extra = row.bias[part];
        if (task.addend[part] != nullptr) {
          extra += __bfloat162float(task.addend[part][token * task.addend_stride + at]);
        }
        values[part] += extra;
      }
      const int64_t y_row = plan.y_rows == nullptr ? token : plan.y_rows[token];
      const int64_t offset = y_row * task.y_stride + at;
      if (plan.gated) {
        static_cast<__nv_bfloat16*>(task.y)[offset] =
            __float2bfloat16_rn(GatedValue(values[0], values[1], plan.epilogue));
      } else if (plan.epilogue == SkinnyEpilogue::kResidual) {
        atomicAdd(static_cast<float*>(task.y) + offset, values[0]);
      } else if (plan.epilogue == SkinnyEpilogue::kStoreFloat) {
        static_cast<float*>(task.y)[offset] = values[0];
      } else {
        static_cast<__nv_bfloat16*>(task.y)[offset] = __float2bfloat16_rn(values[0]);
      }
    }
  }
};

// The block's units, once, so that streaming them needs no search.
template <typename Tile>
__device__ __forceinline__ void ListUnits(const NarrowPlan& plan, NarrowUnit* units) {
  using Format = typename Tile::Format;
  const int begin = plan.UnitBegin(blockIdx.x), end = plan.UnitBegin(blockIdx.x + 1);
  for (int i = begin + static_cast<int>(threadIdx.x); i < end; i += Tile::kThreads) {
    NarrowUnit unit{};
    unit.task = static_cast<uint8_t>(plan.IndexOf(i));
    const SkinnyPlanTask& task = plan.tasks[unit.task];
    unit.row = (i - task.first_tile) * (plan.gated ? 8 : 16);
    for (int part = 0; part < 2; ++part) {
      const int row = unit.row + (plan.gated ? 0 : 8 * part);
      const std::byte* weight = task.weight[plan.gated ? part : 0];
      unit.left[part] = static_cast<int16_t>(max(0, min(task.out - row, 8)));
      if constexpr (Tile::kPacked) {
        const auto panel = static_cast<uint32_t>(unit.row) / kInt4PanelRows * kInt4PanelRows;
        unit.panel_rows[part] = static_cast<uint8_t>(Int4PanelRows(task.out, panel));
        unit.panel_row = static_cast<uint8_t>(unit.row % kInt4PanelRows);
        const Int4Record record =
            Int4RecordOf(unit.panel_rows[part], Format::kGroup, Format::kZeros);
        unit.part[part] = weight + Int4RecordOffset(unit.row, 0, plan.in, record);
      } else {
        const int64_t row_bytes = int64_t{plan.in} * (Format::kDType == DType::kBF16 ? 2 : 1);
        // Rows past the end are not read, but their address is made.
        unit.part[part] = weight + (unit.left[part] > 0 ? row * row_bytes : 0);
      }
    }
    units[i - begin] = unit;
  }
}

// x = residual * norm_weight into the x tile, and the warps' sums of squares of each token.
template <typename Tile>
__device__ __forceinline__ void NormaliseRows(const NarrowPlan& plan, uint8_t* memory,
                                              float* squares) {
  const int stride = plan.TileStride(NarrowTilePad(Tile::Format::kDType));
  for (int token = 0; token < plan.rows; ++token) {
    const int64_t row = plan.x_rows == nullptr ? token : __ldcg(plan.x_rows + token);
    const float* from = plan.residual + row * plan.in;
    uint8_t* const to = memory + plan.x_tile + token * stride;
    float sum = 0;
#pragma unroll 4
    for (int c = static_cast<int>(threadIdx.x) * 4; c < plan.in; c += Tile::kThreads * 4) {
      const float4 v = __ldcg(reinterpret_cast<const float4*>(from + c));
      const float4 gain = __ldg(reinterpret_cast<const float4*>(plan.norm_weight + c));
      sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
      *reinterpret_cast<uint2*>(to + c * 2) =
          make_uint2(PackBf16(v.x * gain.x, v.y * gain.y), PackBf16(v.z * gain.z, v.w * gain.w));
    }
    sum = WarpSum(sum);
    if (LaneId() == 0) squares[token * kNarrowWarps + (threadIdx.x >> 5)] = sum;
  }
}

template <typename Tile>
__global__ void __launch_bounds__(Tile::kThreads, 2)
    NarrowKernel(const __grid_constant__ NarrowPlan plan) {
  extern __shared__ __align__(128) uint8_t memory[];
  __shared__ float squares[8 * kNarrowWarps];
  LetNextStart();
  ListUnits<Tile>(plan, reinterpret_cast<NarrowUnit*>(memory));
  __syncthreads();
  NarrowWarp<Tile> warp{plan, memory};
  const NarrowWriter<Tile> writer{plan, warp.units, warp.unit_count};
  typename NarrowWarp<Tile>::Cursor next{0, warp.warp, 0};
  for (int i = 0; i + 1 < plan.stages; ++i) {
    warp.Issue(next);
    warp.Advance(next);
  }
  NarrowRow row = writer.LoadRow(0);
  warp.LoadBlockScales(0, warp.warp, warp.block_scale[1]);
  WaitForPrior();
  if (plan.x == nullptr) {
    NormaliseRows<Tile>(plan, memory, squares);
    __syncthreads();
  }
  typename NarrowWarp<Tile>::Columns columns, later;
  if (warp.warp < plan.slabs) warp.LoadColumns(warp.warp, columns);
  int stage = 0;
  for (int first = 0; first < warp.unit_count; first += plan.pass_units) {
    const NarrowRow next_row = writer.LoadRow(first + plan.pass_units);
    int turn = 0;
    for (int slab = warp.warp; slab < plan.slabs; slab += kNarrowWarps, ++turn) {
      if constexpr (Tile::Format::kScale == SkinnyScale::kBlock) {
        if (turn == 0) {
#pragma unroll
          for (int u = 0; u < kNarrowMaxPassUnits; ++u) {
            warp.block_scale[0][u][0] = warp.block_scale[1][u][0];
            warp.block_scale[0][u][1] = warp.block_scale[1][u][1];
          }
          warp.LoadBlockScales(first + plan.pass_units, warp.warp, warp.block_scale[1]);
        } else if ((turn & 31) == 0) {
          warp.LoadBlockScales(first, slab, warp.block_scale[0]);
        }
      }
      // Other lanes may still read what this one is to write over.
      if constexpr (Tile::kPacked) __syncwarp();
      warp.Issue(next);
      warp.Advance(next);
      const bool wraps = slab + kNarrowWarps >= plan.slabs;
      warp.LoadColumns(wraps ? warp.warp : slab + kNarrowWarps, later);
      warp.Wait();
      if constexpr (Tile::kPacked) __syncwarp();
#pragma unroll
      for (int u = 0; u < kNarrowMaxPassUnits; ++u) {
        if (u >= plan.pass_units || first + u >= warp.unit_count) break;
        warp.Multiply(warp.Slot(stage, u), turn, u, columns);
      }
#pragma unroll
      for (int o = 0; o < Tile::kOctets; ++o) {
#pragma unroll
        for (int w = 0; w < Tile::kWords; ++w) columns[o][w] = later[o][w];
      }
      stage = stage + 1 == plan.stages ? 0 : stage + 1;
    }
    __syncthreads();
    warp.WriteSums();
    __syncthreads();
    writer.Write(first, row, warp.Sums(0), squares);
    row = next_row;
  }
}

template <typename Tile>
cudaError_t LaunchNarrowTile(const NarrowPlan& plan, int blocks, cudaStream_t stream) {
  static std::atomic<uint64_t> prepared{0};  // a bit a device
  const cudaError_t error = PrepareSkinnyKernel(reinterpret_cast<const void*>(&NarrowKernel<Tile>),
                                                kNarrowSharedLimit, prepared);
  if (error != cudaSuccess) return error;
  cudaLaunchAttribute attribute;
  const cudaLaunchConfig_t config =
      SkinnyLaunchConfig(blocks, Tile::kThreads, plan.bytes, stream, &attribute);
  return cudaLaunchKernelEx(&config, NarrowKernel<Tile>, plan);
}

template <typename Format>
cudaError_t LaunchNarrowFormat(const NarrowPlan& plan, int blocks, cudaStream_t stream) {
  return plan.rows <= 8 ? LaunchNarrowTile<NarrowTile<Format, 1>>(plan, blocks, stream)
                        : LaunchNarrowTile<NarrowTile<Format, 2>>(plan, blocks, stream);
}

}  // namespace tessera::kernels::cuda
