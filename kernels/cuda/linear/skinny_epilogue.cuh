// What happens to a warpgroup's sums when its piece of a tile is done. Where several blocks have
// pieces of the tile, groups of 8 tokens are dealt out to them: each sends the groups that are not
// its own through the workspace, adds the others' pieces of its own ones in the order of `in`, and
// writes y.
//
// Words of the workspace validate themselves: 0 means not written yet, a sum is stored with its
// bits inverted (all ones, which no arithmetic yields, would be 0), and who reads it puts 0 back.
// That takes one trip through L2, where a counter would take three. Only blocks that have nothing
// left to stream own groups, and what they wait for waits for nothing.
#pragma once

#include <cstdint>

#include "kernels/cuda/linear/skinny_format.cuh"

namespace tessera::kernels::cuda {

// A warpgroup's sums: [block of 64 rows][register of the warpgroup product].
template <typename Tile>
struct SkinnySums {
  float acc[2][Tile::kRegisters];
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

// This lane's first row of the weight (r = 0, b = 0); may be past `out`. Others are 8 r + 64 b
// further; gated tiles have the same rows of `up` in b = 1.
template <typename Tile>
__device__ __forceinline__ int FirstRow(const SkinnyPlan& plan, const SkinnyPlanTask& task,
                                        int tile, int group) {
  const int first = (tile - task.first_tile) * Tile::kGroups + group;
  return first * (plan.gated ? 64 : kSkinnyGroupRows) + (threadIdx.x >> 5 & 3) * 16 +
         Tile::Format::RowOf(LaneId() >> 2);
}

__device__ __forceinline__ float GatedValue(float gate, float up, SkinnyEpilogue epilogue) {
  if (epilogue == SkinnyEpilogue::kGatedSilu) return __fdividef(gate, 1.0f + __expf(-gate)) * up;
  const float inner = 0.7978845608028654f * (gate + 0.044715f * gate * gate * gate);
  return 0.5f * gate * (1.0f + tanhf(inner)) * up;
}

// One group of tokens: a thread's sums of both blocks of rows.
using TokenWords = float[2][4];

// Bias and addend of one value; `row` is inside.
__device__ __forceinline__ float Extras(const SkinnyPlanTask& task, int part, int row, int token) {
  float value = 0;
  if (task.bias[part] != nullptr) value += __ldg(task.bias[part] + row);
  if (task.addend[part] != nullptr) {
    value += __bfloat162float(task.addend[part][token * task.addend_stride + row]);
  }
  return value;
}

// Stores values[b][r] of one token at rows first_row + 64 b + 8 r below `out`. An element of y has
// one writer, so that adding to it in L2 is as exact as loading it, and waits for nothing.
template <typename T, bool kAdd>
__device__ __forceinline__ void StoreRows(T* y, const float (&values)[2][2], int blocks,
                                          int rows_left) {
#pragma unroll
  for (int b = 0; b < 2; ++b) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (b >= blocks || 64 * b + 8 * r >= rows_left) continue;
      if constexpr (kAdd) {
        atomicAdd(y + 64 * b + 8 * r, values[b][r]);
      } else if constexpr (sizeof(T) == 2) {
        y[64 * b + 8 * r] = __float2bfloat16_rn(values[b][r]);
      } else {
        y[64 * b + 8 * r] = values[b][r];
      }
    }
  }
}

// Eight tokens, 8 j ...
template <typename Tile>
__device__ __forceinline__ void WriteTokens(const SkinnyPlan& plan, const SkinnyPlanTask& task,
                                            int first_row, int j, const TokenWords& words,
                                            const SkinnyRowScales& scales) {
  const int rows_left = task.out - first_row;
  const bool has_extras = task.bias[0] != nullptr || task.addend[0] != nullptr ||
                          task.bias[1] != nullptr || task.addend[1] != nullptr;
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    const int token = 8 * j + 2 * (LaneId() & 3) + e;
    if (token >= plan.rows) continue;
    float values[2][2];
#pragma unroll
    for (int b = 0; b < 2; ++b) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        values[b][r] = words[b][2 * r + e] * scales.scale[b][r];
        const int row = 8 * r + (plan.gated ? 0 : 64 * b);
        if (has_extras && row < rows_left) {
          values[b][r] += Extras(task, plan.gated ? b : 0, first_row + row, token);
        }
      }
    }
    if (plan.gated) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        values[0][r] = GatedValue(values[0][r], values[1][r], plan.epilogue);
      }
    }
    const int64_t y_row = plan.y_rows == nullptr ? token : plan.y_rows[token];
    const int64_t offset = y_row * task.y_stride + first_row;
    if (plan.epilogue == SkinnyEpilogue::kResidual) {
      StoreRows<float, true>(static_cast<float*>(task.y) + offset, values, 2, rows_left);
    } else if (plan.epilogue == SkinnyEpilogue::kStoreFloat) {
      StoreRows<float, false>(static_cast<float*>(task.y) + offset, values, 2, rows_left);
    } else {
      StoreRows<__nv_bfloat16, false>(static_cast<__nv_bfloat16*>(task.y) + offset, values,
                                      plan.gated ? 1 : 2, rows_left);
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
  while (min(min(v.x, v.y), min(v.z, v.w)) == 0) v = PollWords(from);
  __stcg(from, make_float4(0, 0, 0, 0));
  words[0] = __uint_as_float(~v.x);
  words[1] = __uint_as_float(~v.y);
  words[2] = __uint_as_float(~v.z);
  words[3] = __uint_as_float(~v.w);
}

