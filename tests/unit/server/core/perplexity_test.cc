#include "server/core/perplexity.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

namespace tessera::server {
namespace {

struct ScoredPiece {
  std::vector<TokenId> ids;
  uint32_t from = 0;
};

// Every token at index i of a piece has log-probability -(i % 3).
TokenScorer Recording(std::vector<ScoredPiece>* pieces) {
  return [pieces](std::span<const TokenId> ids, uint32_t from) -> StatusOr<std::vector<float>> {
    pieces->push_back({{ids.begin(), ids.end()}, from});
    std::vector<float> logprobs;
    for (size_t i = from; i < ids.size(); ++i) {
      logprobs.push_back(-static_cast<float>(i % 3));
    }
    return logprobs;
  };
}

std::vector<TokenId> Counting(size_t tokens) {
  std::vector<TokenId> ids(tokens);
  std::iota(ids.begin(), ids.end(), 100);
  return ids;
}

TEST(MeasurePerplexity, ScoresTheSecondHalfOfEachWholePiece) {
  std::vector<ScoredPiece> pieces;
  std::vector<uint64_t> done;
  PerplexityOptions options{.context = 8, .begin = 1};
  options.progress = [&done](uint64_t tokens, uint64_t total) {
    EXPECT_EQ(total, 16u);
    done.push_back(tokens);
  };
  const StatusOr<Perplexity> measured =
      MeasurePerplexity(Counting(23), options, Recording(&pieces));
  ASSERT_TRUE(measured.ok()) << measured.status();
  ASSERT_EQ(pieces.size(), 2u);
  EXPECT_EQ(pieces[1].ids, (std::vector<TokenId>{1, 109, 110, 111, 112, 113, 114, 115}));
  EXPECT_EQ(pieces[0].from, 5u);
  EXPECT_EQ(done, (std::vector<uint64_t>{8, 16}));
  // Indices 5, 6, 7 of each piece: 2, 0, 1.
  EXPECT_EQ(measured->scored, 6u);
  EXPECT_EQ(measured->tokens, 16u);
  EXPECT_DOUBLE_EQ(measured->value, std::exp(1.0));
  EXPECT_NEAR(measured->deviation, std::exp(1.0) * std::sqrt((10.0 / 6 - 1) / 5), 1e-12);
}

TEST(MeasurePerplexity, TakesTheTextsStartAndLeavesItsFirstToken) {
  std::vector<ScoredPiece> pieces;
  const auto measured =
      MeasurePerplexity(Counting(64), {.context = 8, .max_tokens = 16}, Recording(&pieces));
  ASSERT_TRUE(measured.ok());
  ASSERT_EQ(pieces.size(), 2u);
  EXPECT_EQ(pieces[0].ids.front(), 100u);
}

TEST(MeasurePerplexity, RefusesWhatItCannotMeasure) {
  std::vector<ScoredPiece> pieces;
  const TokenScorer score = Recording(&pieces);
  const auto code = [&](size_t tokens, uint32_t context) {
    return MeasurePerplexity(Counting(tokens), {.context = context}, score).status().code();
  };
  EXPECT_EQ(code(15, 8), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(100, 3), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(100, 0), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(pieces.empty());
  const TokenScorer failing = [](std::span<const TokenId>,
                                 uint32_t) -> StatusOr<std::vector<float>> {
    return absl::UnavailableError("gone");
  };
  EXPECT_EQ(MeasurePerplexity(Counting(16), {.context = 8}, failing).status().code(),
            absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace tessera::server
