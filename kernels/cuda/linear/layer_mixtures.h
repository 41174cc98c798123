// Which mixture of ways is the fastest for the products of a layer. What a product costs depends on
// its neighbours: streaming kernels fill their rings while their like end, the library's do not. So
// sums of costs that each product had alone mislead where the ways are close, by up to 15 % of a
// step.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "absl/functional/function_ref.h"
#include "kernels/cuda/linear/cost_table.h"

namespace tessera::kernels::cuda {

// The products of a layer in a step's order: q, k and v; the output of attention; gate and up;
// down.
using ProductLayer = std::array<ProductGroup, 4>;

// Nanoseconds of a layer with some rows, whose products go as the table says; 0 where one fails.
using MeasureLayer = absl::FunctionRef<uint32_t(const ProductLayer& layer, int32_t rows)>;

// For each layer that `groups` make and that has one of `changed`: measures the mixtures that the
// costs of its products alone leave open (ways within a quarter of each other), with each number of
// rows up to `max_rows`, and has the costs say the fastest. A product's way in it keeps the cost
// that it had alone, its other way costs more by what the layer loses with it. Groups without costs
// make no layer. `table` is also what `measure` goes by.
void MeasureLayers(std::span<const ProductGroup> groups, std::span<const ProductGroup> changed,
                   int32_t max_rows, MeasureLayer measure, CostTable& table);

}  // namespace tessera::kernels::cuda
