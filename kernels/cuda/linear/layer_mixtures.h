// Which mixture of ways is the fastest for the products of a layer. What a product costs depends on
// its neighbours: streaming kernels fill their rings while their like end, the library's do not. So
// sums of costs that each product had alone mislead where the ways are close, by up to 15 % of a
// step.
#pragma once

#include <cstdint>
#include <span>

#include "config/foundation/status.h"
#include "kernels/cuda/linear/cost_table.h"
#include "kernels/cuda/linear/product_trial.h"

namespace tessera::kernels::cuda {

// For each layer that `groups` make (q, k and v; the output of attention; gate and up; down) and
// that has one of `changed`: measures the mixtures that the costs of its products alone leave open,
// with each number of rows up to `max_rows`, and has the costs say the fastest. A product's way in
// it keeps the cost that it had alone, its other way costs more by what the layer loses with it.
[[nodiscard]] Status MeasureLayers(std::span<const ProductGroup> groups,
                                   std::span<const ProductGroup> changed, int32_t max_rows,
                                   ProductTrial& trial, CostTable& table);

}  // namespace tessera::kernels::cuda
