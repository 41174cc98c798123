// Attention of decode rows over paged keys and values: for each (row, KV head) one or more work
// items, each a run of pages that one thread block reads once for all query heads of the group.
//
// A step builds one plan on the host and copies it to the device; every block of the model launches
// with the same plan and names its page table by number. The grid is fixed, so a captured launch
// replays with other contents of the plan. Arithmetic: scores and the sums of an item in float32,
// softmax weights rounded to bf16 (f16 for e4m3 pages) before they meet the values, splits of a
// row added in order. Bits of a row depend on how it is split (DecodeSplits) and on nothing else.
//
// What a query may not see influences nothing, whatever bytes it holds: tokens after the row's last
// query, tokens before the first query's window, pages not listed, slots never written. Keys and
// values of the row's own queries and of visible tokens are taken as numbers: a value that is not
// finite spoils all queries of its row.
//
// Programmatic launch: the plan and the page tables of dense rows are read, and with
// KvHistory::kSettled also the dense pages before the one of the row's first query, before earlier
// kernels have ended. They must have been written by work that a full (not programmatic) dependency
// ordered before the first kernel of the chain that this launch is part of. Lists of entries, the
// queries and the last pages are read after earlier kernels have ended (but see
// DecodeArgs::append).
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/cuda/attention/decode_plan.h"
#include "kernels/cuda/attention/rope_append.h"
#include "kernels/cuda/row_codes.h"
#include "kernels/dtype.h"

namespace tessera::kernels::cuda {

// Bytes of the workspace for `partials` slots. Every byte must be 0xff before the first launch that
// uses it; then it belongs to the launches of one stream, which leave it so.
[[nodiscard]] size_t DecodeWorkspaceBytes(size_t partials, int32_t max_q_rows, int32_t q_heads,
                                          int32_t kv_heads, int32_t head_dim);

enum class KvHistory : uint8_t {
  kInFlight,  // an earlier kernel of the chain may still write any page
  kSettled,   // pages before a row's first query were written before the chain began
};

// How much of a multiprocessor's shared memory the pages on their way take.
enum class DecodeRing : uint8_t {
  kWhole,
  kHalf,  // the next product fills its ring of weights beside it: where there is little to read
};

struct DecodeArgs {
  const void* plan = nullptr;        // device copy of BuildDecodePlan's bytes
  uint32_t grid = 0;                 // as the plan's
  const __nv_bfloat16* q = nullptr;  // [rows, q_heads, head_dim], rows q_stride elements apart
  int64_t q_stride = 0;              // a multiple of 8
  __nv_bfloat16* out = nullptr;      // [rows, q_heads, head_dim]
  RowCodes out_codes;                // of `out`, too, where DecodeLeavesCodes: up to kCodeRows rows
  const std::byte* arena = nullptr;  // pages as kv_layout.h says
  uint32_t table = 0;
  int32_t q_heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  DType kv_type = DType::kBF16;  // or kF8E4M3
  float scale = 0;
  int32_t window = 0;      // as the plan's
  int32_t max_q_rows = 1;  // longest run that this launch may meet; chooses the kernel
  KvHistory history = KvHistory::kInFlight;
  DecodeRing ring = DecodeRing::kWhole;
  void* workspace = nullptr;
  size_t partials = 0;  // slots that the workspace holds
  // With rows: queries are rotated as they are read, and each row's key and value appended, with
  // the bits of LaunchRopeAppend (of which q stays as it is). For plans of dense rows of one query
  // each. With KvHistory::kSettled the new token's page and all that `append` points at, but q, k
  // and v, are read before earlier kernels have ended, under the conditions of the plan.
  RopeAppendArgs append;
};

// "" or what no kernel here supports.
[[nodiscard]] std::string MissingDecode(const DecodeArgs& args);
// "" or why `args.append` wants a launch of its own.
[[nodiscard]] std::string MissingDecodeAppend(const DecodeArgs& args);
// Whether a head is a group of codes.
[[nodiscard]] bool DecodeLeavesCodes(const DecodeArgs& args);
cudaError_t LaunchDecode(const DecodeArgs& args, cudaStream_t stream);

}  // namespace tessera::kernels::cuda
