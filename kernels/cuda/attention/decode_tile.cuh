// The arithmetic of one warp on 16 tokens of a page: scores of its columns (a column is a query
// head of one query), running softmax, and sums of values. Tokens are the rows of the first
// product and dimensions those of the second, so that few columns waste no tensor work.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/attention/decode_ring.cuh"
#include "kernels/cuda/attention/half.cuh"
#include "kernels/cuda/kv_layout.h"
#include "kernels/cuda/ptx.cuh"

namespace tessera::kernels::cuda {

struct E4m3 {
  uint8_t bits;
};

// Eight computing warps: four share the tokens of a page; the two groups of four take alternate
// pages, or, with the most columns, both take every page and half of the columns.
template <typename Element_, int kHeadDim_, int kColumns_>
struct DecodeShape {
  using Element = Element_;
  static constexpr bool kIsE4m3 = std::is_same_v<Element, E4m3>;
  static constexpr int kHeadDim = kHeadDim_;
  static constexpr int kColumns = kColumns_;
  static constexpr int kWarps = 8;
  static constexpr int kThreads = kWarps * 32;  // that compute; a warp more loads
  static constexpr int kWarpColumns = kColumns < 16 || kHeadDim > 128 ? 8 : 16;
  static constexpr int kTiles = kWarpColumns / 8;
  static constexpr int kColumnGroups = kColumns / kWarpColumns;
  static constexpr int kPageGroups = 2 / kColumnGroups;
  static constexpr int kDimTiles = kHeadDim / 16;
  static constexpr int kRowBytes = kHeadDim * static_cast<int>(sizeof(Element));
  static constexpr int kChunks = kRowBytes / 16;
  static constexpr int kPlaneBytes = 64 * kRowBytes;
  // 16 bytes of padding put eight rows of a fragment into different banks.
  static constexpr int kQueryStride = kHeadDim + 8;
  static constexpr bool kQueryInRegisters = kHeadDim <= 128;
  // More would leave an Ampere device's ring no room for four planes.
  static constexpr int kMergeDims = kHeadDim > 128 ? 64 : kHeadDim;
  static constexpr int kMergeStride = kMergeDims + 4;
};

// First byte column of the panel that holds byte `column` (kv_layout.h).
__host__ __device__ constexpr uint32_t PanelStart(uint32_t column, uint32_t row_bytes) {
  uint32_t panel = column / 128 * 128;
  while (column >= panel + PanelWidth(row_bytes - panel)) panel += PanelWidth(row_bytes - panel);
  return panel;
}

// Byte offset in a plane of 16-byte chunk kChunk + `half` (0 or 1) of `token`; kChunk is even and
// the two chunks lie in one panel, unless the panel has one chunk only.
template <int kRowBytes, int kChunk>
__device__ __forceinline__ uint32_t ChunkOffset(uint32_t token, uint32_t half) {
  constexpr uint32_t kPanel = PanelStart(kChunk * 16, kRowBytes);
  constexpr uint32_t kWidth = PanelWidth(kRowBytes - kPanel);
  constexpr uint32_t kInside = kChunk * 16 - kPanel;
  if constexpr (kWidth == 16) {
    return kPanel * 64 + token * 16;
  } else {
    const uint32_t swizzle = kWidth == 128  ? token & 7
                             : kWidth == 64 ? token / 2 & 3
                                            : token / 4 & 1;
    return kPanel * 64 + ((token * kWidth + (half ^ swizzle) * 16) ^ kInside);
  }
}

__device__ __forceinline__ uint32_t TransposeMatrix(uint32_t fragment) {
  uint32_t transposed;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(transposed) : "r"(fragment));
  return transposed;
}

template <typename Shape>
__device__ __forceinline__ void Mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                    uint32_t b1) {
  if constexpr (Shape::kIsE4m3) {
    MmaF16(d, a, b0, b1);
  } else {
    MmaBf16(d, a, b0, b1);
  }
}

// Eight elements of a query in the type that meets the page's: bf16 as they are, or f16.
template <typename Shape>
__device__ __forceinline__ uint4 QueryBits(uint4 bits) {
  if constexpr (Shape::kIsE4m3) {
    bits = make_uint4(HalfFromBf16(bits.x), HalfFromBf16(bits.y), HalfFromBf16(bits.z),
                      HalfFromBf16(bits.w));
  }
  return bits;
}

