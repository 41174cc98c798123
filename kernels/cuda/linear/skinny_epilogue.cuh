// What happens to a warpgroup's sums when its piece of a tile is done. Where several blocks have
// pieces of the tile, groups of 8 tokens are dealt out to them: each sends the groups that are not
// its own through the workspace, adds the others' pieces of its own ones in the order of `in`, and
// writes y.
//
// Words of the workspace validate themselves: 0 means not written yet, a sum is stored with its bits
// inverted (all ones, which no arithmetic yields, would be 0), and who reads it puts 0 back. That
// takes one trip through L2, where a counter would take three. Only blocks that have nothing left
// to stream own groups, and what they wait for waits for nothing.
#pragma once

#include <cstdint>

#include "kernels/cuda/linear/skinny_format.cuh"

namespace tessera::kernels::cuda {

// A warpgroup's sums: [block of 64 rows][register of the warpgroup product]; `squares` are the sums
// of squares of this lane's columns, 8 j + 2 (lane % 4) + {0, 1}.
template <typename Tile>
struct SkinnySums {
  float acc[2][Tile::kRegisters];
  float squares[2];
};

// Which part of the product a piece is.
struct SkinnyPiece {
  int tile;
  int unit_begin;  // of the tile's units
  int unit_end;
  bool is_first;  // of its block
};

// Channel scales of this lane's rows, g and g + 8 of both blocks.
struct SkinnyRowScales {
  float scale[2][2];
};

// Row of the weight of this lane's row `r` of block `b`; may be past `out`.
template <typename Tile>
__device__ __forceinline__ int WeightRow(const SkinnyPlan& plan, const SkinnyPlanTask& task,
                                         int tile, int group, int b, int r) {
  const int local = (threadIdx.x >> 5 & 3) * 16 + r * 8 + Tile::Format::RowOf(LaneId() >> 2);
  const int first = (tile - task.first_tile) * Tile::kGroups + group;
  return plan.gated ? first * 64 + local : first * kSkinnyGroupRows + b * 64 + local;
}

__device__ __forceinline__ float GatedValue(float gate, float up, SkinnyEpilogue epilogue) {
  if (epilogue == SkinnyEpilogue::kGatedSilu) return gate / (1.0f + __expf(-gate)) * up;
  const float inner = 0.7978845608028654f * (gate + 0.044715f * gate * gate * gate);
  return 0.5f * gate * (1.0f + tanhf(inner)) * up;
}

// acc * factor + bias + addend.
__device__ __forceinline__ float Affine(const SkinnyPlanTask& task, int part, int row, int token,
                                        float acc, float factor) {
  float value = acc * factor;
  if (task.bias[part] != nullptr) value += __ldg(task.bias[part] + row);
  if (task.addend[part] != nullptr) {
    const auto* addend = task.addend[part] + token * task.addend_stride + row;
    value += __bfloat162float(*addend);
  }
  return value;
}

// One element has one writer, so that adding to it in L2 is as exact as loading it, and waits for
// nothing.
__device__ __forceinline__ void StoreValue(const SkinnyPlan& plan, const SkinnyPlanTask& task,
                                           int64_t offset, float value) {
  if (plan.epilogue == SkinnyEpilogue::kStoreFloat) {
    static_cast<float*>(task.y)[offset] = value;
  } else if (plan.epilogue == SkinnyEpilogue::kResidual) {
    atomicAdd(static_cast<float*>(task.y) + offset, value);
  } else {
    static_cast<__nv_bfloat16*>(task.y)[offset] = __float2bfloat16_rn(value);
  }
}

// Eight tokens, 8 j ...
template <typename Tile>
__device__ __forceinline__ void WriteTokens(const SkinnyPlan& plan, const SkinnyPlanTask& task,
                                            int tile, int group, int j, const float (&acc)[2][4],
                                            const float (&squares)[2],
                                            const SkinnyRowScales& scales) {
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    const int token = 8 * j + 2 * (LaneId() & 3) + e;
    if (token >= plan.rows) continue;
    const int64_t y_row = plan.y_rows == nullptr ? token : plan.y_rows[token];
    float factor = 1.0f;
    if (Tile::kNorm && plan.x == nullptr) {
      factor = rsqrtf(squares[e] / static_cast<float>(plan.in) + plan.epsilon);
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (plan.gated) {
        const int row = WeightRow<Tile>(plan, task, tile, group, 0, r);
        if (row >= task.out) continue;
        const float gate =
            Affine(task, 0, row, token, acc[0][2 * r + e], factor * scales.scale[0][r]);
        const float up =
            Affine(task, 1, row, token, acc[1][2 * r + e], factor * scales.scale[1][r]);
        StoreValue(plan, task, y_row * task.y_stride + row, GatedValue(gate, up, plan.epilogue));
        continue;
      }
#pragma unroll
      for (int b = 0; b < 2; ++b) {
        const int row = WeightRow<Tile>(plan, task, tile, group, b, r);
        if (row >= task.out) continue;
        StoreValue(plan, task, y_row * task.y_stride + row,
                   Affine(task, 0, row, token, acc[b][2 * r + e], factor * scales.scale[b][r]));
      }
    }
  }
}

