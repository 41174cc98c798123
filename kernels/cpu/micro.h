// The seam between the drivers (baseline code: shares of work, spans, threads) and the arithmetic
// (compiled once an instruction set): plain structs and function pointers only, so that no shared
// inline function is ever compiled with an instruction set that a machine may lack.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/block_format.h"
#include "kernels/dtype.h"
#include "kernels/ops/activation_kind.h"

namespace tessera::kernels::cpu {

inline constexpr int kTileRows = 16;  // output rows that a packed tile interleaves

// One weight, rows [row_begin, row_end) of x and y, tiles [tile_begin, tile_end).
struct LinearCall {
  const std::byte* weight;
  const float* x;        // [rows, in], float types
  const int8_t* q;       // [rows, in], quantized types
  const float* x_scale;  // [rows, in / 32]
  const int16_t* x_sum;  // [rows, in / 16]
  const float* bias;
  const float* addend;
  float* y;
  const int32_t* y_rows;
  int64_t y_stride;
  int64_t addend_stride;
  int32_t in;
  int32_t out;
  int32_t row_begin;
  int32_t row_end;
  int32_t tile_begin;
  int32_t tile_end;
  int32_t accumulate;  // y += instead of y =
  int64_t tile_bytes;  // from tile to tile
  // Of types with planes: from a tile's start to its scales and zeros.
  int64_t tile_scales;
  int64_t tile_zeros;
  std::byte* scratch;  // of integer types: LinearScratchBytes(in), or TileScratchBytes(in)
  int32_t rows_kept;   // 1: `scratch` is as this kernel has left it, with the same rows
};

// Weight types whose products are compiled together, in one file an instruction set.
enum class LinearFamily : uint8_t { kFloats, kBlocks32, kBlocks256 };
[[nodiscard]] constexpr LinearFamily FamilyOf(DType dtype) {
  const int elements = BlockFormatOf(dtype).elements;
  return elements == 0    ? LinearFamily::kFloats
         : elements == 32 ? LinearFamily::kBlocks32
                          : LinearFamily::kBlocks256;
}

struct LinearKernels {
  void (*run[kWeightTypeCount])(const LinearCall&);  // null for the types of other families
};

// Rows whose activations stay in the second-level cache while some tiles pass.
inline constexpr int64_t kRowBlock = 252;
[[nodiscard]] constexpr int64_t LinearScratchBytes(int64_t in) { return kRowBlock * (in / 32) * 4; }

// How far ahead the integer products of a set fetch weights: into the first-level cache, or the
// second.
struct FetchAhead {
  int bytes;
  bool first_level;
};

// Products on tile registers (simd/linear_tiles.h): of block formats whose groups of 32 have one
// integer scale, or none.
[[nodiscard]] constexpr bool TakesTiles(DType dtype) {
  return BlockFormatOf(dtype).elements != 0 && BlockFormatOf(dtype).sub_elements == 32;
}
inline constexpr int64_t kTilePair = 2;   // times 16 outputs that take an activation tile
inline constexpr int64_t kTileChunk = 8;  // groups that are unpacked at a time, at most
// The chunk that is multiplied, the one that is unpacked, and one whose sums may not be added yet.
inline constexpr int64_t kTileChunks = 3;
inline constexpr int64_t kTileRing = 4;          // groups whose products wait to be added
inline constexpr int64_t kTileGroupBytes = 512;  // of 16 outputs, unpacked, or of 16 rows
inline constexpr int64_t kTileDots = kTileRows * kTileRows;
// Rows of a call: unpacking is paid once for all of them, and they stay in the second-level cache.
[[nodiscard]] constexpr int64_t TileRowBlock(int64_t in) { return in <= 4096 ? 128 : 64; }
[[nodiscard]] constexpr int64_t TileScratchBytes(int64_t in) {
  const int64_t passes = TileRowBlock(in) / kTileRows;
  const int64_t weights =
      kTileChunks * kTileChunk * kTilePair * (kTileGroupBytes + 4 * 2 * kTileRows);
  const int64_t sums = 4 * (kTileRing + passes) * kTilePair * kTileDots;
  return weights + sums + passes * (in / 32) * (kTileGroupBytes + 4 * 2 * kTileRows);
}

inline constexpr uint64_t kPageUnit = 512;  // bytes; a page's number counts these

// A run of queries of one sequence, some query heads of one KV head.
struct AttentionCall {
  const std::byte* arena;
  const float* q;      // first query, first head
  float* out;          // the same place in the output
  int64_t q_stride;    // floats between queries
  int64_t out_stride;  // and between their results
  int32_t queries;     // queries * heads <= the kernel's items
  int32_t heads;
  int32_t position;  // of the first query
  int32_t head_dim;
  int64_t k_offset;  // bytes from a page's start to the head's plane
  int64_t v_offset;
  const uint32_t* table;    // dense: page of each 64 positions; null: listed
  const uint32_t* entries;  // listed: pairs (page, logical_page | heads << 24)
  int32_t entry_count;
  int32_t first_head;  // bit of the first head in an entry's mask
  float scale;
  float softcap;       // 0: none
  int32_t window;      // 0: all
  const float* sinks;  // of each head; null: none
  // Keys of the page that this thread reads after the call's last one, and how many of its tokens;
  // null: none. Values lie as far behind them as the call's own.
  const std::byte* after;
  int32_t after_tokens;
  float* scratch;  // 64-byte aligned, AttentionScratchFloats(head_dim), or that of tiles
  // Not null: of one query over a table, the sums of one run of pages are left there and nothing is
  // written to `out`. 64-byte aligned, AttentionPartFloats(head_dim).
  float* part;
  int64_t run;
};
// Pages whose sums are made apart and then added to those of the pages before.
inline constexpr int64_t kRunPages = 4;
// What becomes of a call's sums.
struct AttentionFold {
  float* total;    // as AttentionCall::part
  float* part;     // the next run's; null: none
  int32_t begin;   // 1: nothing is in `total` yet
  int32_t finish;  // 1: what is in `total` is all, and the call's results are written
};
// Sums of (query, head) items: [items, width], [items, 16], a maximum each.
inline constexpr int64_t SumFloats(int64_t items, int64_t width) {
  return items * (width + 16) + (items + 15) / 16 * 16;
}
inline constexpr int64_t TileWidth(int64_t head_dim) { return (head_dim + 31) / 32 * 32; }
inline constexpr int kPartItems = 8;
inline constexpr int64_t AttentionPartFloats(int64_t head_dim) {
  return SumFloats(kPartItems, TileWidth(head_dim));
}
// With these a page and what the items keep fit in a first-level cache of 32 KiB.
inline constexpr int kMaxItems = 12;
inline constexpr int64_t AttentionScratchFloats(int64_t head_dim) {
  const int64_t width = TileWidth(head_dim);
  return 2 * SumFloats(kMaxItems, width) + kMaxItems * width + 16 + 16 * 64;
}
// The same of tiles: a page is made ready for them once for all items, and four tiles of items keep
// that below a tenth of the time.
inline constexpr int kTileItems = 64;
inline constexpr int64_t TileAttentionScratchFloats(int64_t head_dim) {
  const int64_t width = TileWidth(head_dim);
  const int64_t kept = 2 * SumFloats(kTileItems, width) + 16 * width + 16;
  const int64_t weighed = (2 * 16 + 2 * 16 / 2) * 64;
  return kept + weighed + (kTileItems + 2 * 64) * width / 2;
}

struct RopeCall {
  const float* cosine;  // [rotary_dim / 2]
  const float* sine;
  int32_t heads;
  int32_t head_dim;
  int32_t rotary_dim;
  int32_t interleaved;
};

struct AttentionKernels {
  void (*attend[3])(const AttentionCall&);  // by KV dtype
  // Adds a run's sums to those before it, in the order of runs.
  void (*fold[3])(const AttentionCall&, const AttentionFold&);
  int32_t items[3];  // of a call, at most; kMaxItems or kTileItems
  // Rotates [heads, head_dim] floats; `to` may be `from`.
  void (*rotate)(const RopeCall&, const float* from, float* to);
  // One token's [heads, head_dim] keys and values into slot `slot` of a page's planes.
  void (*store_kv[3])(const float* k, const float* v, std::byte* k_plane, std::byte* v_plane,
                      int32_t heads, int32_t head_dim, int32_t slot);
  // Minimum and maximum of each 16 tokens of one head: [4, 2, head_dim].
  void (*page_stats[3])(const std::byte* k_plane, float* statistics, int32_t head_dim);
};

// A run of queries of one sequence and some heads, over latents. Of all heads' queries and outputs
// those of a head lie together.
struct LatentCall {
  const std::byte* arena;
  const float* q;         // first query, first head: [heads, queries, width]
  float* out;             // the same place in [heads, queries, rank]
  int64_t q_head_stride;  // floats between heads
  int64_t out_head_stride;
  int32_t queries;  // queries * heads <= kMaxItems
  int32_t heads;
  int32_t position;       // of the first query
  int32_t width;          // of a latent with its rotated key
  int32_t rank;           // of the latent alone
  const uint32_t* table;  // page of each 64 positions
  float scale;
  float* scratch;  // AttentionScratchFloats(width)
};

struct LatentKernels {
  void (*attend[3])(const LatentCall&);  // by KV dtype
  // One token's latent into its place in a page.
  void (*store[3])(const float* from, int32_t width, std::byte* to);
};

struct ExpertKernels {
  void (*clamped_swiglu)(const float* gate, const float* up, float* y, int64_t count, float limit,
                         float alpha);
};

struct RowKernels {
  void (*rms_norm)(const float* x, const float* weight, float* y, int32_t width, float epsilon);
  // `bias` may be null.
  void (*layer_norm)(const float* x, const float* weight, const float* bias, float* y,
                     int32_t width, float epsilon);
  void (*quantize)(const float* x, int8_t* q, float* scale, int16_t* sum, int32_t width);
  // By ActivationKind; `up` may be null.
  void (*activation[kActivationKinds])(const float* gate, const float* up, float* y, int64_t count);
  void (*scale_and_cap)(float* x, int64_t count, float scale, float cap);
};

inline constexpr int kLogitChunk = 64;
struct SampleKernels {
  // Largest value of each 64 logits; not-a-number counts as -infinity.
  void (*chunk_max)(const float* logits, int32_t count, float* out);
  // w = exp((logit - max) * inverse_temperature), 0 for not-a-number; chunk_sum of each 64, lanes
  // added pairwise. `w` may be null.
  void (*weights)(const float* logits, int32_t count, float max, float inverse_temperature,
                  float* w, float* chunk_sum);
  int32_t (*count_greater)(const float* logits, int32_t count, float bound);
};

extern const LinearKernels kAvx512Linear, kAvx512LinearBlocks32, kAvx512LinearBlocks256;
extern const LinearKernels kAmxLinear;
extern const LinearKernels kAvx2Linear, kAvx2LinearBlocks32, kAvx2LinearBlocks256;
extern const AttentionKernels kAvx512Attention, kAvx2Attention;
// What AMX has in the place of one of kAvx512Attention: products of tiles over pages of bf16.
void AmxAttend(const AttentionCall& call);
extern const LatentKernels kAvx512Latent, kAvx2Latent;
extern const ExpertKernels kAvx512Expert, kAvx2Expert;
extern const RowKernels kAvx512Row, kAvx2Row;
extern const SampleKernels kAvx512Sample, kAvx2Sample;

}  // namespace tessera::kernels::cpu