// Query fragments of a warp's columns: from registers where they fit, else from shared memory.
template <typename Shape>
struct QueryTile {
  const uint16_t* rows;  // [kWarpColumns, kQueryStride] in shared memory
  uint32_t fragments[Shape::kQueryInRegisters ? Shape::kDimTiles : 1][Shape::kTiles][2];

  __device__ __forceinline__ void Read(int dims, int tile, uint32_t& b0, uint32_t& b1) const {
    const int row = tile * 8 + LaneId() / 4;
    const int quad = LaneId() % 4;
    const uint16_t* base = rows + row * Shape::kQueryStride + dims * 16;
    if constexpr (Shape::kIsE4m3) {
      // A lane's four bytes of K are neighbours: the same order of dimensions for the query.
      const uint2 four = *reinterpret_cast<const uint2*>(base + quad * 4);
      b0 = four.x;
      b1 = four.y;
    } else {
      b0 = *reinterpret_cast<const uint32_t*>(base + quad * 2);
      b1 = *reinterpret_cast<const uint32_t*>(base + quad * 2 + 8);
    }
  }
  __device__ __forceinline__ void Load(const uint16_t* shared_rows) {
    rows = shared_rows;
    if constexpr (Shape::kQueryInRegisters) {
#pragma unroll
      for (int dims = 0; dims < Shape::kDimTiles; ++dims) {
#pragma unroll
        for (int tile = 0; tile < Shape::kTiles; ++tile) {
          Read(dims, tile, fragments[dims][tile][0], fragments[dims][tile][1]);
        }
      }
    }
  }
  __device__ __forceinline__ void Get(int dims, int tile, uint32_t& b0, uint32_t& b1) const {
    if constexpr (Shape::kQueryInRegisters) {
      b0 = fragments[dims][tile][0];
      b1 = fragments[dims][tile][1];
    } else {
      Read(dims, tile, b0, b1);
    }
  }
};

// Which tokens a thread's columns (two neighbours in each tile) see.
template <typename Shape>
struct ColumnLimits {
  int32_t last[Shape::kTiles][2];  // position of the query; -1: no such column
  uint32_t head_bit[Shape::kTiles][2];
  int32_t window;       // tokens, or more than any position
  int32_t first_token;  // that any column sees
  int32_t last_token;
  int32_t common_last;  // last token that every column sees
  int32_t common_first;
};

// Running softmax of a warp over its tokens. Accumulator layout: dims tile, column tile, then the
// fragment's four (two rows of dimensions, two columns).
template <typename Shape>
struct SoftmaxState {
  float values[Shape::kDimTiles][Shape::kTiles][4];
  float maximum[Shape::kTiles][2];
  float sum[Shape::kTiles][2];  // of this thread's tokens

  __device__ __forceinline__ void Clear() {
#pragma unroll
    for (int tile = 0; tile < Shape::kTiles; ++tile) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        maximum[tile][c] = -INFINITY;
        sum[tile][c] = 0;
      }
#pragma unroll
      for (int dims = 0; dims < Shape::kDimTiles; ++dims) {
#pragma unroll
        for (int i = 0; i < 4; ++i) values[dims][tile][i] = 0;
      }
    }
  }
};

// K fragments of 16 tokens (`row` is the lane's token in the page) times the queries.
template <typename Shape, int kDims = 0>
__device__ __forceinline__ void Score(const unsigned char* plane, uint32_t token, uint32_t half,
                                      const QueryTile<Shape>& query,
                                      float (&even)[Shape::kTiles][4],
                                      float (&odd)[Shape::kTiles][4]) {
  if constexpr (kDims < Shape::kDimTiles) {
    uint32_t loaded[4];
    constexpr int kChunk = Shape::kIsE4m3 ? kDims : kDims * 2;
    LoadMatrix4(loaded, plane + ChunkOffset<Shape::kRowBytes, kChunk>(token, half));
    constexpr int kSteps = Shape::kIsE4m3 ? (kDims + 1 < Shape::kDimTiles ? 2 : 1) : 1;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      uint32_t a[4];
      if constexpr (Shape::kIsE4m3) {
        a[0] = HalfFromE4m3(loaded[step * 2]);
        a[1] = HalfFromE4m3(loaded[step * 2 + 1]);
        a[2] = HalfFromE4m3(loaded[step * 2] >> 16);
        a[3] = HalfFromE4m3(loaded[step * 2 + 1] >> 16);
      } else {
#pragma unroll
        for (int i = 0; i < 4; ++i) a[i] = loaded[i];
      }
#pragma unroll
      for (int tile = 0; tile < Shape::kTiles; ++tile) {
        uint32_t b0, b1;
        query.Get(kDims + step, tile, b0, b1);
        Mma<Shape>((kDims + step) % 2 == 0 ? even[tile] : odd[tile], a, b0, b1);
      }
    }
    Score<Shape, kDims + kSteps>(plane, token, half, query, even, odd);
  }
}