__device__ __forceinline__ float4* Inverted(float4* v) {
  uint32_t* bits = reinterpret_cast<uint32_t*>(v);
#pragma unroll
  for (int i = 0; i < 4; ++i) bits[i] = ~(bits[i] == 0xffffffffu ? 0x7fffffffu : bits[i]);
  return v;
}
__device__ __forceinline__ void SendWords(float4* to, float4 v) {
  Inverted(&v);
  __stcg(to, v);
}
__device__ __forceinline__ uint4 PollWords(const float4* from) {
  uint4 v;
  asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from)
               : "memory");
  return v;
}
// The words that were sent to `from`, first polled as `v`; leaves zeros.
__device__ __forceinline__ void ReceiveWords(float4* from, uint4 v, float (&words)[4]) {
  while (v.x == 0 || v.y == 0 || v.z == 0 || v.w == 0) v = PollWords(from);
  __stcg(from, make_float4(0, 0, 0, 0));
  words[0] = __uint_as_float(~v.x);
  words[1] = __uint_as_float(~v.y);
  words[2] = __uint_as_float(~v.z);
  words[3] = __uint_as_float(~v.w);
}

// Words of this thread in a block's piece: of a group of tokens and block of 64 rows, or, at
// group kColumns / 8, of its squares.
template <typename Tile>
__device__ __forceinline__ float4* PieceWords(const SkinnyPlan& plan, int block, bool is_first,
                                              int group, int j, int b) {
  const int64_t piece = (int64_t{block} * 2 + (is_first ? 0 : 1)) * Tile::kGroups + group;
  const int64_t words = (piece * (Tile::kColumns / 8 + 1) + j) * 2 + b;
  return reinterpret_cast<float4*>(plan.pieces) + words * 128 + (threadIdx.x & 127);
}

// The blocks that have pieces of a tile.
struct TileBlocks {
  int first, last;
  bool first_begins;  // the tile is the first block's first piece

  __device__ TileBlocks(const SkinnyPlan& plan, int tile) {
    const int unit = tile * plan.tile_units;
    first = plan.BlockOf(unit);
    last = plan.BlockOf(unit + plan.tile_units - 1);
    first_begins = plan.UnitBegin(first) == unit;
  }
};

