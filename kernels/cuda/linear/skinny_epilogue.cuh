// What happens to a warpgroup's sums when its piece of a tile is done. Where several blocks have
// pieces of the tile, groups of 8 tokens are dealt out to them: each sends the groups that are not
// its own through the workspace, keeps its own ones in shared memory as rows of tokens, adds the
// others' pieces to them in the order of `in`, and writes y in words of four outputs.
//
// Words of the workspace validate themselves: 0 means not written yet, a sum of 0 is sent as -0,
// and who reads a word puts 0 back. That takes one trip through L2, where a counter would take
// three. Only blocks that have nothing left to stream own groups, and what they wait for waits for
// nothing.
//
// All of this lies between two streams and runs once a block: it is straight code without
// divisions, and a block of one consumer warpgroup has its producer warps add and write half.
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
  bool is_last;
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

// Channel scales of this lane's rows; 1 where the type has none.
template <typename Tile>
__device__ __forceinline__ SkinnyRowScales LoadRowScales(const SkinnyPlan& plan,
                                                         const SkinnyPlanTask& task, int tile,
                                                         int group) {
  SkinnyRowScales scales{{{1, 1}, {1, 1}}};
  if constexpr (Tile::Format::kScale == SkinnyScale::kChannel) {
    const int first_row = FirstRow<Tile>(plan, task, tile, group);
#pragma unroll
    for (int b = 0; b < 2; ++b) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int row = first_row + 8 * r + (plan.gated ? 0 : 64 * b);
        if (row >= task.out) continue;
        scales.scale[b][r] = __ldg(task.scales[plan.gated ? b : 0] + row);
      }
    }
  }
  return scales;
}