// Adds V^T [dims, 16 tokens] times the weights. `keep` are bit masks of the lane's tokens (2 quad,
// 2 quad + 1) and the same + 8: values of tokens that nobody sees may be anything, zero times them
// would not be zero.
template <typename Shape, int kDims = 0>
__device__ __forceinline__ void AddValues(const unsigned char* plane, uint32_t token, uint32_t half,
                                          const uint32_t (&weights)[Shape::kTiles][2],
                                          const uint32_t (&keep)[2], SoftmaxState<Shape>& state) {
  if constexpr (kDims < Shape::kDimTiles) {
    uint32_t loaded[4];
    constexpr int kChunk = Shape::kIsE4m3 ? kDims : kDims * 2;
    LoadMatrix4Transposed(loaded, plane + ChunkOffset<Shape::kRowBytes, kChunk>(token, half));
    constexpr int kSteps = Shape::kIsE4m3 ? (kDims + 1 < Shape::kDimTiles ? 2 : 1) : 1;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      uint32_t a[4];
      if constexpr (Shape::kIsE4m3) {
        const uint32_t low = loaded[step * 2] & keep[0];
        const uint32_t high = loaded[step * 2 + 1] & keep[1];
        a[0] = HalfFromE4m3(__byte_perm(low, 0, 0x4420));
        a[1] = HalfFromE4m3(__byte_perm(low, 0, 0x4431));
        a[2] = HalfFromE4m3(__byte_perm(high, 0, 0x4420));
        a[3] = HalfFromE4m3(__byte_perm(high, 0, 0x4431));
      } else {
        a[0] = loaded[0] & keep[0];
        a[1] = loaded[1] & keep[0];
        a[2] = loaded[2] & keep[1];
        a[3] = loaded[3] & keep[1];
      }
#pragma unroll
      for (int tile = 0; tile < Shape::kTiles; ++tile) {
        Mma<Shape>(state.values[kDims + step][tile], a, weights[tile][0], weights[tile][1]);
      }
    }
    AddValues<Shape, kDims + kSteps>(plane, token, half, weights, keep, state);
  }
}

// Scores that their column may not see become -inf.
template <typename Shape>
__device__ __forceinline__ void MaskScores(const ColumnLimits<Shape>& limits, int32_t token,
                                           uint32_t heads, float (&scores)[Shape::kTiles][4]) {
#pragma unroll
  for (int tile = 0; tile < Shape::kTiles; ++tile) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int32_t at = token + (i / 2) * 8;
      const int32_t last = limits.last[tile][i % 2];
      const bool seen =
          at <= last && at + limits.window > last && (heads & limits.head_bit[tile][i % 2]) != 0;
      scores[tile][i] = seen ? scores[tile][i] : -INFINITY;
    }
  }
}

