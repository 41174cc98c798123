// Tokens that end a turn in well-known chat formats.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace tessera::blockzoo {

inline constexpr const char* kTurnEnds[] = {
    "<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>", "</s>"};

[[nodiscard]] inline bool IsTurnEnd(absl::string_view token) {
  for (const char* end : kTurnEnds) {
    if (token == end) return true;
  }
  return false;
}

}  // namespace tessera::blockzoo