// Words of this thread in a block's piece: for tokens 8 j ..., `part` is the block of 64 rows. A
// block's two pieces follow one another.
template <typename Tile>
__device__ __forceinline__ float4* PieceWords(const SkinnyPlan& plan, int block, bool is_first,
                                              int group, int j, int part) {
  const int piece = (block * 2 + (is_first ? 0 : 1)) * Tile::kGroups + group;
  const int words = (piece * (Tile::kColumns / 8) + j) * 2 + part;
  return reinterpret_cast<float4*>(plan.pieces) + words * 128 + (threadIdx.x & 127);
}

// The blocks that have pieces of a tile.
struct TileBlocks {
  int first, count;
  bool first_begins;  // the tile is the first block's first piece
  int place;          // of this block

  __device__ __forceinline__ TileBlocks(const SkinnyPlan& plan, int tile) {
    const int unit = tile * plan.tile_units;
    first = plan.BlockOf(unit);
    count = plan.BlockOf(unit + plan.tile_units - 1) - first + 1;
    first_begins = plan.UnitBegin(first) == unit;
    place = static_cast<int>(blockIdx.x) - first;
  }
};

// Adds all blocks' pieces of a group of tokens in order; `own` is this block's. Many are polled
// before the first is waited for.
template <typename Tile>
__device__ __forceinline__ void AddPieces(const SkinnyPlan& plan, const TileBlocks& blocks,
                                          int group, int j, const TokenWords& own,
                                          TokenWords& sum) {
  constexpr int kBatch = Tile::kColumns == 16 ? 6 : 2;
  constexpr int kBlockWords = 2 * Tile::kGroups * (Tile::kColumns / 8) * 2 * 128;
#pragma unroll
  for (int part = 0; part < 2; ++part) {
    float4* const head = PieceWords<Tile>(plan, blocks.first, blocks.first_begins, group, j, part);
    float4* const tail = PieceWords<Tile>(plan, blocks.first, true, group, j, part);
#pragma unroll 1
    for (int begin = 0; begin < blocks.count; begin += kBatch) {
      const auto words = [&](int i) {
        return begin + i == 0 ? head : tail + (begin + i) * kBlockWords;
      };
      uint4 polled[kBatch];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        if (begin + i < blocks.count && begin + i != blocks.place) polled[i] = PollWords(words(i));
      }
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        if (begin + i >= blocks.count) break;
        float piece[4] = {own[part][0], own[part][1], own[part][2], own[part][3]};
        if (begin + i != blocks.place) ReceiveWords(words(i), polled[i], piece);
#pragma unroll
        for (int k = 0; k < 4; ++k) sum[part][k] += piece[k];
      }
    }
  }
}

// The first group of tokens.
template <typename Tile>
__device__ __forceinline__ void TakeTokens(const SkinnySums<Tile>& sums, TokenWords& words) {
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    words[0][k] = sums.acc[0][k];
    words[1][k] = sums.acc[1][k];
  }
}

// Makes the next group of tokens the first. Registers have no index: with this, loops over groups
// need not be unrolled, and code that runs once a tile stays small enough to be fetched in time.
template <typename Tile>
__device__ __forceinline__ void RotateTokens(SkinnySums<Tile>& sums) {
#pragma unroll
  for (int b = 0; b < 2; ++b) {
    float first[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) first[k] = sums.acc[b][k];
#pragma unroll
    for (int i = 0; i + 4 < Tile::kRegisters; ++i) sums.acc[b][i] = sums.acc[b][i + 4];
#pragma unroll
    for (int k = 0; k < 4; ++k) sums.acc[b][Tile::kRegisters - 4 + k] = first[k];
  }
}

template <typename Tile>
__device__ __forceinline__ void FinishPiece(const SkinnyPlan& plan, const SkinnyPiece& piece,
                                            const SkinnyPlanTask& task, int group,
                                            SkinnySums<Tile>& sums, const SkinnyRowScales& scales) {
  constexpr int kTokenGroups = Tile::kColumns / 8;
  const TileBlocks blocks(plan, piece.tile);
  // The last block may have more tiles to stream and owns nothing, unless the tile is all its own.
  const int owners = max(1, min(blocks.count - 1, kTokenGroups));
  // All that others wait for is sent before this waits for others.
  if (blocks.count > 1) {
#pragma unroll 1
    for (int j = 0; j < kTokenGroups; ++j) {
      TokenWords words;
      TakeTokens<Tile>(sums, words);
      if (j % owners != blocks.place) {
#pragma unroll
        for (int part = 0; part < 2; ++part) {
          SendWords(PieceWords<Tile>(plan, blockIdx.x, piece.is_first, group, j, part),
                    make_float4(words[part][0], words[part][1], words[part][2], words[part][3]));
        }
      }
      RotateTokens<Tile>(sums);
    }
  }
  if (blocks.place >= owners) return;
  const int first_row = FirstRow<Tile>(plan, task, piece.tile, group);
#pragma unroll 1
  for (int j = 0; j < kTokenGroups; ++j) {
    if (j % owners == blocks.place) {
      TokenWords own, words = {};
      TakeTokens<Tile>(sums, own);
      AddPieces<Tile>(plan, blocks, group, j, own, words);
      WriteTokens<Tile>(plan, task, first_row, j, words, scales);
    }
    RotateTokens<Tile>(sums);
  }
}

}  // namespace tessera::kernels::cuda