// Scores (times scale * log2 e) to weights; moves the running maximum and rescales the sums.
template <typename Shape>
__device__ __forceinline__ void Softmax(float (&scores)[Shape::kTiles][4],
                                        SoftmaxState<Shape>& state,
                                        uint32_t (&weights)[Shape::kTiles][2]) {
  float factor[Shape::kTiles][2];
  bool moved = false;
#pragma unroll
  for (int tile = 0; tile < Shape::kTiles; ++tile) {
    float base[2];
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      float top = fmaxf(scores[tile][c], scores[tile][c + 2]);
#pragma unroll
      for (int offset = 4; offset < 32; offset *= 2) {
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, offset));
      }
      const float before = state.maximum[tile][c];
      const float after = fmaxf(before, top);
      base[c] = after == -INFINITY ? 0.f : after;
      factor[tile][c] = Exp2(before - base[c]);
      moved |= after != before;
      state.maximum[tile][c] = after;
    }
    float weight[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) weight[i] = Exp2(scores[tile][i] - base[i % 2]);
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      state.sum[tile][c] = state.sum[tile][c] * factor[tile][c] + (weight[c] + weight[c + 2]);
    }
    if constexpr (Shape::kIsE4m3) {
      const __half2 low = __floats2half2_rn(weight[0], weight[1]);
      const __half2 high = __floats2half2_rn(weight[2], weight[3]);
      weights[tile][0] = TransposeMatrix(*reinterpret_cast<const uint32_t*>(&low));
      weights[tile][1] = TransposeMatrix(*reinterpret_cast<const uint32_t*>(&high));
    } else {
      weights[tile][0] = TransposeMatrix(PackBf16(weight[0], weight[1]));
      weights[tile][1] = TransposeMatrix(PackBf16(weight[2], weight[3]));
    }
  }
  if (!__any_sync(0xffffffffu, moved)) return;
#pragma unroll
  for (int dims = 0; dims < Shape::kDimTiles; ++dims) {
#pragma unroll
    for (int tile = 0; tile < Shape::kTiles; ++tile) {
#pragma unroll
      for (int i = 0; i < 4; ++i) state.values[dims][tile][i] *= factor[tile][i % 2];
    }
  }
}

// One page: waits for its planes, computes this warp's 16 tokens, and gives the planes back.
template <typename Shape>
__device__ __forceinline__ void AddPage(const PlaneRing& ring, RingPosition at, float scale,
                                        const QueryTile<Shape>& query,
                                        const ColumnLimits<Shape>& limits,
                                        SoftmaxState<Shape>& state) {
  const int lane = LaneId();
  const int slice = static_cast<int>(threadIdx.x) / 32 % 4 * 16;
  const uint32_t row_token = slice + lane % 16;
  const uint32_t row_half = lane / 16;
  RingWait(&ring.full[at.slot], at.phase);
  const PageMeta meta = ring.meta[at.slot];
  float scores[Shape::kTiles][4] = {};
  float odd[Shape::kTiles][4] = {};
  Score<Shape>(ring.Plane(at.slot), row_token, row_half, query, scores, odd);
  RingArrive(&ring.empty[at.slot]);
#pragma unroll
  for (int tile = 0; tile < Shape::kTiles; ++tile) {
#pragma unroll
    for (int i = 0; i < 4; ++i) scores[tile][i] = (scores[tile][i] + odd[tile][i]) * scale;
  }

  const auto page_token = static_cast<int32_t>(meta.logical_page() * kPageTokens);
  const int32_t first = page_token + slice;
  uint32_t keep[2] = {0xffffffffu, 0xffffffffu};
  if (first < limits.common_first || first + 15 > limits.common_last || meta.heads() != 0xffu) {
    MaskScores<Shape>(limits, first + lane / 4, meta.heads(), scores);
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const int32_t token = first + lane % 4 * 2 + part * 8;
      const auto inside = [&](int32_t t) {
        return t >= limits.first_token && t <= limits.last_token && meta.heads() != 0;
      };
      keep[part] = (inside(token) ? 0xffffu : 0u) | (inside(token + 1) ? 0xffff0000u : 0u);
    }
  }
  uint32_t weights[Shape::kTiles][2];
  Softmax<Shape>(scores, state, weights);

  at.Advance(1, ring.slots);
  RingWait(&ring.full[at.slot], at.phase);
  const uint32_t value_token =
      Shape::kIsE4m3 ? row_token : static_cast<uint32_t>(slice + lane % 8 + lane / 16 * 8);
  const uint32_t value_half = Shape::kIsE4m3 ? row_half : lane / 8 % 2;
  AddValues<Shape>(ring.Plane(at.slot), value_token, value_half, weights, keep, state);
  RingArrive(&ring.empty[at.slot]);
}

}  // namespace tessera::kernels::cuda
