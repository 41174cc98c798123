// The sequences that `tessera plan` is asked about, as the command line writes them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "config/foundation/status.h"

namespace tessera::server::cli {

// `count` equal sequences.
struct SequenceGroup {
  enum class Phase : uint8_t { kDecode, kPrefill };
  Phase phase = Phase::kPrefill;
  std::string chain;
  uint32_t tokens = 0;
  uint32_t count = 1;
};

// More sequences than this say nothing more about a step.
inline constexpr uint32_t kMaxPlanSequences = 4096;

// "CHAIN=TOKENS" or "CHAIN=TOKENS*COUNT"; INVALID_ARGUMENT naming the text otherwise.
[[nodiscard]] StatusOr<SequenceGroup> ParseSequenceGroup(absl::string_view text,
                                                         SequenceGroup::Phase phase);

// All of them, those that decode first. INVALID_ARGUMENT when there is none, or more than
// kMaxPlanSequences.
[[nodiscard]] StatusOr<std::vector<SequenceGroup>> ParseSequenceGroups(
    const std::vector<std::string>& decode, const std::vector<std::string>& prefill);

}  // namespace tessera::server::cli
