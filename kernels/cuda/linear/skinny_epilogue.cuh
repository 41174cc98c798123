// What happens to a warpgroup's sums when its piece of a tile is done. Where several blocks have
// pieces of the tile, groups of 8 tokens are dealt out to them: each sends the groups that are not
// its own through the workspace, keeps its own ones in shared memory, adds the others' pieces to
// them in the order of `in`, and writes y.
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

// Words of this thread in a block's piece, counted in the workspace: for tokens 8 j ..., `part` is
// the block of 64 rows. A block's two pieces follow one another.
template <typename Tile>
__device__ __forceinline__ int PieceWords(int block, bool is_first, int group, int j, int part) {
  const int piece = (block * 2 + (is_first ? 0 : 1)) * Tile::kGroups + group;
  return ((piece * (Tile::kColumns / 8) + j) * 2 + part) * 128 + (threadIdx.x & 127);
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

__device__ __forceinline__ void TakeFloats(float4 v, float (&to)[4]) {
  to[0] = v.x;
  to[1] = v.y;
  to[2] = v.z;
  to[3] = v.w;
}

// Which groups of tokens a block finishes: `place`, place + owners, ... of kTokenGroups. An item is
// a group and a block of 64 rows (`part`), in that order.
struct OwnedItems {
  int place, owners;
  int count;  // of items

  __device__ __forceinline__ OwnedItems(const TileBlocks& blocks, int token_groups)
      : place(blocks.place), owners(min(blocks.count - 1, token_groups)) {
    count = place < owners ? (token_groups - place + owners - 1) / owners * 2 : 0;
  }
  __device__ __forceinline__ bool Has(int j) const { return j % owners == place; }
  __device__ __forceinline__ int Group(int item) const { return place + (item >> 1) * owners; }
};

// Where a thread keeps the words of an item: in the slots of its warpgroup. Who owns items has read
// the last of them.
template <typename Tile>
__device__ __forceinline__ float4* KeptWords(SkinnyShared<Tile>& shared, int group, int item) {
  constexpr int kPerSlot = Tile::kSlotBytes / (128 * 16);
  static_assert((Tile::kColumns / 4 + kPerSlot - 1) / kPerSlot * Tile::kGroups <= Tile::kSlots);
  uint8_t* const slot = shared.weights[group + Tile::kGroups * (item / kPerSlot)];
  return reinterpret_cast<float4*>(slot) + item % kPerSlot * 128 + (threadIdx.x & 127);
}

// Adds the other blocks' pieces to the kept words, each item's in the order of `in`. A trip through
// L2 takes longer than all else here: many pieces, of several items, are asked for at a time.
template <typename Tile>
__device__ __forceinline__ void AddPieces(const SkinnyPlan& plan, SkinnyShared<Tile>& shared,
                                          const TileBlocks& blocks, int group,
                                          const OwnedItems& items) {
  // As many as registers hold: where blocks share a multiprocessor, spilled ones cost more.
  constexpr int kBatch = Tile::kGeometry.resident == 1 ? 8
                         : Tile::kGroups == 1          ? 6
                         : Tile::kColumns == 16        ? (Tile::kGrouped ? 4 : 6)
                                                       : 2;
  auto* const pieces = reinterpret_cast<float4*>(plan.pieces);
  float sum[4] = {0, 0, 0, 0};
  int item = 0, block = 0;        // the next piece to be added
  int asked_item = 0, asked = 0;  // to be asked for
#pragma unroll 1
  while (item < items.count) {
    uint4 polled[kBatch];
    int from[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      from[i] = PieceWords<Tile>(blocks.first + asked, asked > 0 || blocks.first_begins, group,
                                 items.Group(asked_item), asked_item & 1);
      if (asked_item < items.count && asked != blocks.place) {
        polled[i] = PollWords(pieces + from[i]);
      }
      if (++asked == blocks.count) {
        asked = 0;
        ++asked_item;
      }
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      if (item >= items.count) break;
      float4* const kept = KeptWords<Tile>(shared, group, item);
      float piece[4];
      if (block == blocks.place) {
        TakeFloats(*kept, piece);
      } else {
        ReceiveWords(pieces + from[i], polled[i], piece);
      }
#pragma unroll
      for (int k = 0; k < 4; ++k) sum[k] += piece[k];
      if (++block < blocks.count) continue;
      *kept = make_float4(sum[0], sum[1], sum[2], sum[3]);
#pragma unroll
      for (int k = 0; k < 4; ++k) sum[k] = 0;
      block = 0;
      ++item;
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

// Sends what other blocks own of a tile, and keeps what this one does.
template <typename Tile>
__device__ __forceinline__ void DealPieces(const SkinnyPlan& plan, SkinnyShared<Tile>& shared,
                                           bool is_first, int group, const OwnedItems& items,
                                           SkinnySums<Tile>& sums) {
  int item = 0;
#pragma unroll 1
  for (int j = 0; j < Tile::kColumns / 8; ++j) {
    TokenWords words;
    TakeTokens<Tile>(sums, words);
    const bool owns = items.Has(j);
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const float4 v = make_float4(words[part][0], words[part][1], words[part][2], words[part][3]);
      if (owns) {
        *KeptWords<Tile>(shared, group, item + part) = v;
      } else {
        SendWords(reinterpret_cast<float4*>(plan.pieces) +
                      PieceWords<Tile>(blockIdx.x, is_first, group, j, part),
                  v);
      }
    }
    if (owns) item += 2;
    RotateTokens<Tile>(sums);
  }
}

template <typename Tile>
__device__ __forceinline__ void FinishPiece(const SkinnyPlan& plan, SkinnyShared<Tile>& shared,
                                            const SkinnyPiece& piece, const SkinnyPlanTask& task,
                                            int group, SkinnySums<Tile>& sums,
                                            const SkinnyRowScales& scales) {
  constexpr int kTokenGroups = Tile::kColumns / 8;
  const TileBlocks blocks(plan, piece.tile);
  const int first_row = FirstRow<Tile>(plan, task, piece.tile, group);
  TokenWords words;
  if (blocks.count == 1) {
#pragma unroll 1
    for (int j = 0; j < kTokenGroups; ++j) {
      TakeTokens<Tile>(sums, words);
      WriteTokens<Tile>(plan, task, first_row, j, words, scales);
      RotateTokens<Tile>(sums);
    }
    return;
  }
  // The last block may have more tiles to stream and owns nothing. All that others wait for is sent
  // before this waits for others.
  const OwnedItems items(blocks, kTokenGroups);
  if (items.count > 0) {
    // Other warps of the group may still read the slots.
    group == 0 ? SyncNamed(1, 128) : SyncNamed(2, 128);
  }
  DealPieces<Tile>(plan, shared, piece.is_first, group, items, sums);
  if (items.count == 0) return;
  AddPieces<Tile>(plan, shared, blocks, group, items);
#pragma unroll 1
  for (int item = 0; item < items.count; item += 2) {
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      TakeFloats(*KeptWords<Tile>(shared, group, item + part), words[part]);
    }
    WriteTokens<Tile>(plan, task, first_row, items.Group(item), words, scales);
  }
}

}  // namespace tessera::kernels::cuda