// Adds this thread's words (j, b = 0 and 1) of all blocks' pieces in order; `own` are this block's.
template <typename Tile, int kParts>
__device__ __forceinline__ void AddPieces(const SkinnyPlan& plan, const TileBlocks& blocks,
                                          int group, int j, const float (&own)[kParts][4],
                                          float (&sum)[kParts][4]) {
  constexpr int kBatch = 4;  // pieces under way at a time
  const int self = blockIdx.x;
  const auto words = [&](int block, int part) {
    return PieceWords<Tile>(plan, block, block != blocks.first || blocks.first_begins, group, j,
                            part);
  };
#pragma unroll 1
  for (int batch = blocks.first; batch <= blocks.last; batch += kBatch) {
    uint4 polled[kBatch][kParts];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      if (batch + i > blocks.last || batch + i == self) continue;
#pragma unroll
      for (int part = 0; part < kParts; ++part) polled[i][part] = PollWords(words(batch + i, part));
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      if (batch + i > blocks.last) continue;
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        float piece[4];
        if (batch + i == self) {
#pragma unroll
          for (int k = 0; k < 4; ++k) piece[k] = own[part][k];
        } else {
          ReceiveWords(words(batch + i, part), polled[i][part], piece);
        }
#pragma unroll
        for (int k = 0; k < 4; ++k) sum[part][k] += piece[k];
      }
    }
  }
}

// Sends what other blocks own, and writes the tokens that this block owns.
template <typename Tile>
__device__ __forceinline__ void ShareTile(const SkinnyPlan& plan, const SkinnyPiece& piece,
                                          const SkinnyPlanTask& task, int group,
                                          const SkinnySums<Tile>& sums,
                                          const SkinnyRowScales& scales) {
  constexpr int kTokenGroups = Tile::kColumns / 8;
  const TileBlocks blocks(plan, piece.tile);
  const int owners = min(blocks.last - blocks.first, kTokenGroups);
  const int place = static_cast<int>(blockIdx.x) - blocks.first;
  const bool is_norm = Tile::kNorm && plan.x == nullptr;
#pragma unroll
  for (int j = 0; j < kTokenGroups; ++j) {
    if (j % owners == place) continue;
#pragma unroll
    for (int b = 0; b < 2; ++b) {
      SendWords(PieceWords<Tile>(plan, blockIdx.x, piece.is_first, group, j, b),
                make_float4(sums.acc[b][4 * j], sums.acc[b][4 * j + 1], sums.acc[b][4 * j + 2],
                            sums.acc[b][4 * j + 3]));
    }
    if (is_norm) {
      SendWords(PieceWords<Tile>(plan, blockIdx.x, piece.is_first, group, kTokenGroups, 0),
                make_float4(sums.squares[0], sums.squares[1], 1, 1));
    }
  }
#pragma unroll
  for (int j = 0; j < kTokenGroups; ++j) {
    if (j % owners != place) continue;
    float acc[2][4] = {}, squares[2] = {0, 0};
    const float own[2][4] = {{sums.acc[0][4 * j], sums.acc[0][4 * j + 1], sums.acc[0][4 * j + 2],
                              sums.acc[0][4 * j + 3]},
                             {sums.acc[1][4 * j], sums.acc[1][4 * j + 1], sums.acc[1][4 * j + 2],
                              sums.acc[1][4 * j + 3]}};
    AddPieces<Tile, 2>(plan, blocks, group, j, own, acc);
    if (is_norm) {
      const float own_squares[1][4] = {{sums.squares[0], sums.squares[1], 0, 0}};
      float all[1][4] = {};
      AddPieces<Tile, 1>(plan, blocks, group, kTokenGroups, own_squares, all);
      squares[0] = all[0][0];
      squares[1] = all[0][1];
    }
    WriteTokens<Tile>(plan, task, piece.tile, group, j, acc, squares, scales);
  }
}

template <typename Tile>
__device__ __forceinline__ void FinishPiece(const SkinnyPlan& plan, const SkinnyPiece& piece,
                                            const SkinnyPlanTask& task, int group,
                                            const SkinnySums<Tile>& sums,
                                            const SkinnyRowScales& scales) {
  if (piece.unit_end - piece.unit_begin < plan.tile_units) {
    ShareTile<Tile>(plan, piece, task, group, sums, scales);
    return;
  }
#pragma unroll
  for (int j = 0; j < Tile::kColumns / 8; ++j) {
    float acc[2][4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      acc[0][i] = sums.acc[0][4 * j + i];
      acc[1][i] = sums.acc[1][4 * j + i];
    }
    WriteTokens<Tile>(plan, task, piece.tile, group, j, acc, sums.squares, scales);
  }
}

}  // namespace tessera::kernels::cuda
