// Sampling on the device, with the semantics of kernels/ops/sample.h.
//
// The host packs the rows' settings into one block of bytes, uploads it, and launches one kernel
// that reads the logits where the head left them. Weights, their sums over 64 tokens and the
// uniform number are bit for bit those of the CPU backend; sums over more tokens are float64 in
// another order, so that a token differs only where a draw or a filter falls within rounding (about
// 1e-15 of the mass; 1e-8 where a filter before it left candidates whose CPU total is summed in
// float32) of the boundary between two tokens. Two tokens whose distance from the entropy is the
// same float32 are ordered by id (typical_p). A row without a finite logit gives token 0, or the
// lowest allowed one. Results are the same bits on every run.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "kernels/ops/sample.h"

namespace tessera::kernels::cuda {

inline constexpr int32_t kMaxSampleVocab = 262144;

// What belongs to a row besides its SampleRow: slots of SampleArgs::last_token, -1 for none.
struct SampleSlots {
  int32_t slot = -1;  // takes the row's token
  // Holds a token that was sampled after `counts` were made: one more occurrence in the output. It
  // must not be another row's `slot`.
  int32_t pending = -1;
};

// Bytes that PackSampleRows writes for these rows.
[[nodiscard]] size_t PackedSampleBytes(std::span<const SampleRow> rows, int32_t vocab);
// An upper bound: 160 bytes a row, 12 for each count, 8 for each bias, 4 for each banned and each
// logprob id, and vocab / 8 + 4 for a row with allowed ids. `to` has PackedSampleBytes bytes,
// begins at a multiple of 16 and is usually pinned; `slots` has one entry a row or is empty. Row i
// reads logits [i]; SampleRow::logits is ignored. Every id is below vocab, forced too.
void PackSampleRows(std::span<const SampleRow> rows, std::span<const SampleSlots> slots,
                    int32_t vocab, std::span<std::byte> to);

// All pointers are device pointers.
struct SampleArgs {
  const float* logits = nullptr;  // [rows, logits_stride], begins at 16 bytes
  int64_t logits_stride = 0;      // floats, a multiple of 4, at least vocab
  int32_t rows = 0;               // 1..65535
  int32_t vocab = 0;
  const std::byte* packed = nullptr;  // what PackSampleRows wrote
  SampleResult* results = nullptr;    // [rows]
  // [rows, top_stride]: top_logprobs entries, then one for each of logprob_ids. Null when no row
  // asks.
  TokenLogprob* top = nullptr;
  int32_t top_stride = 0;
  int32_t* last_token = nullptr;  // [slots] or null: nothing is written, nothing pending is read
  std::byte* workspace =
      nullptr;  // SampleWorkspaceBytes, at a multiple of 16; null where that is 0
};
// 0 on compute capability 9; elsewhere a copy of the logits.
[[nodiscard]] size_t SampleWorkspaceBytes(int32_t rows, int32_t vocab);
// "" or what is lacking: vocab is 1..kMaxSampleVocab.
[[nodiscard]] std::string MissingSample(int64_t vocab);
cudaError_t LaunchSample(const SampleArgs& args, cudaStream_t stream);
// How devices without clusters do it, for any device: a block a row, the same results. Needs
// OneBlockWorkspaceBytes of workspace.
[[nodiscard]] size_t OneBlockWorkspaceBytes(int32_t rows, int32_t vocab);
cudaError_t LaunchSampleOneBlock(const SampleArgs& args, cudaStream_t stream);

}  // namespace tessera::kernels::cuda
