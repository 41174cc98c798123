// Finds stop strings in a sequence's bytes as tokens arrive, and says how much of the output is
// safe to show.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace tessera::scheduler {

// Bytes are counted from the start of the output. Without stop strings everything is safe at once.
// One sequence, one thread.
class StopMatcher {
 public:
  // `stop` outlives the matcher.
  explicit StopMatcher(const std::vector<std::string>* stop);

  struct Match {
    int32_t stop_index = -1;  // -1: none
    uint64_t begin = 0;       // of the matched text
    uint64_t end = 0;
  };
  // Takes the bytes of the next token. The match that ends first wins, among those the one that
  // begins first, then the lowest index.
  [[nodiscard]] Match Add(absl::string_view bytes);
  // Takes bytes that must not end the output (min_tokens holds): nothing before them can match
  // later.
  void Skip(absl::string_view bytes);

  // Bytes that no stop string can still claim.
  [[nodiscard]] uint64_t safe_bytes() const { return seen_bytes_ - tail_.size(); }
  [[nodiscard]] uint64_t seen_bytes() const { return seen_bytes_; }

 private:
  const std::vector<std::string>* stop_;
  std::string tail_;  // the longest suffix of the output that begins some stop string
  uint64_t seen_bytes_ = 0;
};

}  // namespace tessera::scheduler
