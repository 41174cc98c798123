#include "config/nearest.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace tessera {
namespace {

TEST(NearestTest, EditDistanceCountsSwapsAsOne) {
  EXPECT_EQ(EditDistance("", ""), 0);
  EXPECT_EQ(EditDistance("abc", ""), 3);
  EXPECT_EQ(EditDistance("kitten", "sitting"), 3);
  EXPECT_EQ(EditDistance("ab", "ba"), 1);
  EXPECT_EQ(EditDistance("naem", "name"), 1);
}

TEST(NearestTest, FindsOnlyWhatIsNear) {
  const std::vector<std::string> names = {"max_wait", "max_waiting_tokens", "policy"};
  EXPECT_EQ(NearestName("max_waiting_token", names), "max_waiting_tokens");
  EXPECT_EQ(NearestName("polcy", names), "policy");
  EXPECT_EQ(NearestName("temperature", names), "");
  EXPECT_EQ(NearestName(std::string(1000, 'x'), names), "");
  EXPECT_EQ(NearestName("x", {}), "");
}

}  // namespace
}  // namespace tessera
