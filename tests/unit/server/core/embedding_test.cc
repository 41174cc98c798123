#include "server/core/embedding.h"

#include <gtest/gtest.h>

#include <cmath>

namespace tessera::server {
namespace {

using Length = EmbeddingSpec::Length;

TEST(FinishEmbedding, CutsThenScales) {
  const std::vector<float> pooled = {3, -4, 12};
  EXPECT_EQ(FinishEmbedding(pooled, {.length = Length::kAsIs}), pooled);
  EXPECT_EQ(FinishEmbedding(pooled, {.dimensions = 2, .length = Length::kAsIs}),
            (std::vector<float>{3, -4}));
  EXPECT_EQ(FinishEmbedding(pooled, {.dimensions = 2}), (std::vector<float>{0.6f, -0.8f}));
  const std::vector<float> whole = FinishEmbedding(pooled, {});
  EXPECT_FLOAT_EQ(whole[2], 12.0f / 13);
  double squares = 0;
  for (const float value : FinishEmbedding({1e30f, 1e30f, -1e30f}, {})) squares += value * value;
  EXPECT_NEAR(squares, 1, 1e-6);
}

TEST(FinishEmbedding, ZerosStayZeros) {
  EXPECT_EQ(FinishEmbedding({0, 0}, {}), (std::vector<float>{0, 0}));
}

}  // namespace
}  // namespace tessera::server
