#include "kvcache/state_spec.h"

#include <gtest/gtest.h>

#include "tests/unit/kvcache/cache_fixture.h"

namespace tessera::kvcache {
namespace {

TEST(CacheLayout, BytesCountWholePagesOfEveryTable) {
  auto layout = LayoutOf({1, 2}, 3);
  layout->tables.push_back({{StateKind::kPaged, FormatOf(1)}, TestDigest(3)});
  EXPECT_EQ(layout->BytesFor(0), 0u);
  EXPECT_EQ(layout->BytesFor(1), 7 * 512u);
  EXPECT_EQ(layout->BytesFor(64), 7 * 512u);
  EXPECT_EQ(layout->BytesFor(65), 14 * 512u);
  EXPECT_EQ(layout->BytesFor(UINT64_MAX), UINT64_MAX);
}

TEST(CacheLayout, ValidateNamesTheTable) {
  EXPECT_TRUE(LayoutOf({1, 2})->Validate().ok());
  const Status twice = LayoutOf({1, 2, 1})->Validate();
  EXPECT_EQ(twice.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(twice.message().find("table 2"), absl::string_view::npos) << twice;
  EXPECT_FALSE(LayoutOf({1}, 0)->Validate().ok());
}

}  // namespace
}  // namespace tessera::kvcache
