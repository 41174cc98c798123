#include "kernels/cuda/linear/layer_mixtures.h"

#include <algorithm>
#include <array>
#include <bit>
#include <tuple>
#include <vector>

namespace tessera::kernels::cuda {
namespace {

constexpr uint64_t kClose = 5;  // quarters of the other way's time
// What a step loses with a product of the library that a trial does not show. Behind it attention
// begins to read its tables when it has ended, behind ours before; what stands for attention in a
// trial has none. Steps of an 8B model on an H200 lost, a layer, with the library's q, k and v 4.3
// to 5.7 us more than the trial showed at 16 to 32 rows, 3.6 at 48, 1.6 at 64; at 8 rows with its
// output of attention 5.5, with its down 5.4.
constexpr int32_t kFewRows = 16;
constexpr uint32_t kFewHiddenNs = 5000;   // of each product
constexpr uint32_t kManyHiddenNs = 3000;  // of q, k and v

constexpr size_t kProducts = std::tuple_size_v<ProductLayer>;

// A bit a product: whether it is streamed.
using Mixture = uint32_t;
constexpr Mixture kMixtures = 1u << kProducts;

bool Streams(Mixture mixture, size_t product) { return (mixture >> product & 1) != 0; }

// A layer for each group of gate and up whose neighbours were measured.
std::vector<ProductLayer> LayersOf(std::span<const ProductGroup> groups, const CostTable& table) {
  std::vector<ProductLayer> layers;
  for (const ProductGroup& gated : groups) {
    const auto find = [&](ProductForm form, auto fits) {
      return std::find_if(groups.begin(), groups.end(), [&](const ProductGroup& group) {
        return group.form == form && table.costs().count(group) > 0 && fits(group);
      });
    };
    const auto writes = [&](const ProductGroup& group) { return group.outs[0] == gated.in; };
    const auto reads = [&](const ProductGroup& group) { return group.in == gated.in; };
    const auto qkv = find(ProductForm::kStore, reads);
    const auto output = find(ProductForm::kResidual, [&](const ProductGroup& group) {
      return writes(group) && group.in != gated.outs[0];
    });
    const auto down = find(ProductForm::kResidual, [&](const ProductGroup& group) {
      return writes(group) && group.in == gated.outs[0];
    });
    if (gated.form != ProductForm::kGated || table.costs().count(gated) == 0 ||
        qkv == groups.end() || output == groups.end() || down == groups.end()) {
      continue;
    }
    layers.push_back({*qkv, *output, gated, *down});
  }
  return layers;
}

// One layer with one number of rows.
class LayerTrial {
 public:
  LayerTrial(const ProductLayer& layer, size_t rows_index, MeasureLayer measure, CostTable& table)
      : layer_(layer), rows_index_(rows_index), measure_(measure), table_(table) {
    for (size_t i = 0; i < kProducts; ++i) {
      costs_[i] = table.costs().at(layer[i])[rows_index];
      const auto [least, most] = std::minmax({costs_[i].skinny_ns, costs_[i].gemm_ns});
      if (least != 0 && 4 * uint64_t{most} <= kClose * least) {
        open_ |= 1u << i;
      } else if (table.Choose(layer[i], rows()) == ProductWay::kSkinny) {
        fixed_ |= 1u << i;
      }
    }
  }

  void Run() {
    if (open_ == 0) return;
    took_.fill(UINT32_MAX);
    for (Mixture mixture = 0; mixture < kMixtures; ++mixture) {
      if ((mixture & ~open_) != fixed_) continue;
      Force(mixture);
      const uint32_t ns = measure_(layer_, rows());
      if (ns != 0) took_[mixture] = ns + HiddenNs(mixture);
    }
    for (size_t i = 0; i < kProducts; ++i) {
      if ((open_ >> i & 1) != 0) Compare(i);
      table_.Set(layer_[i], rows_index_, costs_[i]);
    }
  }

 private:
  [[nodiscard]] int32_t rows() const { return CostTable::kRows[rows_index_]; }
  [[nodiscard]] uint32_t HiddenNs(Mixture mixture) const {
    if (rows() > kFewRows) return Streams(mixture, 0) ? 0 : kManyHiddenNs;
    return kFewHiddenNs * static_cast<uint32_t>(std::popcount((kMixtures - 1) & ~mixture));
  }
  // Has the table say a mixture.
  void Force(Mixture mixture) {
    for (size_t i = 0; i < kProducts; ++i) {
      const uint32_t streams = Streams(mixture, i) ? 1 : 0;
      table_.Set(layer_[i], rows_index_, {.skinny_ns = streams, .gemm_ns = 1 - streams});
    }
  }
  // The least time of the mixtures in which a product is streamed, or is not.
  [[nodiscard]] uint32_t Least(size_t product, bool streams) const {
    uint32_t least = UINT32_MAX;
    for (Mixture mixture = 0; mixture < kMixtures; ++mixture) {
      if (Streams(mixture, product) == streams) least = std::min(least, took_[mixture]);
    }
    return least;
  }
  void Compare(size_t product) {
    const uint32_t skinny = Least(product, true), gemm = Least(product, false);
    if (skinny == UINT32_MAX || gemm == UINT32_MAX) return;
    ProductCost& cost = costs_[product];
    if (skinny <= gemm) {
      cost.gemm_ns = cost.skinny_ns + std::max(gemm - skinny, 1u);
    } else {
      cost.skinny_ns = cost.gemm_ns + skinny - gemm;
    }
  }

  const ProductLayer& layer_;
  const size_t rows_index_;
  const MeasureLayer measure_;
  CostTable& table_;
  std::array<ProductCost, kProducts> costs_;  // of each product alone, then in the layer
  Mixture open_ = 0;                          // products whose ways are close
  Mixture fixed_ = 0;                         // of the others
  std::array<uint32_t, kMixtures> took_{};
};

}  // namespace

void MeasureLayers(std::span<const ProductGroup> groups, std::span<const ProductGroup> changed,
                   int32_t max_rows, MeasureLayer measure, CostTable& table) {
  for (const ProductLayer& layer : LayersOf(groups, table)) {
    const bool has_changed = std::any_of(layer.begin(), layer.end(), [&](const auto& group) {
      return std::find(changed.begin(), changed.end(), group) != changed.end();
    });
    if (!has_changed) continue;
    for (size_t i = 0; i < CostTable::kRows.size(); ++i) {
      LayerTrial(layer, i, measure, table).Run();
      if (CostTable::kRows[i] >= max_rows) break;
    }
  }
}

}  // namespace tessera::kernels::cuda
