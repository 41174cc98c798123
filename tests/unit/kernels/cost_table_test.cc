#include "kernels/cuda/linear/cost_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "kernels/kept_costs.h"

namespace tessera::kernels::cuda {
namespace {

const CostKey kKey{.device = "NVIDIA H200",
                   .major = 9,
                   .minor = 0,
                   .driver_version = 13000,
                   .library_version = 130100};
const ProductGroup kGated{DType::kF8Channel, ProductForm::kGated, 4096, {14336}};
const ProductGroup kQkv{DType::kBF16, ProductForm::kStore, 4096, {4096, 1024, 1024}};

size_t IndexOf(int32_t rows) {
  const auto& all = CostTable::kRows;
  return static_cast<size_t>(std::find(all.begin(), all.end(), rows) - all.begin());
}

CostTable SomeTable() {
  CostTable table;
  for (size_t i = 0; i < CostTable::kRows.size(); ++i) table.Set(kQkv, i, {10, 20});
  table.Set(kQkv, IndexOf(64), {30, 20});
  table.Set(kQkv, IndexOf(512), {0, 20});
  table.Set(kGated, IndexOf(16), {7, 0});
  GemmAlgorithm algorithm;
  algorithm.kind.operands = ProductOperands::kF8Block;
  algorithm.kind.output = ProductOutput::kFloat;
  algorithm.kind.addition = ProductAddition::kC;
  algorithm.kind.bias = ProductBias::kChannel;
  algorithm.kind.out = 1024;
  algorithm.kind.in = 4096;
  algorithm.bucket = 192;
  algorithm.config = {66, 21, 1, 0, 1, 0, UINT32_MAX, 3, 5};
  table.set_algorithms({algorithm});
  algorithm.bucket = 16;
  table.set_invariant_algorithms({algorithm});
  return table;
}

constexpr absl::string_view kHead =
    "tessera product costs 12\ndevice NVIDIA H200\ncapability 9.0\ndriver 13000\ncublaslt 130100\n";

StatusOr<CostTable> ParseLine(absl::string_view line) {
  return CostTable::Parse(absl::StrCat(kHead, line, "\nend\n"), kKey);
}

TEST(KeptCostsTest, ASecondProcessReadsWhatTheFirstMeasured) {
  const std::string file = ::testing::TempDir() + "/costs.txt";
  std::filesystem::remove(file);
  KeptCosts<CostTable> first(file);
  first.Load(kKey);
  EXPECT_TRUE(first.table.costs().empty());
  first.table = SomeTable();
  first.Save(kKey);
  KeptCosts<CostTable> second(file);
  second.Load(kKey);
  EXPECT_EQ(second.table.Text(kKey), SomeTable().Text(kKey));
  CostKey other = kKey;
  other.driver_version += 10;
  KeptCosts<CostTable> elsewhere(file);
  elsewhere.Load(other);
  EXPECT_TRUE(elsewhere.table.costs().empty());
}

TEST(KeptCostsTest, ADamagedFileIsWrittenAnew) {
  const std::string file = ::testing::TempDir() + "/damaged.txt";
  std::ofstream(file) << "tessera product costs";
  KeptCosts<CostTable> costs(file);
  costs.Load(kKey);
  EXPECT_TRUE(costs.table.costs().empty());
  costs.table = SomeTable();
  costs.Save(kKey);
  KeptCosts<CostTable> again(file);
  again.Load(kKey);
  EXPECT_FALSE(again.table.costs().empty());
}

TEST(KeptCostsTest, WithoutAFileNothingIsKept) {
  KeptCosts<CostTable> costs("");
  costs.table = SomeTable();
  costs.Save(kKey);
  costs.Load(kKey);
  EXPECT_FALSE(costs.table.costs().empty());
}

TEST(CostTableTest, TextRoundTrips) {
  const CostTable table = SomeTable();
  const std::string text = table.Text(kKey);
  const auto parsed = CostTable::Parse(text, kKey);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->Text(kKey), text);
  EXPECT_EQ(parsed->algorithms(), table.algorithms());
  EXPECT_EQ(parsed->invariant_algorithms(), table.invariant_algorithms());
  EXPECT_TRUE(parsed->Has(kQkv, 512));
  EXPECT_EQ(CostTable::Parse(CostTable().Text(kKey), kKey)->costs().size(), 0u);
}

TEST(CostTableTest, TextIsAsTheHeaderSays) {
  const std::string text = SomeTable().Text(kKey);
  EXPECT_EQ(text.substr(0, kHead.size()), kHead);
  EXPECT_NE(text.find("product F8_CHANNEL gated 4096 14336 rows 16 skinny 7 gemm -\n"),
            std::string::npos);
  EXPECT_NE(text.find("product BF16 store 4096 4096,1024,1024 rows 8 skinny 10 gemm 20\n"),
            std::string::npos);
  EXPECT_NE(text.find("algorithm f8_block128 f32 added bias 1024 4096 rows 192 : 66 21 1 0 1 0 "
                      "4294967295 3 5\ninvariant f8_block128 f32 added bias 1024 4096 rows 16 : 66 "
                      "21 1 0 1 0 4294967295 3 5\nend\n"),
            std::string::npos);
}

TEST(CostTableTest, ChoosesTheFasterWayOfTheNextMeasuredRows) {
  const CostTable table = SomeTable();
  EXPECT_EQ(table.Choose(kQkv, 1), ProductWay::kSkinny);
  EXPECT_EQ(table.Choose(kQkv, 48), ProductWay::kSkinny);
  EXPECT_EQ(table.Choose(kQkv, 49), ProductWay::kGemm);
  EXPECT_EQ(table.Choose(kQkv, 64), ProductWay::kGemm);
  EXPECT_EQ(table.Choose(kQkv, 65), ProductWay::kSkinny);
  EXPECT_EQ(table.Choose(kQkv, 385), ProductWay::kGemm);
  EXPECT_EQ(table.Choose(kQkv, 513), ProductWay::kGemm);
  EXPECT_EQ(table.Choose(kGated, 16), ProductWay::kSkinny);
}

TEST(CostTableTest, FollowsTheTypeWhereNothingWasMeasured) {
  ProductGroup group = kGated;
  const CostTable table;
  EXPECT_EQ(table.Choose(group, 1), ProductWay::kSkinny);
  EXPECT_EQ(table.Choose(group, 100), ProductWay::kGemm);
  group.dtype = DType::kI4G128;
  EXPECT_EQ(table.Choose(group, 100), ProductWay::kSkinny);
  EXPECT_EQ(table.Choose(group, 1000), ProductWay::kGemm);
}

TEST(CostTableTest, HasAllRowsUpToThoseAsked) {
  CostTable table;
  EXPECT_FALSE(table.Has(kQkv, 1));
  for (const int32_t rows : {1, 4, 8, 16, 24}) table.Set(kQkv, IndexOf(rows), {1, 1});
  EXPECT_TRUE(table.Has(kQkv, 1));
  EXPECT_TRUE(table.Has(kQkv, 17));
  EXPECT_TRUE(table.Has(kQkv, 24));
  EXPECT_FALSE(table.Has(kQkv, 25));
  EXPECT_FALSE(table.Has(kQkv, 8192));
}

TEST(CostTableTest, RefusesTablesOfOtherConditions) {
  const std::string text = SomeTable().Text(kKey);
  CostKey key = kKey;
  key.device = "NVIDIA H100 80GB HBM3";
  EXPECT_TRUE(absl::IsFailedPrecondition(CostTable::Parse(text, key).status()));
  key = kKey;
  key.minor = 1;
  EXPECT_TRUE(absl::IsFailedPrecondition(CostTable::Parse(text, key).status()));
  key = kKey;
  key.driver_version = 13010;
  EXPECT_TRUE(absl::IsFailedPrecondition(CostTable::Parse(text, key).status()));
  key = kKey;
  key.library_version = 130200;
  const Status status = CostTable::Parse(text, key).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
  EXPECT_EQ(PartsOf(status).where, "line 5");
  EXPECT_TRUE(absl::IsFailedPrecondition(
      CostTable::Parse(absl::StrReplaceAll(text, {{"product costs ", "product costs 1"}}), kKey)
          .status()));
}

TEST(CostTableTest, RefusesDamagedText) {
  const std::string text = SomeTable().Text(kKey);
  for (size_t cut = 0; cut < text.size(); ++cut) {
    EXPECT_FALSE(CostTable::Parse(text.substr(0, cut), kKey).ok()) << cut;
  }
  for (const char* line : {"product",
                           "product BF16 store 4096 4096 rows 8 skinny 10 gemm",
                           "",
                           "product BF17 store 4096 4096 rows 8 skinny 10 gemm 20",
                           "product BF16 stored 4096 4096 rows 8 skinny 10 gemm 20",
                           "product BF16 store 0 4096 rows 8 skinny 10 gemm 20",
                           "product BF16 store -4096 4096 rows 8 skinny 10 gemm 20",
                           "product BF16 store 65537 4096 rows 8 skinny 10 gemm 20",
                           "product BF16 store 4096 1,2,3,4,5 rows 8 skinny 10 gemm 20",
                           "product BF16 store 4096 4096, rows 8 skinny 10 gemm 20",
                           "product BF16 store 4096 524289 rows 8 skinny 10 gemm 20",
                           "product BF16 store 4096 4096 rows 9 skinny 10 gemm 20",
                           "product BF16 store 4096 4096 rows 8 skinny 0 gemm 20",
                           "product BF16 store 4096 4096 rows 8 skinny - gemm -",
                           "product BF16 store 4096 4096 rows 8 skinny 4294967296 gemm 20",
                           "algorithm bf16 bf16 plain no_bias 8 8 rows 16 : 66 21 1 0 0 0 0 0",
                           "algorithm bf16 bf16 plain no_bias 8 8 rows 16 : 66 21 1 0 0 0 0 0 0 0",
                           "algorithm bf16 bf16 plain no_bias 8 8 rows 16 : 66 21 1 0 0 0 0 0 x",
                           "algorithm bf16 bf16 plain no_bias 8 8 rows 0 : 66 21 1 0 0 0 0 0 5",
                           "invariant bf16 bf16 plain no_bias 8 8 rows 0 : 66 21 1 0 0 0 0 0 5",
                           "invariants bf16 bf16 plain no_bias 8 8 rows 16 : 66 21 1 0 0 0 0 0 5",
                           "algorithm bf16 f64 plain no_bias 8 8 rows 16 : 66 21 1 0 0 0 0 0 5"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseLine(line).status())) << line;
  }
  EXPECT_EQ(PartsOf(ParseLine("product").status()).where, "line 6");
  EXPECT_TRUE(
      ParseLine("algorithm bf16 bf16 plain no_bias 8 8 rows 16 : 66 21 1 0 0 0 0 0 5").ok());
}

}  // namespace
}  // namespace tessera::kernels::cuda
