#include "kernels/cuda/linear/layer_mixtures.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace tessera::kernels::cuda {
namespace {

constexpr DType kLayerType = DType::kBF16;
const ProductGroup kLayerQkv{kLayerType, ProductForm::kStore, 4096, {4096, 1024, 1024}};
const ProductGroup kLayerOutput{kLayerType, ProductForm::kResidual, 4096, {4096}};
const ProductGroup kLayerGated{kLayerType, ProductForm::kGated, 4096, {14336}};
const ProductGroup kLayerDown{kLayerType, ProductForm::kResidual, 14336, {4096}};
const ProductGroup kLayerLogits{kLayerType, ProductForm::kLogits, 4096, {128256}};
const std::vector<ProductGroup> kLayerGroups = {kLayerQkv, kLayerOutput, kLayerGated, kLayerDown,
                                                kLayerLogits};

size_t RowsIndex(int32_t rows) {
  const auto& all = CostTable::kRows;
  return static_cast<size_t>(std::find(all.begin(), all.end(), rows) - all.begin());
}

// A device on which a layer takes what a test says of its ways ("ssgs": qkv and output and down are
// streamed), and every product alone as long either way.
class LayerMixturesTest : public testing::Test {
 protected:
  LayerMixturesTest() {
    for (const ProductGroup& group : kLayerGroups) {
      for (size_t i = 0; i < CostTable::kRows.size(); ++i) table_.Set(group, i, {50'000, 50'000});
    }
  }

  std::string Ways(int32_t rows) const {
    std::string ways;
    for (const ProductGroup& group : {kLayerQkv, kLayerOutput, kLayerGated, kLayerDown}) {
      ways += table_.Choose(group, rows) == ProductWay::kSkinny ? 's' : 'g';
    }
    return ways;
  }
  void Measure(int32_t max_rows, std::vector<ProductGroup> changed = kLayerGroups) {
    const auto measure = [this](const ProductLayer& layer, int32_t rows) {
      EXPECT_EQ(layer, (ProductLayer{kLayerQkv, kLayerOutput, kLayerGated, kLayerDown}));
      const std::string ways = Ways(rows);
      EXPECT_TRUE(seen_[rows].insert(ways).second) << ways << " twice";
      const auto found = takes_.find(ways);
      return found == takes_.end() ? uint32_t{300'000} : found->second;
    };
    MeasureLayers(kLayerGroups, changed, max_rows, measure, table_);
  }
  ProductCost Cost(const ProductGroup& group, int32_t rows) const {
    return table_.costs().at(group)[RowsIndex(rows)];
  }

  CostTable table_;
  std::map<std::string, uint32_t> takes_;
  std::map<int32_t, std::set<std::string>> seen_;
};

TEST_F(LayerMixturesTest, TheFastestMixtureIsChosenThoughEachProductAloneSaysNothing) {
  takes_ = {{"ssgs", 200'000}, {"ssss", 208'000}, {"gggg", 214'000}};
  Measure(8192);
  for (const int32_t rows : CostTable::kRows) {
    EXPECT_EQ(Ways(rows), "ssgs") << rows;
    EXPECT_EQ(seen_[rows].size(), 16u) << rows;
  }
  EXPECT_EQ(Cost(kLayerGated, 64).gemm_ns, 50'000u);
  EXPECT_EQ(Cost(kLayerGated, 64).skinny_ns, 58'000u);
  // Its best without a streamed qkv is all of the library's, and attention's start behind it.
  EXPECT_EQ(Cost(kLayerQkv, 64).skinny_ns, 50'000u);
  EXPECT_GT(Cost(kLayerQkv, 64).gemm_ns, 60'000u);
  EXPECT_EQ(Cost(kLayerLogits, 64).skinny_ns, 50'000u);
}

TEST_F(LayerMixturesTest, TheLibraryHasToWinMoreThanATrialHides) {
  for (const std::string way : {"gsss", "sgss", "ssgs", "sssg"}) {
    for (const int32_t rows : {8, 64}) {
      const uint32_t hidden = rows == 8 ? 5000 : way[0] == 'g' ? 3000 : 0;
      for (const bool wins : {false, true}) {
        for (const ProductGroup& group : kLayerGroups) {
          table_.Set(group, RowsIndex(rows), {50'000, 50'000});
        }
        takes_ = {{"ssss", 200'000}, {way, 200'000 - hidden - (wins ? 1 : 0)}};
        seen_.clear();
        Measure(64);
        EXPECT_EQ(Ways(rows), wins ? way : "ssss") << rows;
      }
    }
  }
}

TEST_F(LayerMixturesTest, EachMixtureCanBeTheFastest) {
  for (uint32_t mixture = 0; mixture < 16; ++mixture) {
    std::string ways;
    for (uint32_t i = 0; i < 4; ++i) ways += (mixture >> i & 1) != 0 ? 's' : 'g';
    takes_ = {{ways, 100'000}};
    seen_.clear();
    for (const ProductGroup& group : kLayerGroups) table_.Set(group, 0, {50'000, 50'000});
    Measure(1);
    EXPECT_EQ(Ways(1), ways);
  }
}

TEST_F(LayerMixturesTest, WaysThatAreFarApartStay) {
  table_.Set(kLayerGated, RowsIndex(64), {63'000, 50'000});
  table_.Set(kLayerDown, RowsIndex(64), {50'000, 0});
  takes_ = {{"ssss", 1000}, {"ggss", 200'000}, {"gggg", 1000}, {"sggs", 150'000}};
  Measure(64);
  EXPECT_EQ(Ways(64), "sggs");
  EXPECT_EQ(seen_[64], (std::set<std::string>{"ssgs", "sggs", "gsgs", "gggs"}));
  EXPECT_EQ(Cost(kLayerGated, 64).skinny_ns, 63'000u);
  EXPECT_EQ(Cost(kLayerDown, 64).gemm_ns, 0u);
}

TEST_F(LayerMixturesTest, RowsBeyondTheMostAreNotMeasured) {
  Measure(60);
  EXPECT_EQ(seen_.count(64), 1u);
  EXPECT_EQ(seen_.count(96), 0u);
}

TEST_F(LayerMixturesTest, AFailedLayerLeavesTheCosts) {
  for (uint32_t mixture = 0; mixture < 16; ++mixture) {
    std::string ways;
    for (uint32_t i = 0; i < 4; ++i) ways += (mixture >> i & 1) != 0 ? 's' : 'g';
    takes_[ways] = 0;
  }
  Measure(1);
  for (const ProductGroup& group : kLayerGroups) {
    EXPECT_EQ(Cost(group, 1).skinny_ns, 50'000u);
    EXPECT_EQ(Cost(group, 1).gemm_ns, 50'000u);
  }
}

TEST_F(LayerMixturesTest, LayersWithoutAChangeOrWithoutCostsAreLeft) {
  Measure(8192, {kLayerLogits});
  EXPECT_TRUE(seen_.empty());
  CostTable empty;
  MeasureLayers(
      kLayerGroups, kLayerGroups, 8192,
      [](const ProductLayer&, int32_t) {
        ADD_FAILURE() << "measured";
        return 0u;
      },
      empty);
  EXPECT_TRUE(empty.costs().empty());
}

}  // namespace
}  // namespace tessera::kernels::cuda
