#include "scheduler/stop_matcher.h"

#include <algorithm>

namespace tessera::scheduler {

StopMatcher::StopMatcher(const std::vector<std::string>* stop) : stop_(stop) {
  size_t longest = 0;
  for (const std::string& text : *stop) longest = std::max(longest, text.size());
  if (longest > 0) tail_.reserve(2 * longest + 256);
}

StopMatcher::Match StopMatcher::Add(absl::string_view bytes) {
  if (stop_->empty()) {
    seen_bytes_ += bytes.size();
    return {};
  }
  tail_.append(bytes.data(), bytes.size());
  seen_bytes_ += bytes.size();
  const uint64_t tail_begin = seen_bytes_ - tail_.size();
  Match best;
  for (size_t i = 0; i < stop_->size(); ++i) {
    const size_t at = tail_.find((*stop_)[i]);
    if (at == std::string::npos) continue;
    const Match match{.stop_index = static_cast<int32_t>(i),
                      .begin = tail_begin + at,
                      .end = tail_begin + at + (*stop_)[i].size()};
    if (best.stop_index < 0 || match.end < best.end ||
        (match.end == best.end && match.begin < best.begin)) {
      best = match;
    }
  }
  size_t keep = 0;
  for (const std::string& text : *stop_) {
    for (size_t length = std::min(text.size() - 1, tail_.size()); length > keep; --length) {
      if (tail_.compare(tail_.size() - length, length, text, 0, length) == 0) keep = length;
    }
  }
  tail_.erase(0, tail_.size() - keep);
  return best;
}

void StopMatcher::Skip(absl::string_view bytes) {
  seen_bytes_ += bytes.size();
  tail_.clear();
}

}  // namespace tessera::scheduler
