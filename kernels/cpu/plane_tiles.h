// The part of the packed layout (cpu/layout.h) that is for types with planes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/dtype.h"

namespace tessera::kernels::cpu {

// As PackTile16 and UnpackTile16. The caller has filled `packed` with zeros; unpacking fills all of
// `canonical`, the gaps between planes with zeros.
void PackPlanes(DType dtype, uint64_t out, uint64_t in, const std::byte* canonical,
                std::byte* packed);
void UnpackPlanes(DType dtype, uint64_t out, uint64_t in, const std::byte* packed,
                  std::byte* canonical);
// As ReadRow, for row `lane` of `tile`.
void ReadPlanesRow(DType dtype, uint64_t in, const std::byte* tile, uint64_t lane, float scale,
                   float* y);

}  // namespace tessera::kernels::cpu
