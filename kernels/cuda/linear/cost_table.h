// Which kernels make a product: what the streaming kernels (skinny.h) and the matrix library
// (gemm.h) were measured to take on this device, and the library's algorithms that were found with
// it. A plain value without a header of CUDA; its text outlives the process.
//
// A group is the products of one launch: q, k and v of a block, or gate and up. Its costs are known
// for some numbers of rows; others cost what the next of these does; between the two ways of a
// group of a layer lies what the layer loses with the slower (layer_mixtures.h). A group that was
// not measured follows a rule by its type.
//
// Text: a line each for the version, the key, every group and number of rows ("-": not tried), and
// every algorithm of the fast and of the row-invariant numerics; then "end".
//   tessera product costs 12
//   device NVIDIA H200
//   capability 9.0
//   driver 13000
//   cublaslt 130100
//   product F8_CHANNEL gated 4096 14336 rows 64 skinny 61234 gemm 85012
//   algorithm f8_channel bf16 plain no_bias 14336 4096 rows 64 : 66 21 1 0 0 0 36 0 5
//   invariant f8_channel bf16 plain no_bias 14336 4096 rows 64 : 66 18 1 0 0 0 36 0 4
//   end
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "config/foundation/status.h"
#include "kernels/cuda/linear/product_kind.h"
#include "kernels/dtype.h"

namespace tessera::kernels::cuda {

// What happens to the products' sums: decides what is written and how.
enum class ProductForm : uint8_t { kStore, kLogits, kResidual, kGated };

inline constexpr int kMaxProducts = 4;

struct ProductGroup {
  DType dtype = DType::kBF16;
  ProductForm form = ProductForm::kStore;
  int32_t in = 0;
  // Of each product, in the launch's order; zeros behind. Gated: of gate, which is also that of up.
  std::array<int32_t, kMaxProducts> outs{};

  auto operator<=>(const ProductGroup&) const = default;
};

enum class ProductWay : uint8_t { kSkinny, kGemm };

// Nanoseconds of the whole group; 0: not tried.
struct ProductCost {
  uint32_t skinny_ns = 0;
  uint32_t gemm_ns = 0;
};

// What costs depend on beside the kernels of this version.
struct CostKey {
  std::string device;  // "NVIDIA H200"
  int major = 0;       // compute capability
  int minor = 0;
  int driver_version = 0;      // of CUDA that the driver serves: 13000
  size_t library_version = 0;  // GemmEngine::LibraryVersion
};

class CostTable {
 public:
  using Key = CostKey;
  // Numbers of rows with a cost of their own; more go to the library.
  static constexpr std::array<int32_t, 14> kRows = {1,  4,  8,   16,  24,  32,  48,
                                                    64, 96, 128, 192, 256, 384, 512};
  using Costs = std::array<ProductCost, kRows.size()>;

  // The way for 1 or more rows.
  [[nodiscard]] ProductWay Choose(const ProductGroup& group, int32_t rows) const;
  // Whether each of kRows up to `max_rows` is known.
  [[nodiscard]] bool Has(const ProductGroup& group, int32_t max_rows) const;
  void Set(const ProductGroup& group, size_t rows_index, const ProductCost& cost) {
    costs_[group][rows_index] = cost;
  }
  [[nodiscard]] const std::map<ProductGroup, Costs>& costs() const { return costs_; }

  // What GemmEngine::Import takes: of GemmNumerics::kFast, and of kRowInvariant.
  [[nodiscard]] const std::vector<GemmAlgorithm>& algorithms() const { return algorithms_; }
  void set_algorithms(std::vector<GemmAlgorithm> algorithms) {
    algorithms_ = std::move(algorithms);
  }
  [[nodiscard]] const std::vector<GemmAlgorithm>& invariant_algorithms() const {
    return invariant_algorithms_;
  }
  void set_invariant_algorithms(std::vector<GemmAlgorithm> algorithms) {
    invariant_algorithms_ = std::move(algorithms);
  }

  [[nodiscard]] std::string Text(const CostKey& key) const;
  // INVALID_ARGUMENT with the line for what Text does not write, FAILED_PRECONDITION for a table of
  // another device, driver, library or version: measure again.
  [[nodiscard]] static StatusOr<CostTable> Parse(absl::string_view text, const CostKey& key);

 private:
  std::map<ProductGroup, Costs> costs_;
  std::vector<GemmAlgorithm> algorithms_, invariant_algorithms_;
};

}  // namespace tessera::kernels::cuda