__device__ __forceinline__ float GatedValue(float gate, float up, SkinnyEpilogue epilogue) {
  // As in row_math.cuh, without a branch: that would have all of its code twice.
  const float tanh = 1.5957691216f * (gate + 0.044715f * gate * gate * gate);
  const float argument = epilogue == SkinnyEpilogue::kGatedSilu ? gate : tanh;
  return __fdividef(gate, 1.0f + __expf(-argument)) * up;
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
        if constexpr (Tile::Format::kCoded) values[b][r] *= plan.x_scales[token];
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

__device__ __forceinline__ void SendWords(float4* to, float4 v) {
  uint32_t* bits = reinterpret_cast<uint32_t*>(&v);
#pragma unroll
  for (int i = 0; i < 4; ++i) bits[i] = bits[i] == 0 ? 0x80000000u : bits[i];
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
__device__ __forceinline__ float4 ReceiveWords(float4* from, uint4 v) {
  while (min(min(v.x, v.y), min(v.z, v.w)) == 0) v = PollWords(from);
  __stcg(from, make_float4(0, 0, 0, 0));
  return make_float4(__uint_as_float(v.x), __uint_as_float(v.y), __uint_as_float(v.z),
                     __uint_as_float(v.w));
}
__device__ __forceinline__ void AddWords(float (&sum)[4], float4 v) {
  sum[0] += v.x;
  sum[1] += v.y;
  sum[2] += v.z;
  sum[3] += v.w;
}

// The blocks that have pieces of a tile.
struct TileBlocks {
  int first, count;
  int place;  // of this block

  __device__ __forceinline__ TileBlocks(const SkinnyPlan& plan, int tile, int block) {
    const int unit = tile * plan.tile_units;
    first = plan.BlockOf(unit);
    count = plan.BlockOf(unit + plan.tile_units - 1) - first + 1;
    place = block - first;
  }
};

// Where a thread's words of a tile lie in the workspace: [block][the tile that it begins, or
// not][group][8 tokens][block of 64 rows][128 threads], in units of 4 words.
template <typename Tile>
struct PieceWords {
  static constexpr int kPart = 128;
  static constexpr int kTokens = 2 * kPart;
  static constexpr int kGroup = Tile::kColumns / 8 * kTokens;
  static constexpr int kPiece = Tile::kGroups * kGroup;
  static constexpr int kBlock = 2 * kPiece;

  float4* at;  // of the tile's first block

  __device__ __forceinline__ PieceWords(const SkinnyPlan& plan, const TileBlocks& blocks, int group)
      : at(reinterpret_cast<float4*>(plan.pieces) + blocks.first * kBlock + group * kGroup +
           (threadIdx.x & 127)) {}
  // Of the tile's `place`-th block and tokens 8 j ...; those of the second 64 rows are kPart on.
  __device__ __forceinline__ float4* Of(int place, int j) const {
    return at + (place == 0 ? kPiece : place * kBlock) + j * kTokens;
  }
};

// Which groups of tokens a block finishes: `place`, place + owners, ...
struct OwnedTokens {
  int place, owners;
  int count;

  __device__ __forceinline__ OwnedTokens(const TileBlocks& blocks, int token_groups)
      : place(blocks.place), owners(max(1, min(blocks.count - 1, token_groups))) {
    count = place < owners ? (token_groups - place + owners - 1) / owners : 0;
  }
  __device__ __forceinline__ int Group(int index) const { return place + index * owners; }
};

// Where the sums of an owned group of tokens (`index`) lie until they are complete: in the slots of
// its warpgroup, 8 tokens of 2 x 64 rows. Who owns tokens has read the last of them. Rows are so
// long that a warp's stores meet all banks.
template <typename Tile>
struct KeptWords {
  static constexpr int kRow = 2 * 64 + 4;
  static constexpr int kPerSlot = Tile::kSlotBytes / (8 * kRow * 4);
  static_assert(kPerSlot > 0 && kRow % 16 == 4);
  static_assert((Tile::kColumns / 8 + kPerSlot - 1) / kPerSlot * Tile::kGroups <= Tile::kSlots);

  float* const at;  // of token 0

  __device__ __forceinline__ KeptWords(SkinnyShared<Tile>& shared, int group, int index)
      : at(reinterpret_cast<float*>(shared.weights[group + Tile::kGroups * (index / kPerSlot)]) +
           index % kPerSlot * (8 * kRow)) {}

  // What this thread has of block `part`, as in a register of the warpgroup product.
  __device__ __forceinline__ float* OfThread(int part) const {
    return at + 2 * (LaneId() & 3) * kRow + part * 64 + (threadIdx.x >> 5 & 3) * 16 +
           Tile::Format::RowOf(LaneId() >> 2);
  }
  __device__ __forceinline__ void Store(int part, const float* words) const {
    float* const to = OfThread(part);
#pragma unroll
    for (int k = 0; k < 4; ++k) to[(k & 1) * kRow + 8 * (k >> 1)] = words[k];
  }
  __device__ __forceinline__ float4 Load(int part) const {
    const float* const from = OfThread(part);
    return make_float4(from[0], from[kRow], from[8], from[kRow + 8]);
  }
};

// Adds the other blocks' pieces to the kept words, each in the order of `in`, of the owned tokens
// `helper`, helper + kHelpers, ... A trip through L2 takes longer than all else here: many pieces
// are asked for at a time.
template <typename Tile>
__device__ __forceinline__ void AddPieces(const SkinnyPlan& plan, SkinnyShared<Tile>& shared,
                                          const TileBlocks& blocks, int group, int helper,
                                          const OwnedTokens& owned) {
  // As many as registers hold: where blocks share a multiprocessor, spilled ones cost more.
  constexpr int kBatch = Tile::kGeometry.resident == 1 ? 4 : Tile::kColumns == 32 ? 3 : 5;
  const PieceWords<Tile> pieces(plan, blocks, group);
  float sum[2][4] = {};
  int index = helper, place = 0;        // the next piece to be added
  int asked_index = helper, asked = 0;  // to be asked for
#pragma unroll 1
  while (index < owned.count) {
    uint4 polled[kBatch][2];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      if (asked_index < owned.count && asked != owned.place) {
        const float4* from = pieces.Of(asked, owned.Group(asked_index));
        polled[i][0] = PollWords(from);
        polled[i][1] = PollWords(from + PieceWords<Tile>::kPart);
      }
      if (++asked == blocks.count) {
        asked = 0;
        asked_index += Tile::kHelpers;
      }
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      if (index >= owned.count) break;
      float4* const from = pieces.Of(place, owned.Group(index));
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        AddWords(sum[part],
                 place == owned.place
                     ? KeptWords<Tile>(shared, group, index).Load(part)
                     : ReceiveWords(from + part * PieceWords<Tile>::kPart, polled[i][part]));
      }
      if (++place < blocks.count) continue;
      place = 0;
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        float(&words)[4] = sum[part];
        KeptWords<Tile>(shared, group, index).Store(part, words);
        words[0] = words[1] = words[2] = words[3] = 0;
      }
      index += Tile::kHelpers;
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
                                           const TileBlocks& blocks, int group,
                                           const OwnedTokens& owned, const SkinnySums<Tile>& sums) {
  float4* const to = PieceWords<Tile>(plan, blocks, group).Of(blocks.place, 0);
  int index = 0;           // of the next owned tokens
  int next = owned.place;  // and which those are
  if (owned.count == 0) next = Tile::kColumns / 8;
#pragma unroll
  for (int j = 0; j < Tile::kColumns / 8; ++j) {
    const bool owns = j == next;
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const float* words = &sums.acc[part][4 * j];
      if (owns) {
        KeptWords<Tile>(shared, group, index).Store(part, words);
      } else {
        const float4 v = make_float4(words[0], words[1], words[2], words[3]);
        SendWords(to + j * PieceWords<Tile>::kTokens + part * PieceWords<Tile>::kPart, v);
      }
    }
    if (owns) {
      ++index;
      next += owned.owners;
    }
  }
}

