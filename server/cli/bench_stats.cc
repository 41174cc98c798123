#include "server/cli/bench_stats.h"

#include <algorithm>
#include <cmath>

namespace tessera::server::cli {

Percentiles PercentilesOf(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const auto at = [&values](double part) {
    const auto rank = static_cast<size_t>(std::ceil(part * static_cast<double>(values.size())));
    return values[std::clamp<size_t>(rank, 1, values.size()) - 1];
  };
  return {at(0.50), at(0.95), at(0.99)};
}

BenchLevel Summarize(uint32_t concurrency, const std::vector<BenchSample>& samples, double wall_s) {
  BenchLevel level;
  level.concurrency = concurrency;
  level.finished = static_cast<uint32_t>(samples.size());
  level.wall_s = wall_s;
  uint64_t tokens = 0;
  std::vector<double> first;
  std::vector<double> between;
  for (const BenchSample& sample : samples) {
    tokens += sample.output_tokens;
    first.push_back(sample.first_token_s);
    if (sample.output_tokens < 2) continue;
    between.push_back((sample.total_s - sample.first_token_s) / (sample.output_tokens - 1));
  }
  level.first_token_s = PercentilesOf(std::move(first));
  level.time_per_output_token_s = PercentilesOf(std::move(between));
  if (wall_s > 0) {
    level.output_tokens_per_s = static_cast<double>(tokens) / wall_s;
    level.requests_per_s = static_cast<double>(samples.size()) / wall_s;
  }
  return level;
}

}  // namespace tessera::server::cli
