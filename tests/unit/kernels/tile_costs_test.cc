#include "kernels/cpu/tile_costs.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "kernels/backend.h"
#include "kernels/cpu/tile_calibration.h"

namespace tessera::kernels::cpu {
namespace {

const TileCosts::Key kKey{.processor = "Some CPU 2.0 c0652"};

TileCosts SomeCosts() {
  TileCosts costs;
  costs.Set(DType::kQ4_1, {{{5, 30}, {10, 30}, {20, 30}, {27, 30}, {28, 30}, {60, 30}}});
  costs.Set(DType::kQ8_0, {{{10, 30}, {10, 30}, {10, 30}, {10, 30}, {10, 30}, {10, 30}}});
  return costs;
}

TEST(TileCostsTest, TheWayOfTheNextNumberOfRowsIsTakenTilesIfAboutAsFast) {
  const TileCosts costs = SomeCosts();
  for (const int32_t rows : {1, 8, 31, 32}) EXPECT_FALSE(costs.Tiles(DType::kQ4_1, rows)) << rows;
  for (const int32_t rows : {33, 64, 128, 129, 4096}) {
    EXPECT_TRUE(costs.Tiles(DType::kQ4_1, rows)) << rows;
  }
  EXPECT_FALSE(costs.Tiles(DType::kQ8_0, 512));
  EXPECT_FALSE(costs.Tiles(DType::kQ4_0, 512)) << "not measured";
  EXPECT_TRUE(costs.Has(DType::kQ8_0));
  EXPECT_FALSE(costs.Has(DType::kQ4_0));
}

TEST(TileCostsTest, PeopleReadWhereTilesAreTaken) {
  EXPECT_EQ(SomeCosts().Describe(),
            "Q8_0: vectors; Q4_1: tiles for 64 rows (0.93x), 128 rows (2.00x)");
  EXPECT_EQ(TileCosts().Describe(), "");
}

TEST(TileCostsTest, TheTextIsReadBack) {
  const std::string text = SomeCosts().Text(kKey);
  const StatusOr<TileCosts> again = TileCosts::Parse(text, kKey);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->Text(kKey), text);
  EXPECT_TRUE(again->Tiles(DType::kQ4_1, 64));
}

TEST(TileCostsTest, AnotherProcessorOrVersionMeasuresAgain) {
  const std::string text = SomeCosts().Text(kKey);
  EXPECT_EQ(TileCosts::Parse(text, {.processor = "Some CPU 2.1"}).status().code(),
            absl::StatusCode::kFailedPrecondition);
  const std::string newer = absl::StrReplaceAll(text, {{"tile costs 5", "tile costs 6"}});
  EXPECT_EQ(TileCosts::Parse(newer, kKey).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(TileCosts::Parse("", kKey).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(TileCostsTest, WhatIsNoCostIsRefusedWithItsLine) {
  const std::string head = "tessera tile costs 5\nprocessor Some CPU 2.0 c0652\n";
  for (const char* line :
       {"product Q4_1 rows 64 vectors 1 tiles", "product Q4_1 rows 65 vectors 1 tiles 1",
        "product Q4_7 rows 64 vectors 1 tiles 1", "product F8E4M3 rows 64 vectors 1 tiles 1",
        "product Q4_1 rows 64 vectors 0 tiles 1", "product Q4_1 rows 64 vectors 1 tiles -1",
        "product Q4_1 rows 64 vectors 1000000001 tiles 1", "product Q4_1 rows 64 tiles 1 vectors 1",
        ""}) {
    const Status status = TileCosts::Parse(absl::StrCat(head, line, "\nend\n"), kKey).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << line;
    EXPECT_NE(status.message().find("line 3"), std::string::npos) << status;
  }
  for (const char* rest : {"", "end", "product Q4_1 rows 64 vectors 1 tiles 1\n"}) {
    EXPECT_EQ(TileCosts::Parse(absl::StrCat(head, rest), kKey).status().code(),
              absl::StatusCode::kInvalidArgument)
        << rest;
  }
}

TEST(TileCostsTest, ThisProcessorHasAName) {
  const std::string name = ThisProcessor().processor;
  EXPECT_FALSE(name.empty());
  EXPECT_EQ(name.find('\n'), std::string::npos);
  EXPECT_EQ(name, ThisProcessor().processor);
}

TEST(TileCostsTest, BothWaysAreMeasured) {
  if (SupportedCpuIsas().empty() || SupportedCpuIsas().front() != CpuIsa::kAmx) {
    GTEST_SKIP() << "this processor has no tile registers";
  }
  const StatusOr<TileCosts::Costs> costs = MeasureTiles(DType::kQ4_1);
  ASSERT_TRUE(costs.ok()) << costs.status();
  for (const TileCosts::Cost& cost : *costs) {
    EXPECT_GT(cost.vectors_ns, 0u);
    EXPECT_GT(cost.tiles_ns, 0u);
  }
}

}  // namespace
}  // namespace tessera::kernels::cpu