// Waits for the warps of a consumer warpgroup, and for the producer warps where they help: then all
// barriers between a word's writer and its reader are the block's, and all warps are at the same
// place in the code.
template <typename Tile>
__device__ __forceinline__ void SyncGroup(int group) {
  if constexpr (Tile::kHelpers == 2) {
    __syncthreads();
  } else {
    group == 0 ? SyncNamed(1, 128) : SyncNamed(2, 128);
  }
}

// What becomes of the sums of a block's last tile: a lane has four neighbouring outputs of a token,
// a warp one token, or where gated two. All that does not depend on the sums is read before they
// are there.
template <typename Tile>
struct TileOutput {
  static constexpr int kWarps = 4 * Tile::kHelpers;  // that write a warpgroup's rows
  static constexpr int kAtOnce = 2;                  // of a warp's turns: more take longer to fetch

  const SkinnyPlan& plan;
  const SkinnyPlanTask& task;
  const OwnedTokens& owned;
  const int half = LaneId() >> 4;
  const int column;  // of a kept row
  const int row;     // of the weight
  const int left;    // outputs that are inside
  float scale[2][4];

  __device__ __forceinline__ TileOutput(const SkinnyPlan& plan, const SkinnyPlanTask& task,
                                        const OwnedTokens& owned, int tile, int group)
      : plan(plan),
        task(task),
        owned(owned),
        column(4 * (plan.gated ? LaneId() & 15 : LaneId())),
        row(((tile - task.first_tile) * Tile::kGroups + group) *
                (plan.gated ? 64 : kSkinnyGroupRows) +
            column),
        left(task.out - row) {
    if constexpr (Tile::Format::kScale == SkinnyScale::kChannel) {
#pragma unroll
      for (int part = 0; part < 2; ++part) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          // Volatile: the compiler would move a plain load to where it is waited for.
          scale[part][i] = 0;
          if (i < left && (part == 0 || plan.gated)) {
            asm volatile("ld.global.nc.f32 %0, [%1];"
                         : "=f"(scale[part][i])
                         : "l"(task.scales[part] + row + i));
          }
        }
      }
    }
  }

  // `x_scale`: of the token, where x is codes.
  __device__ __forceinline__ void Scale(int part, float x_scale, float4& v) const {
    if constexpr (Tile::Format::kScale == SkinnyScale::kChannel) {
      v.x *= scale[part][0];
      v.y *= scale[part][1];
      v.z *= scale[part][2];
      v.w *= scale[part][3];
    }
    if constexpr (Tile::Format::kCoded) {
      v.x *= x_scale;
      v.y *= x_scale;
      v.z *= x_scale;
      v.w *= x_scale;
    }
  }

  // What no task has in `plan.plain`: bias, addends, rows of y, words of y that are not aligned.
  __device__ __forceinline__ void WriteAny(int token, const float4 (&words)[2]) const {
    const int64_t y_row = plan.y_rows == nullptr ? token : plan.y_rows[token];
    const int64_t offset = y_row * task.y_stride + row;
#pragma unroll 1
    for (int i = 0; i < min(left, 4); ++i) {
      float value[2];
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        const float4& w = words[part];
        value[part] = i == 0 ? w.x : i == 1 ? w.y : i == 2 ? w.z : w.w;
        if (part == 0 || plan.gated) value[part] += Extras(task, part, row + i, token);
      }
      if (plan.gated) value[0] = GatedValue(value[0], value[1], plan.epilogue);
      // An element of y has one writer, so that adding to it in L2 is as exact as loading it, and
      // waits for nothing.
      if (plan.epilogue == SkinnyEpilogue::kResidual) {
        atomicAdd(static_cast<float*>(task.y) + offset + i, value[0]);
      } else if (plan.epilogue == SkinnyEpilogue::kStoreFloat) {
        static_cast<float*>(task.y)[offset + i] = value[0];
      } else {
        static_cast<__nv_bfloat16*>(task.y)[offset + i] = __float2bfloat16_rn(value[0]);
      }
    }
  }
  template <SkinnyEpilogue kEpilogue>
  __device__ __forceinline__ void WritePlain(int token, const float4 (&words)[2]) const {
    const int64_t offset = token * task.y_stride + row;
    float4 v = words[0];
    if constexpr (kEpilogue == SkinnyEpilogue::kGatedSilu ||
                  kEpilogue == SkinnyEpilogue::kGatedGeluTanh) {
      v = make_float4(
          GatedValue(v.x, words[1].x, kEpilogue), GatedValue(v.y, words[1].y, kEpilogue),
          GatedValue(v.z, words[1].z, kEpilogue), GatedValue(v.w, words[1].w, kEpilogue));
    }
    if constexpr (kEpilogue == SkinnyEpilogue::kResidual) {
      AddGlobal(static_cast<float*>(task.y) + offset, v);
    } else if constexpr (kEpilogue == SkinnyEpilogue::kStoreFloat) {
      *reinterpret_cast<float4*>(static_cast<float*>(task.y) + offset) = v;
    } else {
      *reinterpret_cast<uint2*>(static_cast<__nv_bfloat16*>(task.y) + offset) =
          make_uint2(PackBf16(v.x, v.y), PackBf16(v.z, v.w));
    }
  }

  // Runs write(token, words) for all that this lane writes. `warp`: of the warpgroup's.
  template <bool kGated, typename Write>
  __device__ __forceinline__ void ForTokens(SkinnyShared<Tile>& shared, int group, int warp,
                                            Write write) const {
    constexpr int kTurns = kGated ? 4 : 8;  // of a group of tokens
    if (left <= 0) return;
#pragma unroll 1
    for (int first = warp; first < owned.count * kTurns; first += kAtOnce * kWarps) {
      float4 words[kAtOnce][2];
      int tokens[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int turn = first + i * kWarps, index = turn / kTurns;
        const int in_group = kGated ? 2 * (turn % kTurns) + half : turn % kTurns;
        tokens[i] = index < owned.count ? 8 * owned.Group(index) + in_group : plan.rows;
        if (tokens[i] >= plan.rows) continue;
        const float* from =
            KeptWords<Tile>(shared, group, index).at + in_group * KeptWords<Tile>::kRow + column;
        words[i][0] = *reinterpret_cast<const float4*>(from);
        if (kGated) words[i][1] = *reinterpret_cast<const float4*>(from + 64);
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        if (tokens[i] >= plan.rows) continue;
        const float x_scale = Tile::Format::kCoded ? shared.x_scales[tokens[i]] : 1;
        Scale(0, x_scale, words[i][0]);
        if (kGated) Scale(1, x_scale, words[i][1]);
        write(tokens[i], words[i]);
      }
    }
  }

  template <SkinnyEpilogue kEpilogue>
  __device__ __forceinline__ void WriteAs(SkinnyShared<Tile>& shared, int group, int warp) const {
    constexpr bool kGated =
        kEpilogue == SkinnyEpilogue::kGatedSilu || kEpilogue == SkinnyEpilogue::kGatedGeluTanh;
    ForTokens<kGated>(shared, group, warp, [this](int token, const float4(&words)[2]) {
      WritePlain<kEpilogue>(token, words);
    });
  }
  __device__ __forceinline__ void Write(SkinnyShared<Tile>& shared, int group, int warp) const {
    const auto any = [this](int token, const float4(&words)[2]) { WriteAny(token, words); };
    if (plan.plain == 0) {
      plan.gated ? ForTokens<true>(shared, group, warp, any)
                 : ForTokens<false>(shared, group, warp, any);
      return;
    }
    switch (plan.epilogue) {
      case SkinnyEpilogue::kStore:
        return WriteAs<SkinnyEpilogue::kStore>(shared, group, warp);
      case SkinnyEpilogue::kStoreFloat:
        return WriteAs<SkinnyEpilogue::kStoreFloat>(shared, group, warp);
      case SkinnyEpilogue::kResidual:
        return WriteAs<SkinnyEpilogue::kResidual>(shared, group, warp);
      case SkinnyEpilogue::kGatedSilu:
        return WriteAs<SkinnyEpilogue::kGatedSilu>(shared, group, warp);
      default:
        return WriteAs<SkinnyEpilogue::kGatedGeluTanh>(shared, group, warp);
    }
  }
};

}  // namespace tessera::kernels::cuda
