// Times products on the current device: what CalibrateCosts decides by.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "absl/functional/function_ref.h"
#include "config/foundation/status.h"
#include "kernels/cuda/linear/cost_calibration.h"
#include "kernels/cuda/linear/cost_table.h"
#include "kernels/cuda/linear/layer_mixtures.h"
#include "kernels/memory.h"

namespace tessera::kernels::cuda {

[[nodiscard]] inline bool IsGated(const ProductGroup& group) {
  return group.form == ProductForm::kGated;
}
// Those that are not 0.
[[nodiscard]] std::span<const int32_t> OutsOf(const ProductGroup& group);
// Their sum.
[[nodiscard]] int32_t AllOuts(const ProductGroup& group);

// Launches and times groups on random operands of its own. A measurement is some launches as a step
// makes them, with weights that are not in the cache, as one graph; the best of five runs that
// follow one another.
class ProductTrial {
 public:
  explicit ProductTrial(const ProductTools& tools) : tools_(tools) {}
  ProductTrial(const ProductTrial&) = delete;
  ProductTrial& operator=(const ProductTrial&) = delete;
  ~ProductTrial();

  // Operands for any of the groups and up to CostTable::kRows.back() rows.
  [[nodiscard]] Status Allocate(std::span<const ProductGroup> groups);

  // Measures a group with one number of rows, whose x the product before left as codes or not.
  [[nodiscard]] ProductCost Measure(const ProductGroup& group, int32_t rows, bool coded,
                                    bool tries_skinny);

  // Nanoseconds of a layer whose products go as the table says, with a streaming product in the
  // place of attention; 0 where one fails.
  [[nodiscard]] uint32_t Measure(const ProductLayer& layer, int32_t rows);

 private:
  static constexpr int kRuns = 5;
  struct Operands {
    const std::byte* weight;
    std::byte* x;
    std::byte* y;
  };

  // Milliseconds of one of `launches`, launch(i) being the i-th, or nothing where one fails.
  std::optional<float> Time(uint64_t launches, absl::FunctionRef<bool(uint64_t)> launch);
  std::optional<float> TimeGroup(const ProductGroup& group, int32_t rows, ProductWay way,
                                 bool coded);
  float Replay(cudaGraphExec_t graph);
  bool Launch(const ProductGroup& group, int32_t rows, std::optional<ProductWay> way, bool coded,
              Operands operands);

  const ProductTools& tools_;
  std::shared_ptr<Buffer> weights_, x_, residual_, norm_, y_, up_;
  std::array<cudaEvent_t, kRuns + 1> events_{};
};

}  // namespace tessera::kernels::cuda
