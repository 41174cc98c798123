// The figures of a load test: what was measured of each request, and what that comes to.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tessera::server::cli {

// One finished request, in seconds from its start.
struct BenchSample {
  uint32_t prompt_tokens = 0;
  uint32_t output_tokens = 0;
  double first_token_s = 0;
  double total_s = 0;
};

struct Percentiles {
  double p50 = 0;
  double p95 = 0;
  double p99 = 0;
};

// Nearest rank; all zero for no values.
[[nodiscard]] Percentiles PercentilesOf(std::vector<double> values);

// One load level.
struct BenchLevel {
  uint32_t concurrency = 0;
  uint32_t finished = 0;
  uint32_t failed = 0;
  std::string first_error;
  double wall_s = 0;
  double output_tokens_per_s = 0;
  double requests_per_s = 0;
  Percentiles first_token_s;
  // Of one request, after its first token.
  Percentiles time_per_output_token_s;
};

[[nodiscard]] BenchLevel Summarize(uint32_t concurrency, const std::vector<BenchSample>& samples,
                                   double wall_s);

}  // namespace tessera::server::cli
