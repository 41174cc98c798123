// Rotary frequencies of a chain, and the angles of a step's rows.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "blockzoo/manifest.h"
#include "config/foundation/status.h"

namespace tessera::blockzoo {

// How positions turn into cosine and sine: those of position * frequency, times `scale`.
struct RotaryTable {
  std::vector<float> frequencies;  // [dim / 2]
  float scale = 1.0f;

  bool operator==(const RotaryTable&) const = default;
};

// The table of a chain that may be `max_context` tokens long. Plain: base^(-2 i / dim). Then
// (d = dim, L = original_context, n = settings.length, or max_context where that is 0):
//   linear    divided by factor
//   ntk       base * factor^(d / (d - 2)) in place of base
//   dynamic   the same with factor * n / L - (factor - 1) in place of factor where n > L
//   yarn      pairs that turn at least beta_fast times in L tokens stay, those that turn at most
//             beta_slow times are divided by factor, a linear ramp between (arXiv 2309.00071);
//             scale = 0.1 ln(factor) + 1, or with mscale and mscale_all_dim the quotient of
//             0.1 m ln(factor) + 1 of the two
//   longrope  divided by long_factor where n > L, else by short_factor (arXiv 2402.13753);
//             scale = sqrt(1 + ln(factor) / ln(L)), 1 where factor <= 1
//   llama3    short wavelengths stay, long ones are divided by factor, a blend between (the rule of
//             Llama 3.1's checkpoints)
// attention_factor replaces the scale; frequency_factors divide at last. What depends on a length
// is chosen once a chain: a cached key would be of no use to a sequence that chose otherwise.
// UNIMPLEMENTED naming another scaling; INVALID_ARGUMENT naming the field that is out of range.
[[nodiscard]] StatusOr<RotaryTable> MakeRotaryTable(const RotarySettings& settings,
                                                    uint64_t max_context);

}  // namespace tessera::blockzoo
