// Measures what products take on tile registers and on vectors.
#pragma once

#include "config/foundation/status.h"
#include "kernels/cpu/tile_costs.h"
#include "kernels/dtype.h"

namespace tessera::kernels::cpu {

[[nodiscard]] TileCosts::Key ThisProcessor();

// Of a type that takes tiles, on a processor that has them, by the calling thread: both ways make
// the products of some weights that are not in its own caches, one after the other, and the best of
// some rounds counts. Takes some hundredths of a second and 24 MiB. RESOURCE_EXHAUSTED without
// that.
[[nodiscard]] StatusOr<TileCosts::Costs> MeasureTiles(DType dtype);

}  // namespace tessera::kernels::cpu
