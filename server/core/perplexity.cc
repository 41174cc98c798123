#include "server/core/perplexity.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace tessera::server {
namespace {

constexpr uint32_t kLeastContext = 4;

Status Check(uint64_t tokens, uint32_t context) {
  if (context < kLeastContext) {
    return Error(absl::StatusCode::kInvalidArgument,
                 {.what = absl::StrCat("a context of ", context, " tokens leaves nothing to score"),
                  .fix = absl::StrCat("take at least ", kLeastContext)});
  }
  if (tokens >= 2ull * context) return absl::OkStatus();
  return Error(absl::StatusCode::kInvalidArgument,
               {.what = absl::StrCat("the text has ", tokens, " tokens, too few to measure"),
                .why = absl::StrCat("two contexts of ", context, " are the least"),
                .fix = "take a longer text, or a smaller --context"});
}

}  // namespace

StatusOr<Perplexity> MeasurePerplexity(std::span<const TokenId> text,
                                       const PerplexityOptions& options, const TokenScorer& score) {
  if (options.max_tokens > 0) {
    text = text.first(std::min<uint64_t>(text.size(), options.max_tokens));
  }
  TESSERA_RETURN_IF_ERROR(Check(text.size(), options.context));
  const uint64_t context = options.context;
  const uint64_t pieces = text.size() / context;
  double sum = 0;
  double squares = 0;
  Perplexity measured;
  for (uint64_t piece = 0; piece < pieces; ++piece) {
    const std::span<const TokenId> part = text.subspan(piece * context, context);
    std::vector<TokenId> ids(part.begin(), part.end());
    if (options.begin) ids.front() = *options.begin;
    TESSERA_ASSIGN_OR_RETURN(const std::vector<float> logprobs,
                             score(ids, static_cast<uint32_t>(context / 2 + 1)));
    for (const float logprob : logprobs) {
      sum -= logprob;
      squares += double{logprob} * logprob;
    }
    measured.tokens += context;
    measured.scored += logprobs.size();
    if (options.progress) options.progress(measured.tokens, pieces * context);
  }
  const auto count = static_cast<double>(measured.scored);
  const double mean = sum / count;
  measured.value = std::exp(mean);
  const double variance = std::max(0.0, squares / count - mean * mean);
  measured.deviation = measured.value * std::sqrt(variance / std::max(1.0, count - 1));
  return measured;
}

}  // namespace tessera::server
