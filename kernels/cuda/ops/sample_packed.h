// The bytes between PackSampleRows and the sampling kernel: rows first, then their lists.
#pragma once

#include <cstdint>

#include "kernels/ops/sample.h"

namespace tessera::kernels::cuda {

// A list in the block: `at` in units of 4 bytes from the block's start.
struct PackedList {
  uint32_t at = 0;
  uint32_t count = 0;
};

struct PackedSampleRow {
  double uniform = 0;  // of (seed, counter)
  float temperature = 1;
  float inverse_temperature = 1;
  float top_p = 1;
  float typical_p = 1;
  float min_p_offset = 0;  // temperature * log(min_p); only where min_p > 0
  float repetition_penalty = 1;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  uint32_t top_k = 0;  // 0: off
  uint32_t top_logprobs = 0;
  int32_t forced = -1;
  int32_t slot = -1;
  int32_t pending = -1;
  uint32_t first_allowed = 0;
  uint32_t has_min_p = 0;
  uint32_t has_penalties = 0;
  uint32_t report = 0;      // log-probabilities or rank are wanted
  uint32_t changed = 0;     // bias, allowed, banned or penalties
  PackedList counts;        // TokenCount
  PackedList bias;          // TokenBias
  PackedList allowed_mask;  // bits, one a token; count is in words; 0: all are allowed
  PackedList banned;        // TokenId
  PackedList logprob_ids;   // TokenId
};
static_assert(sizeof(PackedSampleRow) == 120 && sizeof(TokenCount) == 12 && sizeof(TokenBias) == 8);

}  // namespace tessera::kernels::cuda
