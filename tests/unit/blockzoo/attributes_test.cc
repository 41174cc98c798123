#include "blockzoo/attributes.h"

#include <gtest/gtest.h>

#include <cmath>

namespace tessera::blockzoo {
namespace {

TEST(AttributesTest, ChecksKindAndRange) {
  Attributes attributes;
  attributes.Set("layers", int64_t{3});
  attributes.Set("epsilon", 1e-5);
  attributes.Set("style", std::string("half"));
  attributes.Set("factors", std::vector<double>{1, 2});
  attributes.Set("nan", std::nan(""));

  EXPECT_EQ(*attributes.Integer("layers", 1, 3), 3);
  EXPECT_EQ(*attributes.Number("layers", 1, 3), 3.0);
  EXPECT_EQ(*attributes.Number("epsilon", 0, 1), 1e-5);
  EXPECT_EQ(*attributes.Text("style"), "half");
  EXPECT_EQ(attributes.Numbers("factors")->size(), 2u);

  EXPECT_TRUE(absl::IsNotFound(attributes.Integer("width", 1, 2).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(attributes.Integer("layers", 4, 9).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(attributes.Integer("layers", 0, 2).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(attributes.Integer("epsilon", 0, 9).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(attributes.Text("layers").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(attributes.Numbers("epsilon").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(attributes.Number("nan", -1e308, 1e308).status()));
  EXPECT_NE(attributes.Integer("layers", 4, 9).status().message().find("layers"),
            absl::string_view::npos);
}

}  // namespace
}  // namespace tessera::blockzoo
