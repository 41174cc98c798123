// Rotary frequencies of a chain, and the angles of a step's rows.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "blockzoo/manifest.h"
#include "config/foundation/status.h"

namespace tessera::blockzoo {

// One frequency for each of dim / 2 pairs: base^(-2 i / dim), scaled as the settings say. "linear"
// divides by the factor; "llama3" leaves short wavelengths, divides long ones by the factor and
// blends between (the rule of Llama 3.1's checkpoints). UNIMPLEMENTED naming another scaling;
// INVALID_ARGUMENT for values out of range.
[[nodiscard]] StatusOr<std::vector<float>> RotaryFrequencies(const RotarySettings& settings);

// cosine and sine of position * frequency, in float32 as the reference implementations compute it:
// [frequencies] each.
void RotaryAngles(std::span<const float> frequencies, uint32_t position, float* cosine,
                  float* sine);

}  // namespace tessera::blockzoo
